"""Frame attention, attentive pooling and the frame losses, against eager PyTorch.

python benchmarks/ops/bench_background.py --out benchmarks/results/background.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

DIM, HIDDEN, WORDS = 256, 128, 32


class Inputs(NamedTuple):
    """Frames as they come: the first rows of what was encoded together with the words."""

    memory: Tensor
    negative: Tensor
    hidden_weight: Tensor
    score_weight: Tensor
    scores: Tensor
    windows: Tensor
    counts: Tensor
    lengths: Tensor
    valid: Tensor
    fore: Tensor


def draw_inputs(batch: int, frames: int) -> Inputs:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    lengths = torch.randint(frames // 2, frames + 1, (batch,), generator=random)
    lengths[0] = frames
    place = torch.arange(frames)
    valid = place < lengths[:, None]
    first, last = frames // 4, frames // 2
    return Inputs(
        draw(batch, frames + WORDS, DIM),
        draw(batch, frames + WORDS, DIM),
        draw(HIDDEN, DIM) / DIM**0.5,
        draw(HIDDEN) / HIDDEN**0.5,
        draw(batch, frames),
        torch.tensor([[[first, last - 1]]]).repeat(batch, 1, 1),
        torch.ones(batch, dtype=torch.int64),
        lengths,
        valid,
        valid & (place >= first) & (place < last),
    )


# ---- the same in eager PyTorch; masks are given ----


def eager_attention(
    frames: Tensor,
    hidden_weight: Tensor,
    score_weight: Tensor,
    valid: Tensor,
    negative: Tensor | None,
) -> tuple[Tensor, Tensor]:
    def match(rows: Tensor) -> Tensor:
        return (F.linear(rows, hidden_weight).tanh() @ score_weight).sigmoid()

    joint = match(frames)
    if negative is not None:
        joint = joint * (1 - match(negative))
    attention = joint.masked_fill(~valid, -torch.inf).softmax(dim=1)
    return attention[..., None] * frames, joint.masked_fill(~valid, 0.0)


def eager_pool(features: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
    weights = scores.masked_fill(~valid, -torch.inf).softmax(dim=1)
    return (weights[:, None] @ features).squeeze(1)


def eager_margin(scores: Tensor, valid: Tensor, fore: Tensor) -> Tensor:
    """All pairs; a pair that does not count is far below the margin."""
    back = (scores + 0.2).masked_fill(~valid | fore, -torch.inf)
    front = scores.masked_fill(~fore, torch.inf)
    pairs = fore.sum(1) * (valid & ~fore).sum(1)
    errors = (back[:, None] - front[:, :, None]).relu()
    return errors.sum(dim=(1, 2)) / pairs.clamp(min=1)


def eager_probability(joint: Tensor, valid: Tensor, fore: Tensor) -> Tensor:
    back = valid & ~fore
    positive = (joint * fore).sum(1) / fore.sum(1).clamp(min=1)
    return 1 - positive + (joint * back).sum(1) / back.sum(1).clamp(min=1)


# ---- what is measured ----


class Work(NamedTuple):
    """The same by both, of the tensors that are learned."""

    name: str
    leaves: tuple[Tensor, ...]
    vmr: Callable[..., object]
    eager: Callable[..., object]


def works(x: Inputs) -> list[Work]:
    frames = x.scores.shape[1]
    sides = (x.windows, x.counts, x.lengths)

    def attend(memory: Tensor, w1: Tensor, w2: Tensor, negative: Tensor | None = None) -> object:
        other = None if negative is None else negative[:, :frames]
        return ops.frame_attention(memory[:, :frames], w1, w2, x.lengths, other)[:2]

    def attend_eagerly(
        memory: Tensor, w1: Tensor, w2: Tensor, negative: Tensor | None = None
    ) -> object:
        other = None if negative is None else negative[:, :frames]
        return eager_attention(memory[:, :frames], w1, w2, x.valid, other)

    weights = (x.hidden_weight, x.score_weight)
    return [
        Work("frame attention", (x.memory, *weights), attend, attend_eagerly),
        Work(
            "frame attention with negatives",
            (x.memory, *weights, x.negative),
            attend,
            attend_eagerly,
        ),
        Work(
            "attentive pooling",
            (x.memory, x.scores),
            lambda memory, scores: ops.attentive_pool(memory[:, :frames], scores, x.lengths),
            lambda memory, scores: eager_pool(memory[:, :frames], scores, x.valid),
        ),
        Work(
            "margin loss",
            (x.scores,),
            lambda scores: ops.margin_loss(scores, *sides),
            lambda scores: eager_margin(scores, x.valid, x.fore),
        ),
        Work(
            "probability loss",
            (x.scores,),
            lambda joint: ops.probability_loss(joint, *sides),
            lambda joint: eager_probability(joint, x.valid, x.fore),
        ),
    ]


def with_gradients(run: Callable[..., object], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    found = run(*leaves)
    outputs = found if isinstance(found, tuple) else (found,)
    return list(torch.autograd.grad([output.sum() for output in outputs], leaves))


def compare(work: Work, size: str, repeats: int) -> list[Comparison]:
    """Forward, and forward and backward; after both were found to agree."""
    torch.testing.assert_close(
        work.vmr(*work.leaves), work.eager(*work.leaves), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        with_gradients(work.vmr, work.leaves),
        with_gradients(work.eager, work.leaves),
        rtol=1e-4,
        atol=1e-4,
    )
    return [
        Comparison(
            f"{work.name}, {size}",
            {
                "vmr": lambda: work.vmr(*work.leaves),
                "PyTorch": lambda: work.eager(*work.leaves),
            },
            repeats,
        ),
        Comparison(
            f"{work.name}, {size}, forward and backward",
            {
                "vmr": lambda: with_gradients(work.vmr, work.leaves),
                "PyTorch": lambda: with_gradients(work.eager, work.leaves),
            },
            repeats,
        ),
    ]


def comparisons() -> list[Comparison]:
    """What is measured, after all contenders were found to agree."""
    return [
        comparison
        for batch, frames, repeats in ((32, 75, 25), (1, 75, 100), (8, 1000, 10))
        for work in works(draw_inputs(batch, frames))
        for comparison in compare(work, f"B = {batch}, N = {frames}", repeats)
    ]


if __name__ == "__main__":
    main("Background-aware moment detection: D = 256, H = 128", comparisons, __file__)
