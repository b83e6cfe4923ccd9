"""From a model's numbers to predictions in the field's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmr.data.records import Query
from vmr.evaluation.predictions import Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from vmr.data.dataset import Batch

Floats = npt.NDArray[np.floating]


def predictions(
    batch: Batch,
    spans: Tensor,
    scores: Tensor,
    counts: Tensor | None = None,
    *,
    row_scores: Tensor | None = None,
    round_to: float | None = None,
) -> list[Prediction]:
    """The answers of a batch, one a query.

    Args:
        batch: Its queries.
        spans: [B, K, 2] (start s, end s).
        scores: [B, K].
        counts: [B] how many of K there are; None for all.
        row_scores: [B, T], padded; None where the model gives none.
        round_to: As for :func:`prediction`.
    """
    windows, values = spans.float().cpu().numpy(), scores.float().cpu().numpy()
    rows = None if row_scores is None else row_scores.float().cpu().numpy()
    kept = [spans.shape[1]] * len(batch) if counts is None else counts.tolist()
    lengths, seconds = batch.video_lengths.tolist(), batch.row_seconds.tolist()
    return [
        prediction(
            query,
            windows[place, : kept[place]],
            values[place, : kept[place]],
            None if rows is None else rows[place, : lengths[place]],
            seconds[place],
            round_to=round_to,
        )
        for place, query in enumerate(batch.queries)
    ]


def prediction(
    query: Query,
    windows: Floats,
    scores: Floats,
    row_scores: Floats | None,
    row_seconds: float,
    *,
    round_to: float | None = None,
) -> Prediction:
    """A query's answer: its windows sorted by score, and a score a clip where there are some.

    Args:
        query: The query.
        windows: [K, 2] (start s, end s).
        scores: [K].
        row_scores: [T], of the rows of the video; None where the model gives none.
        row_seconds: Seconds from one row to the next.
        round_to: Seconds that bounds are rounded to a multiple of; None leaves them. They are cut to the
            video afterwards.
    """
    bounds = windows.astype(np.float64)
    if round_to is not None:
        bounds = np.round(bounds / round_to) * round_to
    bounds = bounds.clip(0.0, query.duration)
    order = np.argsort(-scores, kind="stable")
    saliency = None
    if row_scores is not None:
        saliency = clip_scores(query, row_scores, row_seconds).tolist()
    return Prediction(
        qid=query.qid,
        query=query.text,
        vid=query.video,
        pred_relevant_windows=[
            (float(bounds[k, 0]), float(bounds[k, 1]), float(scores[k])) for k in order
        ],
        pred_saliency_scores=saliency,
    )


def clip_scores(query: Query, row_scores: Floats, row_seconds: float) -> Floats:
    """Scores of the clips that annotators scored, from scores of rows.

    A clip has the mean of the rows whose middle lies in it, or, where there is none, the score of the
    row that is nearest to its middle. A query without annotated clips has a score a row.

    Args:
        query: The query.
        row_scores: [T], at least one.
        row_seconds: Seconds from one row to the next.
    """
    if query.saliency is None:
        return row_scores
    clips, seconds = query.saliency.clips, query.saliency.clip_seconds
    rows = len(row_scores)
    owners = ((np.arange(rows) + 0.5) * row_seconds / seconds).astype(np.int64)
    inside = owners < clips
    counts = np.bincount(owners[inside], minlength=clips)
    totals = np.bincount(owners[inside], weights=row_scores[inside], minlength=clips)
    middles = (np.arange(clips) + 0.5) * seconds
    nearest = np.minimum((middles / row_seconds).astype(np.int64), rows - 1)
    found: Floats = np.where(counts > 0, totals / np.maximum(counts, 1), row_scores[nearest])
    return found
