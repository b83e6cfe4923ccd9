"""Moments as points of the frame-frame similarity map, in plain PyTorch (Tan et al., CVPR 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from vmr.reference.common import gradients, valid_frames, widened


def _region(lengths: Tensor, frames: int, whole: bool) -> Tensor:
    """[B, N, N] truth values: the points (i, j) of a video, all of them or those with i <= j."""
    valid = valid_frames(lengths, frames)
    inside = valid[:, :, None] & valid[:, None, :]
    return inside if whole else inside.triu()


def vertex_loss(
    scores: Tensor, points: Tensor, splits: Tensor, lengths: Tensor, whole: bool, sigmoid: bool
) -> Tensor:
    """[B] the sum of (P - G)^2 over a video's points, eq. 14."""
    truth = torch.zeros_like(widened(scores))
    for query, (begin, end) in enumerate(zip(splits.tolist(), splits.tolist()[1:], strict=False)):
        for start, stop in points[begin:end].tolist():
            truth[query, start, stop] = 1
    region = _region(lengths, scores.shape[-1], whole)
    values = torch.where(region, widened(scores), 0.0)
    if sigmoid:
        values = values.sigmoid()
    losses = (values - truth).square().masked_fill(~region, 0.0)
    return losses.sum(dim=(1, 2)).to(scores.dtype)


def vertex_loss_backward(
    output_gradients: Tensor,
    scores: Tensor,
    points: Tensor,
    splits: Tensor,
    lengths: Tensor,
    whole: bool,
    sigmoid: bool,
) -> Tensor:
    """The gradient of the scores."""
    return gradients(
        vertex_loss, output_gradients, (scores, points, splits, lengths), whole, sigmoid
    )[0]


def top_points(scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 15: the k points (i, j), i <= j, with the highest scores; the first of equal ones."""
    batch, frames, _ = scores.shape
    points = lengths.new_full((batch, k, 2), -1)
    values = scores.new_full((batch, k), -torch.inf)
    region = _region(lengths, frames, whole=False) & ~scores.isnan()
    counts = region.sum(dim=(1, 2)).clamp(max=k)
    flat = scores.masked_fill(~region, -torch.inf).flatten(1)
    for query, count in enumerate(counts.tolist()):
        candidates = region[query].flatten().nonzero().flatten()
        order = flat[query, candidates].argsort(descending=True, stable=True)[:count]
        best = candidates[order]
        points[query, :count] = torch.stack((best // frames, best % frames), dim=1)
        values[query, :count] = flat[query, best]
    return points, values, counts
