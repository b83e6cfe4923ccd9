"""What the references share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor in the dtype that is computed in: float32 for float16 and bfloat16."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """[.., N] truth values: what is no padding, of lengths [..]."""
    return torch.arange(frames, device=lengths.device) < lengths[..., None]


def gradients(
    forward: Callable[..., Tensor | tuple[Tensor, ...]],
    output_gradients: Tensor | tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    *settings: Any,
) -> tuple[Tensor, ...]:
    """The gradients of the floating-point inputs of ``forward(*inputs, *settings)``, by autograd."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
        outputs = forward(*leaves, *settings)
        pairs = [
            (output, gradient)
            for output, gradient in zip(_several(outputs), _several(output_gradients), strict=True)
            if output.requires_grad
        ]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        some, their_gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(some, wanted, their_gradients, allow_unused=True)
    return tuple(
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(wanted, found, strict=True)
    )


def _several(tensors: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tensors if isinstance(tensors, tuple) else (tensors,)
