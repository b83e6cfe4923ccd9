"""Samples of dropout's operators; see samples.py."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tests.ops.background_samples import Samples
from tests.ops.sample import Sample, strided


class Inputs(NamedTuple):
    """What the operators take."""

    name: str
    rows: Tensor
    others: Tensor
    slope: Tensor
    seed: Tensor
    probability: float


def draw_inputs(name: str, dtype: torch.dtype, *shape: int, probability: float = 0.25) -> Inputs:
    random = torch.Generator().manual_seed(len(name))

    def draw() -> Tensor:
        drawn = torch.randn(shape, generator=random, dtype=torch.float64)
        # Away from the kink, where a derivative by differences is wrong.
        return (drawn + drawn.sign() / 8).to(dtype)

    slope = torch.tensor([0.375], dtype=dtype)
    return Inputs(name, draw(), draw(), slope, torch.tensor(-(2**40) - 5), probability)


def all_inputs(dtype: torch.dtype, large: bool) -> list[Inputs]:
    if large:
        # More than a part of the sum for the slope's gradient, by sizes that none divides.
        return [draw_inputs("large", dtype, 7, 331, 67)]
    plain = draw_inputs("plain", dtype, 3, 5, 7)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1, -1], dtype=dtype)
    return [
        plain,
        plain._replace(name="seed of one dimension", seed=plain.seed[None]),
        plain._replace(
            name="not contiguous",
            rows=strided(plain.rows).transpose(0, 1),
            others=strided(plain.others).transpose(0, 1),
        ),
        plain._replace(name="special cases", rows=special.repeat(40), others=special.repeat(40)),
        plain._replace(name="nothing dropped", probability=0.0, seed=plain.seed[None][:0]),
        plain._replace(name="nearly all dropped", probability=0.999),
        # More than a block of any instruction set.
        draw_inputs("longer rows", dtype, 9, 131, probability=0.5),
        draw_inputs("one number", dtype, probability=0.1),
        draw_inputs("no rows", dtype, 0, 4),
    ]


def draw_gradient(like: Tensor) -> Tensor:
    random = torch.Generator().manual_seed(like.numel())
    drawn = torch.randn(like.shape, generator=random, dtype=torch.float64) / 4
    return drawn.to(like.dtype)


def activated_dropout(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(inputs.name, (inputs.rows, slope, inputs.seed, inputs.probability))
        for inputs in all_inputs(dtype, large)
        for slope in (inputs.slope, inputs.slope[:0])
    ]


def activated_dropout_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(sample.name, (draw_gradient(sample.arguments[0]), *sample.arguments))
        for sample in activated_dropout(dtype, large)
    ]


def residual_dropout(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(inputs.name, (inputs.rows, inputs.others, inputs.seed, inputs.probability))
        for inputs in all_inputs(dtype, large)
    ]


def residual_dropout_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(inputs.name, (inputs.others, inputs.seed, inputs.probability))
        for inputs in all_inputs(dtype, large)
    ]


SAMPLES: dict[str, Samples] = {
    "activated_dropout": activated_dropout,
    "activated_dropout_backward": activated_dropout_backward,
    "residual_dropout": residual_dropout,
    "residual_dropout_backward": residual_dropout_backward,
}
DIFFERENTIABLE = ["activated_dropout", "residual_dropout"]
