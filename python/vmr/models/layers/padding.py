"""Rows and padding: a length a sample says which rows count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr.errors import InputError
from vmr.reference.common import valid_frames, widened


def check_lengths(what: str, lengths: Tensor, count: int) -> None:
    """Refuses what is no number of rows a sample, as a mask is none.

    Raises:
        InputError: With the name of what was called.
    """
    if not isinstance(lengths, Tensor) or lengths.shape != (count,) or lengths.dtype != torch.int64:
        got = (
            f"{list(lengths.shape)} {str(lengths.dtype).removeprefix('torch.')}"
            if isinstance(lengths, Tensor)
            else type(lengths).__name__
        )
        raise InputError(
            f"{what}: lengths: expected [{count}] int64, the frames of each video, got {got}; those of "
            "a mask are mask.sum(dim=1)"
        )


def row_mask(lengths: Tensor, rows: int) -> Tensor:
    """Which rows are no padding: [..., rows] truth values, of lengths [...]."""
    return valid_frames(lengths, rows)


def without_padding(features: Tensor, mask: Tensor) -> Tensor:
    """Features [..., N, D] with zeros where ``mask`` [..., N] is false, whatever stood there.

    A product with the mask would keep NaN.
    """
    return features.masked_fill(~mask[..., None], 0.0)


def unit_rows(features: Tensor) -> Tensor:
    """Rows [..., D] at length one; zeros stay. Computed in float32, where half precision has no room."""
    return F.normalize(widened(features), dim=-1).to(features.dtype)


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows [B, N, D] that ``mask`` [B, N] names: [B, D]; zeros where it names none."""
    total = without_padding(features, mask).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
