"""Samples of the operators of background-aware moment detection; see samples.py."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tests.ops.sample import Sample, strided


class Samples(Protocol):
    """Makes the samples of an operator."""

    def __call__(self, dtype: torch.dtype, large: bool = False) -> list[Sample]:
        """The samples, or a single one that is worth several threads."""


class Inputs(NamedTuple):
    """What the operators take; made to fit one another."""

    name: str
    frames: Tensor
    negative: Tensor
    hidden_weight: Tensor
    score_weight: Tensor
    scores: Tensor
    windows: Tensor
    counts: Tensor
    lengths: Tensor


# Overlapping, of one row, beyond the length, the whole video, none; what does not count is nonsense.
WINDOWS = [[[0, 2], [2, 5]], [[1, 1], [6, 6]], [[0, 0], [-9, 99]], [[4, -1], [7, 7]]]
COUNTS = [2, 2, 1, 0]


def draw_inputs(
    name: str, dtype: torch.dtype, lengths: list[int], frames: int, dim: int, hidden: int
) -> Inputs:
    """Random inputs of moderate size: no tanh or sigmoid is saturated."""
    random = torch.Generator().manual_seed(frames + 100 * dim + len(lengths))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    batch = len(lengths)
    few = (torch.tensor(WINDOWS), torch.tensor(COUNTS))
    fits = batch == len(COUNTS) and frames > 7
    windows = few[0] if fits else torch.tensor([[[frames // 3, frames // 2]]]).repeat(batch, 1, 1)
    found = (
        draw(batch, frames, dim),
        draw(batch, frames, dim),
        draw(hidden, dim) / dim**0.5,
        draw(hidden) / hidden**0.5,
        draw(batch, frames) / 4,
    )
    return Inputs(
        name,
        *(tensor.to(dtype) for tensor in found),
        windows,
        few[1] if fits else torch.ones(batch, dtype=torch.int64),
        torch.tensor(lengths, dtype=torch.int64),
    )


def with_nan(inputs: Inputs) -> Inputs:
    valid = torch.arange(inputs.frames.shape[1]) < inputs.lengths[:, None]
    rows = valid[..., None]
    return inputs._replace(
        name="NaN in the padding",
        frames=torch.where(rows, inputs.frames, torch.nan),
        negative=torch.where(rows, inputs.negative, torch.nan),
        scores=torch.where(valid, inputs.scores, torch.nan),
    )


def all_inputs(dtype: torch.dtype, large: bool, shortest: int) -> list[Inputs]:
    if large:
        return [draw_inputs("large", dtype, [131, 64, 1, 130, 99] * 7, 131, 150, 70)]
    lengths = [10, 7, 3, shortest]
    plain = draw_inputs("plain", dtype, lengths, 10, 20, 6)
    memory = draw_inputs("memory", dtype, lengths, 13, 20, 6)
    return [
        plain,
        with_nan(plain),
        Inputs("not contiguous", *(strided(tensor) for tensor in plain[1:])),
        # The first frames of a longer memory, as the models have them.
        plain._replace(
            name="views of a memory",
            frames=memory.frames[:, :10],
            negative=memory.negative[:, :10],
            scores=memory.scores[:, :10],
        ),
        # More than a vector of any instruction set, by sizes that none divides.
        draw_inputs("longer rows", dtype, [45, 38], 45, 75, 37),
        draw_inputs("one of each", dtype, [1], 1, 1, 1),
        draw_inputs("no videos", dtype, [], 3, 4, 2),
    ]


def draw_gradient(like: Tensor, valid: Tensor | None = None) -> Tensor:
    """Of an output; NaN in its padding."""
    random = torch.Generator().manual_seed(like.numel())
    drawn = torch.randn(like.shape, generator=random, dtype=torch.float64) / 4
    if valid is not None:
        drawn = torch.where(valid, drawn, torch.nan)
    return drawn.to(like.dtype)


def frame_attention(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    found = []
    for inputs in all_inputs(dtype, large, shortest=1):
        for negative in (inputs.negative, inputs.negative[:0]):
            for official in (False, True):
                name = f"{inputs.name}, {len(negative)} negative, official: {official}"
                if inputs.name == "NaN in the padding":
                    if official:
                        continue  # which lets it through
                    name = inputs.name
                weights = (inputs.hidden_weight, inputs.score_weight)
                found.append(
                    Sample(name, (inputs.frames, *weights, inputs.lengths, negative, official))
                )
    return found


def frame_attention_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    found = []
    for sample in frame_attention(dtype, large):
        frames, _, _, lengths, _, official = sample.arguments
        if len(frames) == 0 and official:
            continue
        valid = (torch.arange(frames.shape[1]) < lengths[:, None]) | official
        outputs = torch.ops.vmr.frame_attention(*sample.arguments)
        gradients = (
            draw_gradient(outputs[0], valid[..., None]),
            *(draw_gradient(output, valid) for output in outputs[1:4]),
        )
        arguments = (*gradients, *sample.arguments[:-1], *outputs[4:], official)
        found.append(Sample(sample.name, arguments))
    return found


def attentive_pool(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(inputs.name, (inputs.frames, inputs.scores, inputs.lengths))
        for inputs in all_inputs(dtype, large, shortest=0)
    ]


def attentive_pool_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(sample.name, (draw_gradient(sample.arguments[0][:, 0]), *sample.arguments))
        for sample in attentive_pool(dtype, large)
    ]


def probability_loss(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(inputs.name, (inputs.scores, inputs.windows, inputs.counts, inputs.lengths))
        for inputs in all_inputs(dtype, large, shortest=0)
    ]


def margin_loss(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(f"{sample.name}, {margin}" if margin else sample.name, (*sample.arguments, margin))
        for sample in probability_loss(dtype, large)
        for margin in (0.2, 0.0)
    ]


def margin_loss_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(sample.name, (draw_gradient(sample.arguments[0][:, 0]), *sample.arguments))
        for sample in margin_loss(dtype, large)
    ]


def probability_loss_backward(dtype: torch.dtype, large: bool = False) -> list[Sample]:
    return [
        Sample(sample.name, (draw_gradient(sample.arguments[0][:, 0]), *sample.arguments))
        for sample in probability_loss(dtype, large)
    ]


SAMPLES: dict[str, Samples] = {
    "frame_attention": frame_attention,
    "frame_attention_backward": frame_attention_backward,
    "attentive_pool": attentive_pool,
    "attentive_pool_backward": attentive_pool_backward,
    "margin_loss": margin_loss,
    "margin_loss_backward": margin_loss_backward,
    "probability_loss": probability_loss,
    "probability_loss_backward": probability_loss_backward,
}
DIFFERENTIABLE = [name for name in SAMPLES if f"{name}_backward" in SAMPLES]
