"""Dropout (Srivastava et al., JMLR 2014) without a mask in memory, in one pass with what is around it.

d(x) is 0 with the probability p, and x / (1 - p) otherwise. Nothing is drawn for an element: whether it
is dropped follows from a hash of one seed and of its place in the contiguous tensor (places are counted
modulo 2^32). So the backward makes the mask again, and results depend neither on the number of threads
nor on the device. The seed is drawn by torch's generator, which ``torch.manual_seed`` seeds.

All floating-point arguments of an operator have one dtype: float32, float64, float16 or bfloat16 (these
two are computed in float32).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmr.ops._library import call, register
from vmr.reference import dropout as reference


def activated_dropout(
    rows: Tensor, slope: Tensor | None = None, seed: Tensor | None = None, *, probability: float
) -> Tensor:
    """ReLU or PReLU, and dropout behind it, in one pass.

    ::

        y = d(x) where x >= 0,  y = d(slope x) elsewhere

    Args:
        rows: [..., D] x, of any shape.
        slope: [1], as the weight of :class:`torch.nn.PReLU` that all columns share; converted to the
            dtype of ``rows``. None for ReLU.
        seed: int64, one number, on the device of ``rows``; None draws one.
        probability: p, from 0 to below 1. 0 draws nothing: the activation alone.

    Returns:
        As ``rows``; what is dropped is 0 even where it was NaN. Differentiable in ``rows`` and
        ``slope``.

    Raises:
        RuntimeError: a slope, seed or probability that does not fit.

    Under autocast: the dtype of ``rows``.
    """
    slope = rows.new_empty(0) if slope is None else slope.to(rows.dtype)
    seed = _drawn(rows, probability) if seed is None else seed
    found: Tensor = call(torch.ops.vmr.activated_dropout, rows, slope, seed, probability)
    return found


def residual_dropout(
    rows: Tensor, found: Tensor, seed: Tensor | None = None, *, probability: float
) -> Tensor:
    """A residual connection: ``rows + d(found)`` in one pass.

    Args:
        rows: [..., D], of any shape.
        found: The same shape; where dtypes differ, both are converted to the wider one.
        seed: As in :func:`activated_dropout`.
        probability: p, from 0 to below 1. 0 draws nothing: a plain sum, which also broadcasts.

    Returns:
        As ``rows``. Differentiable in ``rows`` and ``found``.

    Raises:
        RuntimeError: shapes, a seed or a probability that do not fit.

    Under autocast: the dtype of the arguments.
    """
    if probability == 0:
        return rows + found
    dtype = torch.promote_types(rows.dtype, found.dtype)
    rows, found = rows.to(dtype), found.to(dtype)
    seed = _drawn(rows, probability) if seed is None else seed
    total: Tensor = call(torch.ops.vmr.residual_dropout, rows, found, seed, probability)
    return total


def _drawn(rows: Tensor, probability: float) -> Tensor:
    """A seed, or none where nothing is dropped."""
    if probability == 0:
        return torch.empty(0, dtype=torch.int64, device=rows.device)
    return torch.randint(2**63 - 1, (), device=rows.device)


# ---- fake kernels ----


def _fake_elements(rows: Tensor, *_: Any) -> Tensor:
    return rows.new_empty(rows.shape)


def _fake_activated_dropout_backward(
    output_gradients: Tensor, rows: Tensor, slope: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), slope.new_empty(slope.shape)


# ---- gradients ----


def _activated_dropout_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    to_rows, to_slope = torch.ops.vmr.activated_dropout_backward(
        gradients, *context.saved_tensors, *context.settings
    )
    return to_rows, to_slope, None, None


def _residual_dropout_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    to_found = torch.ops.vmr.residual_dropout_backward(
        gradients, *context.saved_tensors, *context.settings
    )
    return gradients, to_found, None, None


register(
    "activated_dropout",
    reference=reference.activated_dropout,
    fake=_fake_elements,
    backward=_activated_dropout_backward,
    autocast=None,
)
register(
    "activated_dropout_backward",
    reference=reference.activated_dropout_backward,
    fake=_fake_activated_dropout_backward,
    autocast=None,
)
register(
    "residual_dropout",
    reference=reference.residual_dropout,
    fake=_fake_elements,
    backward=_residual_dropout_backward,
    needed=(2,),
    autocast=None,
)
register(
    "residual_dropout_backward",
    reference=reference.residual_dropout_backward,
    fake=_fake_elements,
    autocast=None,
)
