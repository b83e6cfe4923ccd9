"""Samples of the alignment operators; see samples.py."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tests.ops.sample import Sample, strided


class Inputs(NamedTuple):
    """What the operators take, by the names of their arguments; made to fit one another."""

    name: str
    frames: Tensor
    queries: Tensor
    relevance_vectors: Tensor
    alignment_vectors: Tensor
    offsets: Tensor
    gram: Tensor
    query_dots: Tensor
    query_norms: Tensor
    relevance: Tensor
    weights: Tensor
    segments: Tensor
    lengths: Tensor
    videos: Tensor


def draw_inputs(
    name: str,
    dtype: torch.dtype,
    lengths: list[int],
    videos: list[int],
    frames: int,
    dim: int,
    scale: float = 1.0,
) -> Inputs:
    """Random inputs of moderate size: no tanh or sigmoid is saturated."""
    random = torch.Generator().manual_seed(frames + 100 * dim + len(videos))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def share(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    count = len(videos)
    about = torch.tensor(videos, dtype=torch.int64)
    sizes = torch.tensor(lengths, dtype=torch.int64)
    v, q = draw(len(lengths), frames, dim) * scale, draw(count, dim) * scale
    valid = torch.arange(frames) < sizes[:, None]
    v = torch.where(valid[..., None], v, 0.0)
    ends = (share(count, 2) * sizes[about, None]).long().sort(dim=1).values
    found = (
        v,
        q,
        draw(count, dim) / dim**0.5,
        draw(count, dim) / dim**0.5,
        draw(count),
        v @ v.mT,
        (v[about] @ q[..., None]).squeeze(-1),
        q.square().sum(1),
        share(count, frames) * 2 - 0.7,
        share(count, frames),
    )
    return Inputs(name, *(tensor.to(dtype) for tensor in found), ends, sizes, about)


def with_nan(inputs: Inputs) -> Inputs:
    """NaN wherever a video has no frame."""
    frames = inputs.frames.shape[1]
    valid = torch.arange(frames) < inputs.lengths[:, None]
    of_query = valid[inputs.videos]
    return inputs._replace(
        name="NaN in the padding",
        frames=torch.where(valid[..., None], inputs.frames, torch.nan),
        gram=torch.where(valid[:, :, None] & valid[:, None], inputs.gram, torch.nan),
        query_dots=torch.where(of_query, inputs.query_dots, torch.nan),
        relevance=torch.where(of_query, inputs.relevance, torch.nan),
        weights=torch.where(of_query, inputs.weights, torch.nan),
    )


def all_inputs(dtype: torch.dtype, large: bool) -> list[Inputs]:
    if large:
        videos = torch.arange(24).mul(7).remainder(10).tolist()
        lengths = [131, 130, 3, 1, 77, 131, 64, 128, 129, 99, 50]
        return [draw_inputs("large", dtype, lengths, videos, 131, 70)]
    plain = draw_inputs("plain", dtype, [13, 7, 10], [2, 0, 2, 1, 2, 2, 2], 13, 20)
    # Several blocks of rows and columns, and a video that no query is about.
    long = draw_inputs("several blocks", dtype, [150, 61, 40], [1, 0], 150, 16, 0.5)
    zero = draw_inputs("zero vectors", dtype, [5, 5], [0, 1, 1], 5, 6)
    zero.frames[0, 1:3].zero_()
    zero.queries[1].zero_()
    zero.gram.copy_(zero.frames @ zero.frames.mT)
    zero.query_dots[0, 1:3] = 0
    zero.query_dots[1], zero.query_norms[1] = 0, 0
    zero.weights[0, :4] = torch.tensor([0.0, 0.0, 0.3, 0.8])
    return [
        plain,
        draw_inputs("one of each", dtype, [1], [0], 1, 1),
        with_nan(plain),
        Inputs("not contiguous", *(strided(tensor) for tensor in plain[1:])),
        zero,
        long,
        draw_inputs("no queries", dtype, [3, 2], [], 3, 4),
        draw_inputs("no videos", dtype, [], [], 3, 4),
    ]


def gradients(dtype: torch.dtype, valid: Tensor, *shape: int) -> Tensor:
    """Of an output of this shape; NaN in its padding."""
    random = torch.Generator().manual_seed(sum(shape))
    drawn = torch.randn(*shape, generator=random, dtype=torch.float64) / 16
    return torch.where(valid, drawn, torch.nan).to(dtype)


class Samples(Protocol):
    """Makes the samples of an operator."""

    def __call__(self, dtype: torch.dtype, large: bool = False) -> list[Sample]:
        """The samples, or a single one that is worth several threads."""


def samples(
    name: str, switches: list[tuple[bool, ...]], dtype: torch.dtype, large: bool = False
) -> list[Sample]:
    """The operator's arguments, with each of the switches; for a backward, gradients before them."""
    found = []
    for inputs in all_inputs(dtype, large):
        if name.endswith("_backward") and inputs.name == "no videos":
            continue  # the references' autograd has nothing to differentiate
        tensors = arguments(inputs, name.removesuffix("_backward"))
        if name.endswith("_backward"):
            tensors = output_gradients(inputs, name.removesuffix("_backward")) + tensors
        for values in switches:
            label = ", ".join([inputs.name, *(str(value) for value in values)])
            special = inputs.name == "NaN in the padding"
            found.append(Sample(inputs.name if special else label, (*tensors, *values)))
    return found


def arguments(inputs: Inputs, name: str) -> tuple[Any, ...]:
    v, q, lengths, videos = inputs.frames, inputs.queries, inputs.lengths, inputs.videos
    aligned = inputs.relevance, inputs.weights, lengths, videos
    by_name = {
        "gram_matrix": (v, lengths),
        "anchor_segment": (v, q, lengths, videos),
        "attention_pool": (v, inputs.alignment_vectors, inputs.segments, videos),
        "frame_alignment": (
            v,
            q,
            inputs.relevance_vectors,
            inputs.offsets,
            inputs.alignment_vectors,
            inputs.offsets.neg(),
            inputs.segments,
            lengths,
            videos,
        ),
        "aligned_frames": (v, q, *aligned),
        "aligned_similarity": (inputs.gram, inputs.query_dots, inputs.query_norms, *aligned),
    }
    return by_name[name]


def output_gradients(inputs: Inputs, name: str) -> tuple[Tensor, ...]:
    dtype, (count, frames) = inputs.frames.dtype, inputs.weights.shape
    dim = inputs.frames.shape[2]
    of_video = torch.arange(frames) < inputs.lengths[:, None]
    if name == "gram_matrix":
        both = of_video[:, :, None] & of_video[:, None]
        return (gradients(dtype, both, *both.shape),)
    valid = of_video[inputs.videos]
    everywhere = torch.ones((), dtype=torch.bool)
    per_frame = gradients(dtype, valid, count, frames)
    if name == "attention_pool":
        return gradients(dtype, everywhere, count, dim), gradients(dtype, everywhere, count, frames)
    if name == "frame_alignment":
        return per_frame, per_frame * 2, per_frame.neg()
    if name == "aligned_frames":
        return (gradients(dtype, valid[..., None], count, frames, dim),)
    return (gradients(dtype, valid[:, :, None] & valid[:, None], count, frames, frames),)


ONE, BOTH = [(True,), (False,)], [(True, True), (True, False), (False, True), (False, False)]
SWITCHES: dict[str, list[tuple[bool, ...]]] = {
    "gram_matrix": [()],
    "gram_matrix_backward": [()],
    "anchor_segment": BOTH,
    "attention_pool": [()],
    "attention_pool_backward": ONE,
    "frame_alignment": BOTH,
    "frame_alignment_backward": [
        *((*both, True, True) for both in BOTH),
        (True, True, False, False),
    ],
    "aligned_frames": [()],
    "aligned_frames_backward": ONE,
    "aligned_similarity": [()],
    "aligned_similarity_backward": ONE,
}
SAMPLES: dict[str, Samples] = {
    name: partial(samples, name, switches) for name, switches in SWITCHES.items()
}
DIFFERENTIABLE = [name for name in SWITCHES if f"{name}_backward" in SWITCHES]
