"""Predictions and ground truth, laid out for the C++ core and looked over for what is odd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vmr import _core
from vmr.data.records import Place, Query
from vmr.errors import InputError
from vmr.evaluation.oddities import Judge
from vmr.evaluation.predictions import Prediction

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# What the mean average precision looks at, of each query's (or line's) predictions.
MOST_PREDICTIONS = 10
# Features of a video often lack its last row or two, and so do scores made from them.
CLIPS_SPARED = 2


class Rows(NamedTuple):
    """Rows of several queries behind one another: query q has ``values[offsets[q]:offsets[q + 1]]``."""

    values: Floats
    offsets: Integers

    def spread(self) -> Integers:
        """The query of each row, [rows]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


class Moments(NamedTuple):
    """Windows of predictions and ground truth, query by query.

    Attributes:
        first: Predicted rows (start s, end s, score) as recall sees them, best first.
        ranked: The same as average precision sees them.
        most: How many of a query's ranked rows count; 0 for all.
        truths: Ground truth rows (start s, end s).
    """

    first: Rows
    ranked: Rows
    most: int
    truths: Rows


class Highlights(NamedTuple):
    """Scores of clips, query by query.

    Attributes:
        scores: Predicted, [clips].
        labels: Annotated, [clips, annotators].
    """

    scores: Rows
    labels: Rows


def threads() -> int:
    """How many threads the metrics may take: OMP_NUM_THREADS, or as many as there are CPUs."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) > 0 else len(os.sched_getaffinity(0))


def by_query(
    predictions: Sequence[Prediction], queries: Sequence[Query], judge: Judge
) -> list[list[Prediction]]:
    """For each query its predictions: one, none, or several duplicate lines as published.

    Raises:
        InputError: For a prediction of an unknown query, and for a second one of a query.
    """
    places = {query.qid: place for place, query in enumerate(queries)}
    found: list[list[Prediction]] = [[] for _ in queries]
    unknown = []
    again = []
    for prediction in predictions:
        place = places.get(prediction.qid)
        if place is None:
            unknown.append(Place(prediction.line, prediction.qid))
            continue
        if found[place]:
            again.append(Place(prediction.line, prediction.qid))
        found[place].append(prediction)
    if unknown and unknown[0].qid not in places:
        other: int | str = str(unknown[0].qid)
        if isinstance(unknown[0].qid, str) and unknown[0].qid.isdigit():
            other = int(unknown[0].qid)
        hint = f"; the ground truth has {other!r}, of another type" if other in places else ""
        judge.refuse(
            "unknown-query",
            f"the ground truth has no such query{hint}",
            "the published code stops there; the line is left out",
            unknown,
        )
    judge.refuse(
        "duplicate-line",
        "expected one line a query",
        "the published code takes the last line for recall and highlights, and the windows of all "
        "lines for average precision",
        again,
    )
    judge.note(
        "no-prediction",
        "query without a prediction (counts as zero)",
        [Place(0, query.qid) for query, lines in zip(queries, found, strict=True) if not lines],
    )
    return found


def moments(
    found: Sequence[Sequence[Prediction]], queries: Sequence[Query], judge: Judge
) -> Moments:
    """Lays out the windows.

    Raises:
        InputError: For windows that the published code scores by accident.
    """
    first = _rows([(lines[-1].pred_relevant_windows or ()) if lines else () for lines in found], 3)
    _check_windows(first, found, queries, judge)
    ranked, most = first, MOST_PREDICTIONS
    if any(len(lines) > 1 for lines in found):
        ranked, most = _rows([_windows_of_all(lines) for lines in found], 3), 0
    if np.isnan(ranked.values[:, 2]).any():
        ranked = _sorted_like_python(ranked, most)
    _note_order(ranked, found, judge)
    truths = _rows([query.windows or () for query in queries], 2)
    _check_truths(truths, queries, judge)
    return Moments(first, ranked, most, truths)


def highlights(
    found: Sequence[Sequence[Prediction]],
    queries: Sequence[Query],
    judge: Judge,
    *,
    whole_clips: bool,
) -> Highlights:
    """Lays out the scores of clips.

    Args:
        found: Each query's predictions.
        queries: Ground truth.
        judge: Who hears of what is odd.
        whole_clips: A last clip that is cut short counts only where it is annotated, as published for
            QVHighlights.

    Raises:
        InputError: For scores that are not finite (as published too: the published code stops there)
            and for scores of the wrong length.
    """
    given = [(lines[-1].pred_saliency_scores if lines else None) or () for lines in found]
    scores = Rows(_flat(given), _offsets(given))
    labels = _labels(queries, whole_clips)
    wrong = np.flatnonzero(~np.isfinite(scores.values))
    if len(wrong):
        place = _places(scores.spread()[wrong], found)[0]
        raise InputError(
            f"{judge.file}, {place}: expected finite saliency scores, got "
            f"{scores.values[wrong[0]]} ({len(wrong)} such in the file)"
        )
    have = np.diff(scores.offsets)
    excess = have - np.diff(labels.offsets)
    judge.note(
        "no-saliency",
        "prediction without saliency scores (counts as zero)",
        _places(np.flatnonzero(have == 0), found),
    )
    off = np.flatnonzero((have > 0) & (np.abs(excess) > CLIPS_SPARED))
    judge.refuse(
        "saliency-length",
        "expected one saliency score a clip",
        "the published code cuts them or fills them with 0",
        _places(off, found),
        came=f"{have[off[0]]} for {have[off[0]] - excess[off[0]]} clips" if len(off) else "",
    )
    judge.note(
        "saliency-rows",
        f"saliency scores of up to {CLIPS_SPARED} clips too few or too many (cut, or filled with 0)",
        _places(
            np.flatnonzero((have > 0) & (excess != 0) & (np.abs(excess) <= CLIPS_SPARED)), found
        ),
    )
    return Highlights(scores, labels)


def _check_windows(
    windows: Rows, found: Sequence[Sequence[Prediction]], queries: Sequence[Query], judge: Judge
) -> None:
    values, offsets = windows
    where = windows.spread()

    def rows(wrong: npt.ArrayLike) -> tuple[list[Place], str]:
        bad = np.flatnonzero(wrong)
        return _places(where[bad], found), str(values[bad[0]].tolist()) if len(bad) else ""

    places, came = rows(~np.isfinite(values[:, :2]).all(axis=1))
    judge.refuse(
        "window-not-finite",
        "expected a window of finite seconds",
        "the published code counts NaN as found",
        places,
        came=came,
    )
    places, came = rows(values[:, 0] > values[:, 1])
    judge.refuse(
        "window-reversed",
        "expected a window with start <= end",
        "the published code computes with its negative length",
        places,
        came=came,
    )
    places, came = rows(~np.isfinite(values[:, 2]))
    judge.refuse(
        "score-not-finite",
        "expected a finite score",
        "the published code sorts by it, in no order where it is NaN",
        places,
        came=came,
    )
    judge.note("window-empty", "window of no length", rows(values[:, 0] == values[:, 1])[0])
    durations = np.array([query.duration for query in queries])
    judge.note(
        "window-late",
        "window that ends after the video (scored as it is)",
        rows((values[:, 1] > durations[where] + 1e-6) | (values[:, 0] < -1e-6))[0],
    )
    judge.note(
        "no-window",
        "prediction without a window (counts as zero)",
        _places(np.flatnonzero(np.diff(offsets) == 0), found),
    )


def _note_order(ranked: Rows, found: Sequence[Sequence[Prediction]], judge: Judge) -> None:
    where = ranked.spread()
    risen = (ranked.values[1:, 2] > ranked.values[:-1, 2]) & (where[1:] == where[:-1])
    judge.note(
        "not-sorted",
        "prediction whose windows are not sorted by score (recall at 1 takes the first, average "
        "precision sorts)",
        _places(np.unique(where[1:][risen]), found),
    )


def _check_truths(truths: Rows, queries: Sequence[Query], judge: Judge) -> None:
    where = truths.spread()

    def places(wrong: Iterable[int]) -> list[Place]:
        return [Place(queries[q].line, queries[q].qid) for q in wrong]

    bad = np.flatnonzero(truths.values[:, 0] > truths.values[:, 1])
    judge.refuse(
        "truth-reversed",
        "expected ground truth with start <= end",
        "the published code computes with its negative length",
        places(where[bad]),
        came=str(truths.values[bad[0]].tolist()) if len(bad) else "",
        file="the ground truth",
    )
    judge.refuse(
        "no-truth",
        "expected at least one ground-truth window",
        "the published code stops there; the query is left out",
        places(np.flatnonzero(np.diff(truths.offsets) == 0)),
        file="the ground truth",
    )


def _windows_of_all(lines: Sequence[Prediction]) -> list[tuple[float, float, float]]:
    """The windows of duplicate lines: the first ten of each."""
    return [w for line in lines for w in (line.pred_relevant_windows or ())[:MOST_PREDICTIONS]]


def _rows(lists: Sequence[Sequence[tuple[float, ...]]], columns: int) -> Rows:
    offsets = _offsets(lists)
    flat = chain.from_iterable(chain.from_iterable(lists))
    values = np.fromiter(flat, np.float64, count=int(offsets[-1]) * columns)
    return Rows(values.reshape(-1, columns), offsets)


def _flat(lists: Sequence[Sequence[float]]) -> Floats:
    return np.fromiter(chain.from_iterable(lists), np.float64)


def _offsets(lists: Sequence[Sequence[object]]) -> Integers:
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, lists), np.int64, count=len(lists)), out=offsets[1:])
    return offsets


def _sorted_like_python(rows: Rows, most: int) -> Rows:
    """Rows in the order that Python's sort gives them where scores are NaN, scored by that order."""
    values = rows.values.copy()
    for begin, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        last = min(end, begin + most) if most else end
        order = sorted(range(begin, last), key=lambda row: -float(values[row, 2]))
        values[begin:last] = values[order]
        values[begin:last, 2] = np.arange(last - begin, 0, -1)
    return Rows(values, rows.offsets)


def _labels(queries: Sequence[Query], whole_clips: bool) -> Rows:
    annotated = [(place, q.saliency) for place, q in enumerate(queries) if q.saliency is not None]
    there = np.array([place for place, _ in annotated], dtype=np.int64)
    ids = np.fromiter(chain.from_iterable(s.clip_ids for _, s in annotated), np.int64)
    owner = np.repeat(np.arange(len(there)), [len(s.clip_ids) for _, s in annotated])
    clips = np.array([saliency.clips for _, saliency in annotated], dtype=np.int64)
    if whole_clips:
        whole = [int(queries[place].duration / s.clip_seconds) for place, s in annotated]
        clips = np.array(whole, dtype=np.int64)
        np.maximum.at(clips, owner, ids + 1)
    counts = np.zeros(len(queries), dtype=np.int64)
    counts[there] = clips
    offsets = np.zeros(len(queries) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    annotators = next((len(s.scores[0]) for _, s in annotated if s.scores), 1)
    labels = np.zeros((int(offsets[-1]), annotators))
    scores = chain.from_iterable(chain.from_iterable(s.scores for _, s in annotated))
    rows = np.fromiter(scores, np.float64).reshape(-1, annotators)
    labels[offsets[there][owner] + ids] = rows
    return Rows(labels, offsets)


def _places(where: Iterable[int], found: Sequence[Sequence[Prediction]]) -> list[Place]:
    """The last prediction of each of these queries, where it has any."""
    return [Place(found[q][-1].line, found[q][-1].qid) for q in map(int, where) if found[q]]


def average_precisions(
    moments: Moments,
    thresholds: Floats,
    length_range: tuple[float, float] | None,
    as_published: bool,
) -> Floats:
    """Average precision of each query at each IoU, [Q, T]; NaN without ground truth in the range."""
    return _core.average_precisions(
        moments.ranked.values,
        moments.ranked.offsets,
        moments.truths.values,
        moments.truths.offsets,
        thresholds,
        most_predictions=moments.most,
        length_range=length_range,
        as_published=as_published,
        threads=threads(),
    )


def best_overlaps(
    moments: Moments,
    tops: Integers,
    length_range: tuple[float, float] | None,
    as_published: bool,
) -> Floats:
    """Highest IoU of each query's first predictions, [Q, K]; NaN without ground truth in the range."""
    return _core.best_overlaps(
        moments.first.values,
        moments.first.offsets,
        moments.truths.values,
        moments.truths.offsets,
        tops,
        length_range=length_range,
        as_published=as_published,
        threads=threads(),
    )
