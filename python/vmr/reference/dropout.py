"""Dropout in plain PyTorch: behind an activation, and before a sum.

Whether an element is dropped follows from a seed and its place alone: 32 bits of a hash are compared
with the probability. Unsigned numbers are computed in int64, whose products keep the low bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vmr.reference.common import widened

LOW = 0xFFFFFFFF


def mask_keys(seed: Tensor) -> tuple[Tensor, Tensor]:
    """Two keys of 32 bits from a seed, by the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    mixed = seed.reshape(()) + _signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(0x94D049BB133111EB)
    mixed = mixed ^ _shifted(mixed, 31)
    return mixed & LOW, _shifted(mixed, 32)


def _signed(value: int) -> int:
    """64 bits as int64 reads them."""
    return value - (value >> 63 << 64)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def dropped(like: Tensor, seed: Tensor, probability: float) -> Tensor:
    """Which elements of a tensor are dropped: truth values of its shape.

    They are hashed by their place in the contiguous tensor, modulo 2^32.
    """
    first, second = mask_keys(seed)
    mixed = (torch.arange(like.numel(), device=like.device) + first) & LOW
    mixed = ((mixed ^ (mixed >> 16)) * 0x7FEB352D) & LOW
    mixed = (((mixed ^ (mixed >> 15)) + second & LOW) * 0x846CA68B) & LOW
    mixed = mixed ^ (mixed >> 16)
    return (mixed < int(probability * 2**32)).reshape(like.shape)


def after_dropout(values: Tensor, seed: Tensor, probability: float) -> Tensor:
    """0 for what is dropped, also for NaN; the others divided by 1 - probability."""
    if probability == 0:
        return values
    return torch.where(dropped(values, seed, probability), 0.0, values * (1 / (1 - probability)))


def activated_dropout(rows: Tensor, slope: Tensor, seed: Tensor, probability: float) -> Tensor:
    """See :func:`vmr.ops.activated_dropout`; slope [1], or [0] for ReLU."""
    wide = widened(rows)
    below = wide * widened(slope).reshape(()) if slope.numel() else torch.zeros_like(wide)
    active = torch.where(wide < 0, below, wide)
    return after_dropout(active, seed, probability).to(rows.dtype).contiguous()


def activated_dropout_backward(
    output_gradients: Tensor, rows: Tensor, slope: Tensor, seed: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """The gradients of ``rows`` and ``slope``; at 0 that of what is below, as torch has it."""
    wide = widened(rows)
    kept = after_dropout(widened(output_gradients), seed, probability)
    if slope.numel() == 0:
        to_rows = torch.where(wide <= 0, 0.0, kept)
        return to_rows.to(rows.dtype).contiguous(), torch.empty_like(slope)
    to_rows = torch.where(wide > 0, kept, kept * widened(slope).reshape(()))
    products = torch.where(wide > 0, 0.0, kept * wide)
    to_slope = products.double().sum().reshape(1).to(slope.dtype)
    return to_rows.to(rows.dtype).contiguous(), to_slope


def residual_dropout(rows: Tensor, found: Tensor, seed: Tensor, probability: float) -> Tensor:
    """See :func:`vmr.ops.residual_dropout`."""
    total = widened(rows) + after_dropout(widened(found), seed, probability)
    return total.to(rows.dtype).contiguous()


def residual_dropout_backward(output_gradients: Tensor, seed: Tensor, probability: float) -> Tensor:
    """The gradient of ``found``."""
    kept = after_dropout(widened(output_gradients), seed, probability)
    return kept.to(output_gradients.dtype).clone(memory_format=torch.contiguous_format)
