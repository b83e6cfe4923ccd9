"""Every measure as one number a query: means, groups, intervals and comparisons follow from these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from vmr import _core
from vmr.evaluation.packing import (
    Floats,
    Highlights,
    Moments,
    Rows,
    average_precisions,
    best_overlaps,
    threads,
)
from vmr.evaluation.protocols import (
    LEVELS,
    PRECISION_THRESHOLDS,
    RECALL_THRESHOLDS,
    TOPS,
    LengthRange,
    Protocol,
)

_RECALL = np.array(RECALL_THRESHOLDS)


class Measures(Mapping[str, Floats]):
    """Measures by name, each [Q] with values from 0 to 1; NaN for a query that it leaves out.

    Names: ``MR-full-R1@0.5`` (also ``R5``, ``Rany``), ``MR-full-mAP@0.5``, ``MR-full-mAP`` (the mean
    over IoU 0.5:0.05:0.95), ``MR-full-mIoU``, the same for ``short``, ``middle`` and ``long`` where
    the protocol has them, ``HL-min-Fair-mAP``, ``HL-min-Fair-Hit1`` and so on, ``HL-mAP``.
    """

    def __init__(self) -> None:
        self._vectors: dict[str, partial[Floats]] = {}
        self._means: dict[str, float | None] = {}

    def __getitem__(self, name: str) -> Floats:
        return self._vectors[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def mean(self, name: str) -> float | None:
        """The mean over the queries that have the measure; None without any."""
        return self._means[name]

    def add_moments(
        self, name: str, moments: Moments, length_range: LengthRange, as_published: bool
    ) -> None:
        """The measures of the ground truth of one range of lengths."""
        precisions = average_precisions(
            moments, np.array(PRECISION_THRESHOLDS), length_range, as_published
        )
        overlaps = best_overlaps(
            moments, np.array(list(TOPS.values()), dtype=np.int64), length_range, as_published
        )
        inside = ~np.isnan(precisions[:, 0])
        # An overlap that is NaN otherwise (of a NaN window, as published) reaches nothing.
        overlaps = np.where(np.isnan(overlaps) & inside[:, None], 0.0, overlaps)
        for column, top in enumerate(TOPS):
            shares = _shares(overlaps[inside, column])
            for threshold, mean in zip(RECALL_THRESHOLDS, shares, strict=True):
                vector = partial(_reached, overlaps, column, threshold)
                self._add(f"MR-{name}-R{top}@{threshold}", vector, mean)
        means = _means(precisions[inside])
        for column, threshold in enumerate(PRECISION_THRESHOLDS):
            vector = partial(_column, precisions, column)
            self._add(f"MR-{name}-mAP@{threshold}", vector, means[column])
        # As published, a mean over thresholds of means over queries.
        over_thresholds = float(np.mean(precisions[inside].mean(axis=0))) if inside.any() else None
        self._add(f"MR-{name}-mAP", partial(_mean, precisions), over_thresholds)
        (mean,) = _means(overlaps[inside, :1])
        self._add(f"MR-{name}-mIoU", partial(_column, overlaps, 0), mean)

    def add_highlights(self, highlights: Highlights, protocol: Protocol) -> None:
        """The measures of clip scores."""
        scores, labels = highlights
        if protocol.ranked:
            top, above_median = protocol.ranked
            precisions = _core.ranked_precisions(
                *scores, *labels, top=top, above_median=above_median, threads=threads()
            )
            if protocol.left_out_without_positives:
                precisions[_without_positives(labels)] = np.nan
            self._add_columns(["HL-mAP"], precisions[:, None])
            return
        precisions, hits = _core.highlight_precisions(
            *scores, *labels, np.array(list(LEVELS.values())), threads=threads()
        )
        self._add_columns([f"HL-min-{level}-mAP" for level in LEVELS], precisions)
        self._add_columns([f"HL-min-{level}-Hit1" for level in LEVELS], hits)

    def _add_columns(self, names: Sequence[str], table: Floats) -> None:
        means = _means(table[~np.isnan(table[:, 0])])
        for column, (name, mean) in enumerate(zip(names, means, strict=True)):
            self._add(name, partial(_column, table, column), mean)

    def _add(self, name: str, vector: partial[Floats], mean: float | None) -> None:
        self._vectors[name] = vector
        self._means[name] = mean


def _shares(overlaps: Floats) -> list[float | None]:
    """The share of queries that reach each recall threshold; None without queries."""
    if not len(overlaps):
        return [None] * len(_RECALL)
    below = np.searchsorted(np.sort(overlaps), _RECALL, side="left")
    shares: list[float | None] = ((len(overlaps) - below) / len(overlaps)).tolist()
    return shares


def _means(table: npt.NDArray[Any]) -> list[float | None]:
    """The mean of each column over the rows; None without rows."""
    if not len(table):
        return [None] * table.shape[1]
    means: list[float | None] = table.mean(axis=0).tolist()
    return means


def _without_positives(labels: Rows) -> npt.NDArray[np.bool_]:
    positives = np.bincount(
        labels.spread(), (labels.values > 0).any(axis=1), minlength=len(labels.offsets) - 1
    )
    return np.asarray(positives == 0)


def _reached(overlaps: Floats, column: int, threshold: float) -> Floats:
    best = overlaps[:, column]
    return np.where(np.isnan(best), np.nan, best >= threshold)


def _column(table: Floats, column: int) -> Floats:
    return table[:, column]


def _mean(table: Floats) -> Floats:
    return np.asarray(table.mean(axis=1), dtype=np.float64)
