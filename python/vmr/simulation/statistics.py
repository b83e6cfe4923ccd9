"""The geometry of a simulated corpus, measured on the files that were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vmr.data.packs import FeaturePack
from vmr.data.records import Query, clipped
from vmr.progress import Progress
from vmr.simulation.calibration import Calibration, inside
from vmr.simulation.narrations import Source
from vmr.simulation.parameters import Simulation
from vmr.simulation.randomness import generator

_QUERIES = 500  # of a split that are measured
_BINS = 50
_AROUND = 5  # rows on either side of a boundary
_SEARCHED = 3  # rows on either side within which a boundary is looked for


class SplitStatistics(msgspec.Struct, frozen=True):
    """What a split is like. Shares are from 0 to 1; None where there is nothing to measure.

    Attributes:
        queries, videos: Of the split.
        queries_a_video: Mean.
        measured: Queries that the rest was measured on.
        hit: Share of queries whose most similar frame lies in the ground truth.
        chance: The same for a frame drawn at random.
        overlap: Area that the distributions of the similarity inside and outside have in common.
        auc: Probability that a frame inside is more similar than one outside of the same query.
        within, across: Cosine of neighbouring frames inside moments, and across their boundaries.
        boundary_offset: Mean distance from an annotated boundary to the sharpest change within three
            rows, s.
        bins: Edges of the similarity's histograms [51].
        inside, outside: Share of frames in each bin [50].
        curve: Mean cosine of a frame and the next, from five rows before a boundary to five after
            [11]; the one in the middle is across it.
    """

    queries: int
    videos: int
    queries_a_video: float
    measured: int
    hit: float | None
    chance: float | None
    overlap: float | None
    auc: float | None
    within: float | None
    across: float | None
    boundary_offset: float | None
    bins: tuple[float, ...]
    inside: tuple[float, ...]
    outside: tuple[float, ...]
    curve: tuple[float | None, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulated corpus is like.

    Attributes:
        version: Of this document.
        about: Which queries it has.
        parameters: How it was made.
        calibration: How strong the noise of the frames is, and what that reached.
        splits: By name.
        narrations: How many lines there are.
        sources: Share of them by source.
    """

    version: int = 1
    about: str
    parameters: Simulation
    calibration: Calibration
    splits: dict[str, SplitStatistics]
    narrations: int
    sources: dict[Source, float]


def measure(
    queries: Sequence[Query],
    split: str,
    pack: FeaturePack,
    simulation: Simulation,
    progress: Progress,
) -> SplitStatistics:
    """Measures a split, on some hundred of its queries.

    Args:
        queries: As the split's file has them.
        split: Its name.
        pack: The features.
        simulation: Its seed, row length and columns count.
        progress: Is told how many queries are done.
    """
    rng = generator(simulation.seed, "measured", split)
    places = np.sort(rng.permutation(len(queries))[:_QUERIES])
    near: list[NDArray[np.float64]] = []
    far: list[NDArray[np.float64]] = []
    hits: list[float] = []
    chances: list[float] = []
    ranks: list[float] = []
    within: list[NDArray[np.float64]] = []
    curves: list[NDArray[np.float64]] = []
    offsets: list[float] = []
    for done, place in enumerate(places, 1):
        query = queries[int(place)]
        frames = pack.video(query.video)[:, : simulation.dim].astype(np.float64)
        truth = inside(query, len(frames), simulation.row_seconds)
        progress(f"measure {split}", done, len(places))
        if not truth.any():
            continue
        similar = frames @ pack.pooled_text(query)
        hits.append(float(truth[similar.argmax()]))
        chances.append(float(truth.mean()))
        near.append(similar[truth])
        far.append(similar[~truth])
        if not truth.all():
            ranks.append(_auc(similar[truth], similar[~truth]))
        steps = (frames[1:] * frames[:-1]).sum(axis=1)
        within.append(steps[truth[1:] & truth[:-1]])
        for boundary in _boundaries(query, len(frames), simulation.row_seconds):
            curve = _around(steps, boundary)
            curves.append(curve)
            offsets.append(_offset(curve) * simulation.row_seconds)
    edges, inner, outer = _histograms(near, far)
    stacked = np.array(curves).reshape(-1, 2 * _AROUND + 1)
    curve_means = [_mean(column[~np.isnan(column)]) for column in stacked.T]
    videos = len({query.video for query in queries})
    return SplitStatistics(
        queries=len(queries),
        videos=videos,
        queries_a_video=_rounded(len(queries) / videos),
        measured=len(hits),
        hit=_mean(hits),
        chance=_mean(chances),
        overlap=_rounded(float(np.minimum(inner, outer).sum())) if far and inner.any() else None,
        auc=_mean(ranks),
        within=_mean(np.concatenate(within)) if within else None,
        across=curve_means[_AROUND],
        boundary_offset=_mean(offsets),
        bins=tuple(map(_rounded, edges)),
        inside=tuple(map(_rounded, inner)),
        outside=tuple(map(_rounded, outer)),
        curve=tuple(curve_means),
    )


def _rounded(value: float) -> float:
    return round(float(value), 5)


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    return _rounded(float(np.mean(values))) if len(values) else None


def _auc(inner: NDArray[np.float64], outer: NDArray[np.float64]) -> float:
    """Probability that one of the first is larger than one of the second; ties count half."""
    difference = inner[:, None] - outer[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _histograms(
    near: list[NDArray[np.float64]], far: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges, and the share of values in each bin of both."""
    inner, outer = np.concatenate([*near, []]), np.concatenate([*far, []])
    both = np.concatenate([inner, outer, [0.0] if not len(inner) else []])
    edges = np.linspace(both.min() - 1e-6, both.max() + 1e-6, _BINS + 1)
    shares = [np.histogram(values, edges)[0] / max(len(values), 1) for values in (inner, outer)]
    return edges, shares[0], shares[1]


def _boundaries(query: Query, rows: int, row_seconds: float) -> list[int]:
    """Rows before which the query's windows begin or end, but for the video's own ends."""
    times = {time for window in clipped(query.windows or (), query.duration) for time in window}
    found = {round(time / row_seconds) for time in times}
    return sorted(row for row in found if 0 < row < rows)


def _around(steps: NDArray[np.float64], boundary: int) -> NDArray[np.float64]:
    """The steps around a boundary [11], NaN beyond the video. Step i is from row i to row i + 1."""
    places = boundary - 1 + np.arange(-_AROUND, _AROUND + 1)
    there = (places >= 0) & (places < len(steps))
    return np.where(there, steps[np.clip(places, 0, len(steps) - 1)], np.nan)


def _offset(curve: NDArray[np.float64]) -> int:
    """Rows from the boundary to the sharpest change near it."""
    near = curve[_AROUND - _SEARCHED : _AROUND + _SEARCHED + 1]
    away = np.abs(np.arange(-_SEARCHED, _SEARCHED + 1))
    # Of changes as sharp, the nearest.
    return int(away[near == np.nanmin(near)].min())


def shares_of(sources: Sequence[Source]) -> dict[Source, float]:
    """Share of each source of narrations."""
    names: tuple[Source, ...] = ("witness", "class", "generic", "hallucinated")
    total = max(len(sources), 1)
    return {name: _rounded(sources.count(name) / total) for name in names}


def plain(report: Report) -> Mapping[str, Any]:
    """The report as JSON has it."""
    found: Mapping[str, Any] = msgspec.to_builtins(report)
    return found
