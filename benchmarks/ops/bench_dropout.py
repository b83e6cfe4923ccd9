"""Activation and residual with dropout, against torch's modules.

python benchmarks/ops/bench_dropout.py --out benchmarks/results/dropout.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

PROBABILITY = 0.1
# Rows inside a feed-forward network, and between layers: of one pass and of four in one batch.
SIZES = ((3424, 1024), (13696, 1024), (13696, 256))

Inputs = tuple[Tensor, Tensor]
Function = Callable[[Tensor, Tensor], Tensor]


def our_activation(rows: Tensor, slope: Tensor) -> Tensor:
    return ops.activated_dropout(rows, slope, probability=PROBABILITY)


def eager_activation(rows: Tensor, slope: Tensor) -> Tensor:
    return F.dropout(F.prelu(rows, slope), PROBABILITY)


def our_evaluation(rows: Tensor, slope: Tensor) -> Tensor:
    return ops.activated_dropout(rows, slope, probability=0.0)


def our_residual(rows: Tensor, found: Tensor) -> Tensor:
    return ops.residual_dropout(rows, found, probability=PROBABILITY)


def eager_residual(rows: Tensor, found: Tensor) -> Tensor:
    return rows + F.dropout(found, PROBABILITY)


def forward(function: Function, inputs: Inputs) -> None:
    with torch.no_grad():
        function(*inputs)


def forward_and_backward(function: Function, inputs: Inputs, gradient: Tensor) -> None:
    torch.autograd.grad(function(*inputs), inputs, gradient)


def comparisons() -> list[Comparison]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for size in SIZES if dtype == torch.float32 else SIZES[1:2]:
            random = torch.Generator().manual_seed(0)

            def draw(size: tuple[int, ...] = size, random: torch.Generator = random) -> Tensor:
                drawn = torch.randn(size, generator=random)
                return drawn.to(dtype).requires_grad_()  # noqa: B023

            rows, gradient = draw(), draw().detach()
            slope = torch.tensor([0.25], dtype=dtype, requires_grad=True)
            for name, inputs, functions in (
                ("PReLU, dropout", (rows, slope), (our_activation, eager_activation)),
                ("PReLU alone", (rows, slope), (our_evaluation, F.prelu)),
                ("rows + dropout", (rows, draw()), (our_residual, eager_residual)),
            ):
                work = f"{name}, {list(size)} {str(dtype).removeprefix('torch.')}"
                one_way, both = (
                    {
                        who: partial(run, function, *arguments)
                        for who, function in zip(("vmr", "PyTorch"), functions, strict=True)
                    }
                    for run, arguments in (
                        (forward, (inputs,)),
                        (forward_and_backward, (inputs, gradient)),
                    )
                )
                found += [
                    Comparison(work, one_way, 5),
                    Comparison(f"{work}, forward and backward", both, 5),
                ]
    return found


if __name__ == "__main__":
    main(
        "Dropout behind an activation and before a sum, against PyTorch's",
        comparisons,
        __file__,
    )
