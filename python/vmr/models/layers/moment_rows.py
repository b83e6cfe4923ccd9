"""Which rows of a video a moment has, as ranges, and pairs of rows inside and outside."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vmr.models.layers.padding import row_mask
from vmr.models.layers.targets import Clips, Windows

RowRule = Literal["middle", "floor"]


def moment_rows(windows: Windows, lengths: Tensor, rule: RowRule) -> Tensor:
    """First and last row of each window, both included.

    ``"middle"``: rows whose middle lies in the window, and at least the one that its own middle lies in.
    ``"floor"``, of a window from s to e in rows: floor(s) to floor(e) - 1, as BM-DETR's code has it; a
    window within one row has the row before its end.

    Args:
        windows: M of each of B queries.
        lengths: [B] rows of each video.
        rule: Which rows count.

    Returns:
        [B, M, 2] int64; what lies beyond the counts is in range and has no meaning.
    """
    counts = lengths[:, None]
    # In double, so that 26 s of 75 rows of 2 s are 13 rows.
    start, end = (windows.spans.double() * counts[..., None]).unbind(-1)
    if rule == "floor":
        hair = 1e-4  # spans were divided in single precision
        last = ((end + hair).floor().long().minimum(counts) - 1).clamp(min=0)
        first = (start + hair).floor().long().minimum(last)
    else:
        first, last = (start - 0.5).ceil().long(), (end - 0.5).ceil().long() - 1
        own = ((start + end) / 2).long().minimum(counts - 1)
        none = last < first
        first, last = torch.where(none, own, first), torch.where(none, own, last)
    top = (counts - 1).clamp(min=0)
    return torch.stack((first.clamp(min=0).minimum(top), last.clamp(min=0).minimum(top)), dim=-1)


def in_ranges(ranges: Tensor, counts: Tensor, lengths: Tensor, rows: int) -> Clips:
    """Rows inside and outside of ranges, as one kind of pairs.

    Args:
        ranges: [B, M, 2] first and last rows, as of :func:`moment_rows`.
        counts: [B] ranges, of M.
        lengths: [B] rows of each sample.
        rows: T of the padded batch.
    """
    places = torch.arange(rows, device=lengths.device)[None, :, None]
    first, last = ranges[:, None].unbind(-1)
    inside = (places >= first) & (places <= last) & row_mask(counts, ranges.shape[1])[:, None]
    here = row_mask(lengths, rows)
    better = inside.any(dim=-1) & here
    worse = here & ~better
    both = better.any(dim=1, keepdim=True) & worse.any(dim=1, keepdim=True)
    return Clips((better & both)[None], (worse & both)[None])


def sampled_pairs(clips: Clips, count: int) -> Tensor:
    """Pairs of rows, one that shall score higher and one that shall not, drawn at random.

    As many of each kind of ``clips`` as of the others; rows of a kind are drawn without repetition as
    long as there are enough.

    Args:
        clips: K kinds of pairs of B samples.
        count: Pairs of each kind.

    Returns:
        [B, 2, K * count] int64, better rows and worse rows; -1 where a kind has none.
    """
    sides = torch.stack((clips.better, clips.worse), dim=2)  # [K, B, 2, T]
    drawn = torch.rand(sides.shape, device=sides.device).masked_fill(~sides, -1.0)
    values, rows = drawn.topk(min(count, sides.shape[-1]), dim=-1)
    # Where there are too few, the first stands for those that lack.
    rows = torch.where(values >= 0, rows, rows[..., :1])
    rows = torch.cat((rows, rows[..., :1].expand(*rows.shape[:-1], count - rows.shape[-1])), dim=-1)
    rows = rows.masked_fill(~clips.kinds()[..., None, None], -1)
    return rows.permute(1, 2, 0, 3).flatten(2)


def sampled_hinge(scores: Tensor, pairs: Tensor, margin: float) -> Tensor:
    """Mean over the pairs (i, j) of max(0, margin + s_j - s_i): [B]; 0 where there is none.

    Args:
        scores: [B, T].
        pairs: [B, 2, K], as :func:`sampled_pairs` gives them.
        margin: From 0.
    """
    there = pairs[:, 0] >= 0
    better, worse = (scores.gather(1, side) for side in pairs.clamp(min=0).unbind(1))
    hinge = (margin + worse - better).clamp(min=0).masked_fill(~there, 0.0)
    return hinge.sum(dim=1) / there.sum(dim=1).clamp(min=1)
