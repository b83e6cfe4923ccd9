"""What a sample is, and what the lists of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """One call of an operator."""

    name: str
    arguments: tuple[Any, ...]


def strided(tensor: Tensor) -> Tensor:
    """The same values, not contiguous."""
    wide = torch.stack([tensor, torch.full_like(tensor, 7)], dim=-1)
    return wide[..., 0]
