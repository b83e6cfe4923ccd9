"""Sample inputs of the operators of the detector (see samples.py)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Convolution(NamedTuple):
    """The sizes of a convolution, and the valid sizes where they are not all of N."""

    name: str
    batch: int
    frames: int
    inputs: int
    outputs: int
    kernel: int
    lengths: list[int] | None = None


# Kernels of 7 with 29, 45, 61, 93 and 125 points just fit 32, 48, 64, 96 and 128; from 126 on there
# are tiles. Kernels of 3 go the direct way.
CONVOLUTIONS = [
    Convolution("two samples as one transform", 2, 20, 3, 5, 7),
    Convolution("lengths, a sample alone", 3, 25, 2, 3, 9, [25, 12, 0]),
    Convolution("one channel in, eight samples", 8, 14, 1, 16, 7),
    Convolution("one channel in, nine samples", 9, 14, 1, 8, 7, [14, 3, 1, 0, 14, 2, 9, 8, 13]),
    Convolution("one channel out", 2, 12, 16, 1, 7),
    Convolution("more channels than lanes", 3, 11, 17, 24, 7, [11, 5, 10]),
    Convolution("a chunk of several groups of pairs", 12, 9, 8, 3, 7),
    Convolution("one point, a kernel of one channel", 1, 1, 1, 1, 7),
    Convolution("a kernel larger than the map", 2, 5, 2, 2, 21),
    Convolution("the published sizes", 1, 75, 4, 4, 21, [70]),
    Convolution("the published sizes, the larger kernel", 1, 75, 2, 2, 27),
    Convolution("fits 32", 1, 29, 1, 2, 7),
    Convolution("needs 48", 1, 30, 2, 1, 7),
    Convolution("fits 48", 1, 45, 1, 2, 7),
    Convolution("needs 64", 1, 46, 1, 1, 7),
    Convolution("fits 64", 1, 61, 1, 2, 7),
    Convolution("needs 96", 1, 62, 1, 2, 7),
    Convolution("fits 96", 1, 93, 1, 1, 7),
    Convolution("needs more than 96", 1, 94, 1, 2, 7),
    Convolution("fits 128", 1, 125, 2, 1, 7),
    Convolution("tiles", 1, 126, 1, 2, 7),
    Convolution("tiles, some samples without", 3, 150, 1, 2, 9, [150, 20, 117]),
    Convolution("direct", 3, 9, 2, 3, 3, [9, 4, 0]),
    Convolution("direct, a kernel of one point", 2, 6, 2, 3, 1),
    Convolution("direct, one point", 1, 1, 2, 3, 3),
    Convolution("no samples", 0, 8, 2, 3, 7),
    Convolution("no samples, direct", 0, 8, 2, 3, 3),
    Convolution("nothing is valid", 2, 8, 2, 3, 7, [0, 0]),
]
# Maps as a permuted NCHW tensor; the values of another one.
NOT_CONTIGUOUS = Convolution("not contiguous", 2, 13, 3, 5, 7)
NAN_OUTSIDE = Convolution("NaN in the padding", 3, 13, 3, 5, 7, [13, 6, 0])
NAN_OUTSIDE_DIRECT = Convolution("direct, NaN in the padding", 3, 13, 3, 5, 3, [13, 6, 0])


class Drawn(NamedTuple):
    """The arguments of one convolution and the gradient of its result."""

    maps: Tensor
    weight: Tensor
    bias: Tensor
    lengths: Tensor
    gradient: Tensor


def draw(sizes: Convolution, dtype: torch.dtype) -> Drawn:
    """Random arguments; the scales keep sums of many products near one."""
    name, batch, frames, inputs, outputs, kernel, lengths = sizes
    random = torch.Generator().manual_seed(len(name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    drawn = Drawn(
        normal(batch, frames, frames, inputs).to(dtype),
        (normal(outputs, inputs, kernel, kernel) / (2 * kernel * inputs**0.5)).to(dtype),
        normal(outputs).to(dtype),
        torch.full((batch,), frames) if lengths is None else torch.tensor(lengths),
        (normal(batch, frames, frames, outputs) / (2 * frames * max(batch, 1) ** 0.5)).to(dtype),
    )
    if "NaN" in name:
        for maps in (drawn.maps, drawn.gradient):
            for sample, length in zip(maps, drawn.lengths.tolist(), strict=True):
                sample[length:] = torch.nan
                sample[:, length:] = torch.nan
    if name == NOT_CONTIGUOUS.name:
        drawn = drawn._replace(
            maps=drawn.maps.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
            weight=drawn.weight.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2),
            gradient=drawn.gradient.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1),
        )
    return drawn


def convolutions(dtype: torch.dtype) -> list[tuple[str, Drawn]]:
    every = [*CONVOLUTIONS, NOT_CONTIGUOUS, NAN_OUTSIDE, NAN_OUTSIDE_DIRECT]
    return [(sizes.name, draw(sizes, dtype)) for sizes in every]
