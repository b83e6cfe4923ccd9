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
TRUTH = "the ground truth"


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
    """How many threads the metrics may take: a CPU each, or fewer where OMP_NUM_THREADS says so."""
    available = len(os.sched_getaffinity(0))
    try:
        told = int(os.environ.get("OMP_NUM_THREADS", ""))
    except ValueError:
        return available
    return min(max(told, 1), available)


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
    if unknown:
        _refuse_unknown(unknown, len(predictions), queries, judge)
    judge.refuse(
        "duplicate-line",
        again,
        expected="one line a query, got a second",
        found="second line of a query",
        published="the published code takes the last line for recall and highlights, and the windows "
        "of all lines for average precision",
    )
    without = [Place(0, q.qid) for q, lines in zip(queries, found, strict=True) if not lines]
    judge.note("no-prediction", "query without a prediction (counts as zero)", without)
    return found


def moments(
    found: Sequence[Sequence[Prediction]], queries: Sequence[Query], judge: Judge
) -> Moments:
    """Lays out the windows.

    Raises:
        InputError: For windows that the published code scores by accident.
    """
    lines = list(chain.from_iterable(found))
    owner = np.repeat(np.arange(len(found)), [len(own) for own in found])
    rows = _rows([line.pred_relevant_windows or () for line in lines], 3, judge.file)
    _check_windows(rows, lines, owner, queries, judge)
    if len(lines) > len(np.unique(owner)):
        last = [own[-1].pred_relevant_windows or () if own else () for own in found]
        first = _rows(last, 3, judge.file)
        ranked, most = _rows([_windows_of_all(own) for own in found], 3, judge.file), 0
    else:
        counts = np.zeros(len(found), dtype=np.int64)
        counts[owner] = np.diff(rows.offsets)
        first = ranked = Rows(rows.values, _cumulated(counts))
        most = MOST_PREDICTIONS
    if np.isnan(ranked.values[:, 2]).any():
        ranked = _sorted_like_python(ranked, most)
    truths = _rows([query.windows or () for query in queries], 2, TRUTH)
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
    lines = [own[-1] if own else None for own in found]
    given = [() if line is None else line.pred_saliency_scores or () for line in lines]
    scores = Rows(_flat(given, judge.file), _offsets(given))
    labels = _labels(queries, whole_clips)
    wrong = np.flatnonzero(~np.isfinite(scores.values))
    if len(wrong):
        place = _places(scores.spread()[wrong], lines)[0]
        raise InputError(
            f"{judge.file}, {place}: expected finite saliency scores, got "
            f"{scores.values[wrong[0]]} ({len(wrong)} such in all)"
        )
    have, clips = np.diff(scores.offsets), np.diff(labels.offsets)
    annotated = np.array([query.saliency is not None for query in queries])
    judge.note(
        "no-truth-saliency",
        "query without ground truth for its clips (left out of the highlights)",
        [Place(query.line, query.qid) for query in queries if query.saliency is None],
    )
    judge.note(
        "no-saliency",
        "prediction without saliency scores (counts as zero)",
        _places(np.flatnonzero(annotated & (have == 0)), lines),
    )
    unlike = annotated & (have > 0) & (have != clips)
    far = np.flatnonzero(unlike & (np.abs(have - clips) > CLIPS_SPARED))
    judge.refuse(
        "saliency-length",
        _places(far, lines),
        expected="one saliency score a clip"
        + (f", got {have[far[0]]} for {clips[far[0]]} clips" if len(far) else ""),
        found="prediction with another number of saliency scores than clips",
        published="the published code cuts them or fills them with 0",
    )
    near = np.flatnonzero(unlike & (np.abs(have - clips) <= CLIPS_SPARED))
    judge.note(
        "saliency-rows",
        f"saliency scores of up to {CLIPS_SPARED} clips too few or too many (cut, or filled with 0)",
        _places(near, lines),
    )
    return Highlights(scores, labels)


def _refuse_unknown(
    unknown: list[Place], predictions: int, queries: Sequence[Query], judge: Judge
) -> None:
    texts = {str(query.qid): query.qid for query in queries}
    other = texts.get(str(unknown[0].qid))
    hint = ""
    if other is not None:
        kind = "a text" if isinstance(other, str) else "a number"
        hint = f" ({other!r} is there, {kind}: write the qids so)"
    if len(unknown) == predictions:
        raise InputError(
            f"{judge.file}, {unknown[0]}: none of the {predictions} predictions is for a query of the "
            f"ground truth{hint}"
        )
    judge.refuse(
        "unknown-query",
        unknown,
        expected=f"a query of the ground truth{hint}",
        found="prediction for a query that the ground truth has not",
        published="the published code stops there",
        scored="leaves such lines out",
    )


def _check_windows(
    rows: Rows, lines: Sequence[Prediction], owner: Integers, queries: Sequence[Query], judge: Judge
) -> None:
    values, where = rows.values, rows.spread()

    def bad(wrong: npt.ArrayLike) -> tuple[list[Place], str]:
        at = np.flatnonzero(wrong)
        return _places(where[at], lines), f", got {values[at[0]].tolist()}" if len(at) else ""

    places, came = bad(~np.isfinite(values[:, :2]).all(axis=1))
    judge.refuse(
        "window-not-finite",
        places,
        expected=f"a window of finite seconds{came}",
        found="window that is not finite",
        published="the published code counts NaN as found",
    )
    places, came = bad(values[:, 0] > values[:, 1])
    judge.refuse(
        "window-reversed",
        places,
        expected=f"a window with start <= end{came}",
        found="window that ends before it starts",
        published="the published code computes with its negative length",
    )
    places, came = bad(~np.isfinite(values[:, 2]))
    judge.refuse(
        "score-not-finite",
        places,
        expected=f"a finite score{came}",
        found="window whose score is not finite",
        published="the published code sorts by it, in no order where it is NaN",
    )
    judge.note("window-empty", "window of no length", bad(values[:, 0] == values[:, 1])[0])
    durations = np.array([query.duration for query in queries])
    late = (values[:, 1] > durations[owner[where]] + 1e-6) | (values[:, 0] < -1e-6)
    judge.note("window-late", "window outside the video (scored as it is)", bad(late)[0])
    judge.note(
        "no-window",
        "prediction without a window (counts as zero)",
        _places(np.flatnonzero(np.diff(rows.offsets) == 0), lines),
    )
    risen = (values[1:, 2] > values[:-1, 2]) & (where[1:] == where[:-1])
    judge.note(
        "not-sorted",
        "prediction whose windows are not sorted by score (recall at 1 takes the first, average "
        "precision sorts)",
        _places(np.unique(where[1:][risen]), lines),
    )
    if len(values) and np.max(values[:, 1], initial=0) <= 1 and durations.min() > 2:
        judge.note_whole(
            "not-seconds",
            "all windows end within 1 s: are they parts of the video, not seconds?",
            1,
        )


def _check_truths(truths: Rows, queries: Sequence[Query], judge: Judge) -> None:
    where = truths.spread()

    def places(wrong: Iterable[int]) -> list[Place]:
        return [Place(queries[q].line, queries[q].qid) for q in wrong]

    wrong = np.flatnonzero(~np.isfinite(truths.values).all(axis=1))
    if len(wrong):
        raise InputError(
            f"{TRUTH}, {places(where[wrong])[0]}: expected windows of finite seconds, got "
            f"{truths.values[wrong[0]].tolist()}"
        )
    bad = np.flatnonzero(truths.values[:, 0] > truths.values[:, 1])
    judge.refuse(
        "truth-reversed",
        places(where[bad]),
        expected="a window with start <= end"
        + (f", got {truths.values[bad[0]].tolist()}" if len(bad) else ""),
        found="ground truth that ends before it starts",
        published="the published code computes with its negative length",
        file=TRUTH,
    )
    judge.refuse(
        "no-truth",
        places(np.flatnonzero(np.diff(truths.offsets) == 0)),
        expected="at least one window, got none",
        found="query without a ground-truth window",
        published="the published code stops there",
        scored="leaves the query out",
        file=TRUTH,
    )


def _windows_of_all(lines: Sequence[Prediction]) -> list[tuple[float, float, float]]:
    """The windows of duplicate lines: the first ten of each."""
    return [w for line in lines for w in (line.pred_relevant_windows or ())[:MOST_PREDICTIONS]]


def _rows(lists: Sequence[Sequence[tuple[float, ...]]], columns: int, file: str) -> Rows:
    rows = list(chain.from_iterable(lists))
    try:
        fitting = set(map(len, rows)) <= {columns}
    except TypeError:
        fitting = False
    if not fitting:
        wrong = next(row for row in rows if not hasattr(row, "__len__") or len(row) != columns)
        raise InputError(f"{file}: expected windows of {columns} numbers, got {wrong!r}")
    return Rows(_flat(rows, file).reshape(-1, columns), _offsets(lists))


def _flat(lists: Sequence[Sequence[float]], file: str) -> Floats:
    try:
        return np.fromiter(chain.from_iterable(lists), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: expected numbers: {error}") from None


def _offsets(lists: Sequence[Sequence[object]]) -> Integers:
    return _cumulated(np.fromiter(map(len, lists), np.int64, count=len(lists)))


def _cumulated(counts: Integers) -> Integers:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
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
    offsets = _cumulated(counts)
    rows = list(chain.from_iterable(s.scores for _, s in annotated))
    annotators = len(rows[0]) if rows else 1
    if not set(map(len, rows)) <= {annotators}:
        _refuse_annotators(queries, annotators)
    flat = _flat(rows, TRUTH)
    if len(rows) != len(ids) or not np.isfinite(flat).all():
        _refuse_scores(queries)
    labels = np.zeros((int(offsets[-1]), annotators))
    labels[offsets[there][owner] + ids] = flat.reshape(-1, annotators)
    return Rows(labels, offsets)


def _refuse_annotators(queries: Sequence[Query], annotators: int) -> None:
    for query in queries:
        for row in query.saliency.scores if query.saliency else ():
            if len(row) != annotators:
                raise InputError(
                    f"{TRUTH}, {Place(query.line, query.qid)}: expected saliency scores of "
                    f"{annotators} annotators, as before, got {len(row)}"
                )


def _refuse_scores(queries: Sequence[Query]) -> None:
    for query in queries:
        saliency = query.saliency
        if saliency is None:
            continue
        place = f"{TRUTH}, {Place(query.line, query.qid)}"
        if len(saliency.scores) != len(saliency.clip_ids):
            raise InputError(
                f"{place}: expected a row of saliency scores for each of {len(saliency.clip_ids)} "
                f"clips, got {len(saliency.scores)}"
            )
        if not np.isfinite(np.array(saliency.scores)).all():
            raise InputError(f"{place}: expected finite saliency scores in the ground truth")


def _places(where: Iterable[int], lines: Sequence[Prediction | None]) -> list[Place]:
    """Where these predictions stand; a query without one has no place."""
    chosen = (lines[place] for place in map(int, where))
    return [Place(line.line, line.qid) for line in chosen if line is not None]


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
