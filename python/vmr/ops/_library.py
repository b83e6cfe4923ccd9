"""Loads the compiled operators, and registers what an operator needs besides its kernels.

An operator's schema, checks and kernels are in the compiled library (cpp/ops). What PyTorch needs to
know to differentiate it, to trace it and to run it under autocast is said here, in one call an operator.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def _load(library: str) -> bool:
    spec = importlib.util.find_spec(f"vmr.{library}")
    if spec is None or spec.origin is None:
        return False
    torch.ops.load_library(spec.origin)  # type: ignore[no-untyped-call]
    return True


if not _load("_ops"):
    raise ImportError(
        "vmr's compiled operators (vmr/_ops.so) are missing: this is a source tree that was not built. "
        "Build it with `pip install --no-build-isolation .`"
    )

HAS_CUDA = _load("_ops_cuda")
"""Whether this build has CUDA kernels. Without them CUDA tensors run vmr.reference."""

Function = Callable[..., Any]
_own = torch.library.Library("vmr", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(
    name: str,
    *,
    reference: Function,
    fake: Function,
    backward: Function | None = None,
    kept: int = 0,
    needed: tuple[int, ...] | None = None,
    autocast: torch.dtype | None = torch.float32,
) -> None:
    """Register what the compiled library does not say about the operator ``vmr::name``.

    Args:
        name: the operator, as its schema names it.
        reference: the same in plain PyTorch, with the schema's arguments. It runs where there is no
            kernel: on CUDA in a build without CUDA, on MPS and on XPU.
        fake: allocates outputs of the right shape and dtype, for tracing.
        backward: the gradients of the inputs, given ``(context, *output gradients)`` where
            ``context.saved_tensors`` are the tensors and ``context.settings`` the other arguments, in
            the schema's order. None for an operator without a derivative.
        kept: how many of the last outputs are made for ``backward`` alone. They follow the tensors in
            ``context.saved_tensors``, are not differentiable, and of the output gradients those that
            nobody asked for are then None.
        needed: the places of the arguments that ``backward`` reads, where it reads no others: the
            tensors that ``context.saved_tensors`` are then all of. None keeps every tensor.
        autocast: what floating-point arguments are cast to under autocast; None lets the operator run
            in the dtype of its arguments there too.

    First derivatives only.
    """
    operator = f"vmr::{name}"
    torch.library.register_fake(operator, fake)
    for device in ("mps", "xpu") if HAS_CUDA else ("cuda", "mps", "xpu"):
        torch.library.impl(operator, device, reference)
    for device in ("cpu", "cuda"):
        if autocast is None:
            key = f"Autocast{device.upper()}"
            _own.impl(name, torch.library.fallthrough_kernel, key)  # type: ignore[no-untyped-call]
        else:
            torch.library.register_autocast(operator, device, autocast)
    if backward is not None:
        torch.library.register_autograd(
            operator, once_differentiable(backward), setup_context=_save(kept, needed)
        )


def call(operator: Function, *arguments: Any) -> Any:
    """Run an operator; where nothing learns, without the wrapper in Python that autograd puts before it.

    That takes three times as long as a small operator itself.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _save(kept: int, needed: tuple[int, ...] | None) -> Function:
    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = output[-kept:] if kept else ()
        wanted = inputs if needed is None else [inputs[place] for place in needed]
        tensors = (value for value in wanted if isinstance(value, torch.Tensor))
        ctx.save_for_backward(*tensors, *results)
        ctx.settings = tuple(value for value in inputs if not isinstance(value, torch.Tensor))
        if kept:
            ctx.mark_non_differentiable(*results)
            ctx.set_materialize_grads(False)

    return save
