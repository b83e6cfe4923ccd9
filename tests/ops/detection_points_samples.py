"""Sample inputs of the operators on moments as points of a map of scores: see samples.py."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.ops.sample import Sample, strided

# Several of a query, one listed twice, on the diagonal, in a corner, and none.
POINTS = torch.tensor([[0, 5], [3, 3], [0, 5], [2, 8], [8, 8], [0, 0]])
SPLITS = torch.tensor([0, 5, 5, 6, 6])
LENGTHS = torch.tensor([9, 6, 1, 0])


def score_maps(dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(19)
    return (torch.randn(4, 9, 9, generator=random, dtype=torch.float64) * 3).to(dtype)


def with_nan_in_the_padding(scores: Tensor) -> Tensor:
    scores = scores.clone()
    for query, length in zip(scores, LENGTHS.tolist(), strict=True):
        query[length:] = torch.nan
        query[:, length:] = torch.nan
    return scores


def vertex_loss(dtype: torch.dtype) -> list[Sample]:
    scores = score_maps(dtype)
    wide = torch.linspace(-3, 3, 2 * 300 * 300, dtype=torch.float64).reshape(2, 300, 300).to(dtype)
    far = scores.clone()
    far[0, 0, :4] = torch.tensor([-200.0, 200.0, -60.0, 60.0])
    samples = []
    for whole in (True, False):
        for sigmoid in (True, False):
            name = f"{'whole' if whole else 'upper'}, {'sigmoid' if sigmoid else 'linear'}"
            ends = (whole, sigmoid)
            inputs = (POINTS, SPLITS, LENGTHS, *ends)
            samples += [
                Sample(name, (scores, *inputs)),
                Sample(f"{name}, NaN in the padding", (with_nan_in_the_padding(scores), *inputs)),
                Sample(
                    f"{name}, not contiguous", (strided(scores), *map(strided, inputs[:3]), *ends)
                ),
                Sample(
                    f"{name}, one frame",
                    (
                        scores[:1, :1, :1],
                        POINTS[5:],
                        torch.tensor([0, 1]),
                        torch.tensor([1]),
                        *ends,
                    ),
                ),
                Sample(
                    f"{name}, no points",
                    (scores, POINTS[:0], torch.zeros(5).long(), LENGTHS, *ends),
                ),
                Sample(
                    f"{name}, no queries",
                    (scores[:0], POINTS[:0], torch.zeros(1).long(), LENGTHS[:0], *ends),
                ),
            ]
            if sigmoid:
                samples.append(Sample(f"{name}, far from zero", (far, *inputs)))
            if dtype in (torch.float32, torch.float64):
                # Several blocks of a row; half types' sums would not be finite.
                samples.append(
                    Sample(
                        f"{name}, many frames",
                        (
                            wide,
                            torch.tensor([[2, 299], [17, 256]]),
                            torch.tensor([0, 1, 2]),
                            torch.tensor([300, 277]),
                            *ends,
                        ),
                    )
                )
    return samples


def vertex_loss_backward(dtype: torch.dtype) -> list[Sample]:
    random = torch.Generator().manual_seed(23)
    return [
        Sample(
            sample.name,
            (
                torch.randn(sample.arguments[0].shape[0], generator=random, dtype=torch.float64).to(
                    dtype
                ),
                *sample.arguments,
            ),
        )
        for sample in vertex_loss(dtype)
    ]


def top_points(dtype: torch.dtype) -> list[Sample]:
    scores = score_maps(dtype)
    random = torch.Generator().manual_seed(29)
    equal = (torch.randint(-2, 3, (4, 9, 9), generator=random) / 4).to(dtype)
    many = (torch.randint(0, 4000, (2, 150, 150), generator=random) / 4).to(dtype)
    broken = equal.clone()
    broken[:, ::2, ::3] = torch.nan
    broken[:, 1::4] = -torch.inf
    broken[:, :, 5] = torch.inf
    zeros = equal.clone()
    zeros[zeros == 0] *= -1
    return [
        Sample("several", (scores, LENGTHS, 7)),
        Sample("the best", (scores, LENGTHS, 1)),
        Sample("more than there are", (scores, LENGTHS, 60)),
        Sample("all of one", (scores, LENGTHS, 45)),
        Sample("equal scores", (equal, LENGTHS, 11)),
        Sample("positive and negative zeros", (zeros, LENGTHS, 30)),
        Sample("NaN in the padding", (with_nan_in_the_padding(scores), LENGTHS, 20)),
        Sample("NaN and infinite scores", (broken, LENGTHS, 40)),
        Sample("nothing but NaN", (torch.full_like(scores, torch.nan), LENGTHS, 2)),
        Sample("not contiguous", (strided(scores), strided(LENGTHS), 5)),
        Sample("many frames", (many, torch.tensor([150, 133]), 200)),
        Sample("one frame", (scores[:1, :1, :1], LENGTHS[2:3], 2)),
        Sample("no queries", (scores[:0], LENGTHS[:0], 3)),
    ]
