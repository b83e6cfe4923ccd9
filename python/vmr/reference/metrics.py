"""The metrics of :mod:`vmr._core` in plain NumPy: one query at a time, to be read beside the protocols.

What is published: moment_detr's evaluator of QVHighlights (moments and highlights) and the ranked
precision of TVSum and YouTube Highlights as UMT, QD-DETR, lighthouse and UniVTG compute it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def in_range(windows: Floats, length_range: tuple[float, float] | None) -> Floats:
    """The windows [W, 2] with shortest < end - start <= longest; all of them for None."""
    if length_range is None:
        return windows
    lengths = windows[:, 1] - windows[:, 0]
    return windows[(length_range[0] < lengths) & (lengths <= length_range[1])]


def overlaps(predictions: Floats, truths: Floats) -> Floats:
    """IoU [P, W] over the true union; NaN where that is 0 / 0 or a bound is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.maximum(predictions[:, None, 0], truths[None, :, 0])
        right = np.minimum(predictions[:, None, 1], truths[None, :, 1])
        shared = np.maximum(right - left, 0.0)
        lengths = predictions[:, 1] - predictions[:, 0]
        both = lengths[:, None] + (truths[:, 1] - truths[:, 0])[None, :] - shared
        return np.asarray(shared / both, dtype=np.float64)


def hull_overlap(prediction: Floats, truth: Floats) -> float:
    """IoU over the hull of two windows [2]; 0 where the hull is empty."""
    shared = np.maximum(
        0.0, np.minimum(prediction[1], truth[1]) - np.maximum(prediction[0], truth[0])
    )
    hull = np.maximum(prediction[1], truth[1]) - np.minimum(prediction[0], truth[0])
    return float(shared / hull) if hull != 0 else 0.0


def average_precision(
    predictions: Floats,
    truths: Floats,
    thresholds: Floats,
    most_predictions: int,
    as_published: bool,
) -> Floats:
    """Average precision [T] of one query's predictions [P, 3] for its ground truth [W, 2]."""
    if len(truths) == 0:
        return np.full(len(thresholds), np.nan)
    if most_predictions:
        predictions = predictions[:most_predictions]
    if len(predictions) == 0:
        return np.zeros(len(thresholds))
    ranked = predictions[np.argsort(-predictions[:, 2], kind="stable")]
    table = overlaps(ranked, truths)
    # The published comparison "IoU < threshold: a miss" lets NaN through.
    table = np.where(np.isnan(table), np.inf if as_published else 0.0, table)
    areas = []
    for threshold in thresholds:
        free = set(range(len(truths)))
        hits = np.zeros(len(ranked), dtype=bool)
        for place, row in enumerate(table):
            for choice in np.argsort(row, kind="stable")[::-1]:
                if row[choice] >= threshold and choice in free:
                    free.remove(choice)
                    hits[place] = True
                    break
        found = np.cumsum(hits)
        precision = found / np.arange(1, len(hits) + 1)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.diff(np.concatenate([[0.0], found / len(truths)]))
        areas.append(float(np.sum(steps * highest)))
    return np.asarray(areas)


def best_overlap(predictions: Floats, truths: Floats, top: int, as_published: bool) -> float:
    """Highest IoU of the first ``top`` predictions [P, 3] (all for 0) with any ground truth [W, 2]."""
    if len(truths) == 0:
        return float("nan")
    first = predictions[:top] if top else predictions
    if len(first) == 0:
        return 0.0
    table = overlaps(first, truths)
    undefined = np.inf if as_published and top == 1 else 0.0
    table = np.where(np.isnan(table), undefined, table)
    place, choice = np.unravel_index(int(np.argmax(table)), table.shape)
    return hull_overlap(first[place], truths[choice])


def highlight_precision(scores: Floats, labels: Floats, level: float) -> tuple[float, float]:
    """Average precision and hit of one query's scores [S] for its labels [clips, annotators]."""
    clips = len(labels)
    if clips == 0:
        return float("nan"), float("nan")
    if len(scores) == 0:
        return 0.0, 0.0
    positive = labels >= level
    top = int(np.argmax(scores))
    hit = float(top < clips and bool(positive[top].any()))
    fitted = np.zeros(clips)
    fitted[: min(clips, len(scores))] = scores[:clips]
    levels = np.unique(fitted)
    areas = []
    for annotator in positive.T:
        if annotator.all() or not annotator.any():
            areas.append(float(annotator.all()))
            continue
        highest = 0.0
        steps = []
        for least in levels:
            chosen = fitted >= least
            highest = max(highest, float(annotator[chosen].mean()))
            if annotator[fitted == least].any():
                steps.append(highest)
        areas.append(float(np.mean(steps)))
    return float(np.mean(areas)), hit


def ranked_precision(scores: Floats, labels: Floats, top: int, above_median: bool) -> float:
    """Precision over recall of one video's ``top`` clips (all for 0), labels [clips, annotators]."""
    clips = len(labels)
    if clips == 0:
        return float("nan")
    order = np.argsort(-scores[:clips], kind="stable")
    if top:
        order = order[:top]
    areas = []
    for column in labels.T:
        threshold = np.sort(column)[(clips - 1) // 2] if above_median else 0.0
        ranked = column[order] > threshold
        if not ranked.any():
            areas.append(0.0)
            continue
        recall = np.concatenate([[0.0], np.cumsum(ranked) / ranked.sum()])
        precision = np.concatenate([[1.0], np.cumsum(ranked) / np.arange(1, len(ranked) + 1)])
        areas.append(float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)))
    return float(np.mean(areas))
