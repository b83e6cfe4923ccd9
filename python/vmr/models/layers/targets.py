"""What a batch asks of a model: windows and scores relative to the rows that the features have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vmr.models.layers.padding import row_mask

if TYPE_CHECKING:
    from vmr.data.dataset import Batch


class Windows(NamedTuple):
    """Ground truth windows in parts of the time that the rows of a video cover.

    Attributes:
        spans: [B, M, 2] (start, end), from 0 to 1.
        counts: [B] windows of each query; what lies beyond them is zero.
    """

    spans: Tensor
    counts: Tensor


class Clips(NamedTuple):
    """Pairs of rows of which the first shall score higher: one of ``better`` and one of ``worse``.

    There are two kinds of pairs, K = 2: within what is relevant, and between what is and what is not.

    Attributes:
        better: [K, B, T] truth values.
        worse: [K, B, T] truth values; none where ``better`` has none, and the other way round.
    """

    better: Tensor
    worse: Tensor

    def kinds(self) -> Tensor:
        """Which kinds of pairs a query has: [K, B] truth values."""
        return self.better.any(dim=-1)


def relative_windows(batch: Batch) -> Windows:
    """The windows of a batch, over the time that its features cover.

    Rows are what a model sees, so a video's rows are 0 to 1, whatever its duration: a window is cut to
    them, and one of which nothing is left (it lies beyond them, is empty, or ends before it starts) is
    left out.
    """
    extents = batch.video_lengths * batch.row_seconds
    here = row_mask(batch.window_counts, batch.windows.shape[1])
    spans = batch.windows.float().masked_fill(~here[..., None], 0.0)
    spans = (spans / extents[:, None, None]).clamp(0, 1)
    here = here & (spans[..., 1] > spans[..., 0])
    order = torch.argsort((~here).int(), dim=1, stable=True)
    spans = spans.masked_fill(~here[..., None], 0.0)
    return Windows(spans.gather(1, order[..., None].expand_as(spans)), here.sum(dim=1))


def rows_inside(windows: Windows, lengths: Tensor, rows: int) -> Tensor:
    """Rows that lie in some window, [B, T] truth values; arguments of :func:`rows_in_windows`."""
    return rows_in_windows(windows, lengths, rows).any(dim=-1)


def rows_in_windows(windows: Windows, lengths: Tensor, rows: int) -> Tensor:
    """Rows whose middle lies in a window, and of each window the row that its own middle lies in.

    So a window shorter than a row has one, too.

    Args:
        windows: M of each of B queries.
        lengths: [B] rows of each video.
        rows: T of the padded batch.

    Returns:
        [B, T, M] truth values.
    """
    here = row_mask(windows.counts, windows.spans.shape[1])[:, None]
    start, end = windows.spans[:, None, :, 0], windows.spans[:, None, :, 1]
    places = torch.arange(rows, device=lengths.device)[None, :, None]
    counts = lengths[:, None, None]
    middles = (places + 0.5) / counts
    own = ((start + end) / 2 * counts).long().minimum(counts - 1)
    inside = (((middles >= start) & (middles < end)) | (places == own)) & here
    return inside & row_mask(lengths, rows)[..., None]


def ranked_clips(batch: Batch, inside: Tensor) -> Clips:
    """Which rows shall score higher than which, as Moment-DETR has it.

    A row is relevant where annotators gave it a score or where it lies in a window. Among relevant rows
    those with the highest score stand above those with the lowest; and every relevant row stands above
    every other. A query has no pairs of a kind where one side is empty or all scores are the same.

    Args:
        batch: B queries on T rows.
        inside: [B, T] what :func:`rows_inside` gave.
    """
    rows = row_mask(batch.video_lengths, inside.shape[1])
    annotated = rows & batch.has_saliency[:, None]
    scores = batch.saliency.float().masked_fill(~annotated, 0.0)
    relevant = inside | (scores > 0)
    graded = relevant & annotated
    highest = scores.masked_fill(~graded, -torch.inf).amax(dim=1, keepdim=True)
    lowest = scores.masked_fill(~graded, torch.inf).amin(dim=1, keepdim=True)
    graded = graded & (highest > lowest)
    better = torch.stack((graded & (scores == highest), relevant))
    worse = torch.stack((graded & (scores == lowest), rows & ~relevant))
    both = better.any(dim=-1, keepdim=True) & worse.any(dim=-1, keepdim=True)
    return Clips(better & both, worse & both)
