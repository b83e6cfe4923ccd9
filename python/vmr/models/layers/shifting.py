"""Temporal shifting (BM-DETR, section 3.4): a moment's rows are moved to another place of the video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from vmr.models.layers.moment_rows import moment_rows
from vmr.models.layers.targets import Windows

if TYPE_CHECKING:
    from vmr.data.dataset import Batch

ShiftRule = Literal["exact", "published"]


class Shift(NamedTuple):
    """Copies of some samples with their moment elsewhere.

    Attributes:
        of: [S] int64, samples of the batch.
        order: [S, T] int64, which row of its sample each row of a copy is.
        spans: [S, 2] (start, end) of the moment in the copy, in parts of the video's rows.
        rows: [S, 2] its first and last row.
    """

    of: Tensor
    order: Tensor
    spans: Tensor
    rows: Tensor


def shiftable(batch: Batch, windows: Windows, rule: ShiftRule, below: float | None) -> Tensor:
    """[B] truth values: samples that get a copy.

    ``"exact"``: those of one moment that leaves rows over, in a video shorter than ``below`` seconds
    (None: in any). ``"published"``: all samples with a moment, as BM-DETR's code has it; where it has
    all rows the copy is the sample.
    """
    short = torch.ones_like(windows.counts, dtype=torch.bool)
    if below is not None:
        short = batch.durations < below
    if rule == "published" or windows.spans.shape[1] == 0:
        return short & (windows.counts > 0)
    rows = moment_rows(windows, batch.video_lengths, "middle")[:, 0]
    spare = batch.video_lengths - (rows[:, 1] - rows[:, 0] + 1)
    return short & (windows.counts == 1) & (spare > 0)


def draw_shift(
    batch: Batch, windows: Windows, rule: ShiftRule, below: float | None
) -> Shift | None:
    """Draws a new place for the moment of each sample that :func:`shiftable` names; None for none.

    ``"exact"``: any place is as likely, and the span moves with its rows. ``"published"``, as BM-DETR's
    code has it: the first moment, never to the last place; the new span is that of the row numbers
    from the first to the last, taken for seconds, so it is a row short.
    """
    chosen = shiftable(batch, windows, rule, below).nonzero()[:, 0]
    if len(chosen) == 0:
        return None
    published = rule == "published"
    lengths = batch.video_lengths[chosen]
    some = Windows(windows.spans[chosen, :1], windows.counts[chosen].clamp(max=1))
    rows = moment_rows(some, lengths, "floor" if published else "middle")[:, 0]
    first, last = rows.unbind(1)
    block = last - first + 1
    places = lengths - block + (0 if published else 1)
    target = (torch.rand(len(chosen), device=lengths.device) * places).long()
    target = torch.where(places > 0, target.minimum(places - 1), first)
    order = moved_order(first, block, target, lengths, batch.video.shape[1])
    counts, spans = lengths[:, None], some.spans[:, 0]
    if published:
        seconds = batch.row_seconds[chosen][:, None]
        numbers = torch.stack((target, target + block - 1), dim=1) / (counts * seconds)
        spans = torch.where((block < lengths)[:, None], numbers, spans)
    else:
        spans = spans + (target - first)[:, None] / counts
        # Half a row at most hangs over an end: the span keeps its length.
        spans = spans - spans[:, :1].clamp(max=0) - (spans[:, 1:] - 1).clamp(min=0)
    moved = torch.stack((target, target + block - 1), dim=1)
    return Shift(chosen, order, spans.clamp(0, 1), moved)


def moved_order(first: Tensor, block: Tensor, target: Tensor, lengths: Tensor, rows: int) -> Tensor:
    """The order of rows after a block was taken out and put back in elsewhere.

    Args:
        first: [S] where the block begins.
        block: [S] rows of it.
        target: [S] where it begins afterwards.
        lengths: [S] rows of each sample.
        rows: T of the padded batch.

    Returns:
        [S, T] int64; the padding stays where it is.
    """
    places = torch.arange(rows, device=lengths.device)[None]
    first, block, target, counts = (part[:, None] for part in (first, block, target, lengths))
    inside = (places >= target) & (places < target + block)
    # The rows around the block keep their order.
    others = torch.where(places < target, places, places - block)
    others = torch.where(others < first, others, others + block)
    order = torch.where(inside, first + places - target, others)
    return torch.where(places < counts, order, places)
