"""Moments as points of the frame-frame similarity map (Tan et al., CVPR 2025)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

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
    """[B] losses; see reference."""
    return reference.vertex_loss(scores, points, splits, lengths, region == "whole", sigmoid)


def top_points(scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """See reference: points [B, k, 2], values [B, k], counts [B]."""
    return reference.top_points(scores.detach(), lengths, k)
