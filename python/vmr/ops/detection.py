"""Moments as points of the frame-frame similarity map (Tan et al., CVPR 2025)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vmr.errors import InputError
from vmr.ops._library import register
from vmr.reference import detection as reference

Region = Literal["whole", "upper"]


def vertex_loss(
    scores: Tensor,
    points: Tensor,
    splits: Tensor,
    lengths: Tensor,
    *,
    region: Region = "whole",
    sigmoid: bool = False,
) -> Tensor:
    """The squared error of vertex scores, for each query of a batch.

    The paper's eq. 14, over the points of a video::

        L = || P - G ||^2

    where P is the scores' sigmoid or the scores themselves, and G is 1 at the moments of a query and
    0 elsewhere. G is not built. A point that is listed twice counts once. A NaN score among those
    that count makes its query's loss NaN.

    Args:
        scores: [B, N, N], N >= 1, a map for each query; float32, float64, float16 or bfloat16 (these
            two are accumulated in float32).
        points: [P, 2] int64, the moments (i, j) by their first and last frame (both included), query
            after query, each below its query's length; P may be 0.
        splits: [B + 1] int64; rows ``splits[q]`` to ``splits[q + 1]`` of ``points`` are query q's.
        lengths: [B] int64, how many frames of each map count, 0 to N. What lies beyond changes nothing.
        region: "whole": all points of the map count, or "upper": those with i <= j, which are moments.
            Then all ``points`` must be such.
        sigmoid: whether the scores are logits.

    Returns:
        [B] sums in the dtype of ``scores``. Differentiable in ``scores``.

    Under autocast: float32.
    """
    losses: Tensor = torch.ops.vmr.vertex_loss(
        scores, points, splits, lengths, _counts_whole("vertex_loss", region), sigmoid
    )
    return losses


def top_points(scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k moments with the highest vertex scores, for each query of a batch.

    The paper's eq. 15::

        {(i_1, j_1), ..., (i_k, j_k)} = arg topk P_ij over i <= j

    Of equal scores the smaller i comes first, then the smaller j. A NaN score is never taken.

    Args:
        scores: [B, N, N], N >= 1, a map for each query; float32, float64, float16 or bfloat16.
        lengths: [B] int64, how many frames of each map count, 0 to N. What lies beyond changes nothing.
        k: how many to take, at least 1.

    Returns:
        ``(points, values, counts)``: points [B, k, 2] int64, first and last frame (both included),
        best first; values [B, k], their scores in the dtype of ``scores``; counts [B] int64, fewer
        than k where a video has no more moments. After the count there is -1 and -inf.

    Not differentiable. Under autocast: float32.
    """
    points, values, counts = torch.ops.vmr.top_points(scores.detach(), lengths, k)
    return points, values, counts


def _counts_whole(op: str, region: str) -> bool:
    if region not in ("whole", "upper"):
        raise InputError(f"{op}: region must be one of whole, upper, got {region!r}")
    return region == "whole"


def _fake_vertex_loss(scores: Tensor, *_: Any) -> Tensor:
    return scores.new_empty(scores.shape[0])


def _fake_vertex_loss_backward(output_gradients: Tensor, scores: Tensor, *_: Any) -> Tensor:
    return scores.new_empty(scores.shape)


def _fake_top_points(scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    batch = scores.shape[0]
    return lengths.new_empty(batch, k, 2), scores.new_empty(batch, k), lengths.new_empty(batch)


def _vertex_loss_backward(context: Any, output_gradients: Tensor) -> Any:
    gradients = torch.ops.vmr.vertex_loss_backward(
        output_gradients, *context.saved_tensors, *context.settings
    )
    return gradients, None, None, None, None, None


register(
    "vertex_loss",
    reference=reference.vertex_loss,
    fake=_fake_vertex_loss,
    backward=_vertex_loss_backward,
)
register(
    "vertex_loss_backward",
    reference=reference.vertex_loss_backward,
    fake=_fake_vertex_loss_backward,
)
register("top_points", reference=reference.top_points, fake=_fake_top_points)
