"""Moments as points of the frame-frame similarity map (Tan et al., CVPR 2025)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr.reference import detection as reference

Region = Literal["whole", "upper"]


def vertex_loss(
    scores: Tensor,
    points: Tensor,
    splits: Tensor,
    lengths: Tensor,
    *,
    region: Region = "whole",
    sigmoid: bool = True,
) -> Tensor:
    """[B] losses; see reference."""
    return reference.vertex_loss(scores, points, splits, lengths, region == "whole", sigmoid)


def top_points(scores: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """See reference: points [B, k, 2], values [B, k], counts [B]."""
    return reference.top_points(scores.detach(), lengths, k)


def spectrum_size(frames: int, kernel: int) -> int:
    """Frames with the same value share a spectrum; 0 where none is of use."""
    return 0


def kernel_spectrum(weight: Tensor, frames: int) -> Tensor:
    """What ``large_conv2d`` takes as ``spectrum``."""
    return weight.new_empty(0)


def large_conv2d(
    maps: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, *, spectrum: Tensor | None = None
) -> Tensor:
    """maps [B, N, N, Ci] channels last, weight [Co, Ci, C, C] -> [B, N, N, Co]; 'same', masked."""
    places = torch.arange(maps.shape[1], device=maps.device)
    valid = places < lengths[:, None]
    valid = (valid[:, :, None] & valid[:, None, :])[:, None]
    inputs = torch.where(valid, maps.permute(0, 3, 1, 2), 0.0)
    found = F.conv2d(inputs, weight, bias, padding=weight.shape[-1] // 2)
    return torch.where(valid, found, 0.0).permute(0, 2, 3, 1)
