"""Anchor-aware feature alignment, from features to the similarity map, against the paper read literally.

python benchmarks/ops/bench_alignment.py --out benchmarks/results/alignment.md
"""

from __future__ import annotations

import resource
import subprocess
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

FRAMES, DIM = 75, 512


class Weights(NamedTuple):
    """The paper's matrices, applied as ``x @ matrix.T``, and its two scales."""

    q_g: Tensor
    k_g: Tensor
    v_g: Tensor
    w1_r: Tensor
    w2_r: Tensor
    w1_a: Tensor
    w2_a: Tensor
    scale: Tensor
    beta: Tensor


class Features(NamedTuple):
    """[U, N, D] frames, [B, D] queries, [U] lengths and [B] videos."""

    frames: Tensor
    queries: Tensor
    lengths: Tensor
    videos: Tensor


def draw_weights() -> Weights:
    random = torch.Generator().manual_seed(1)
    matrices = [torch.randn(DIM, DIM, generator=random) / DIM**0.5 for _ in range(7)]
    return Weights(*matrices, torch.tensor(0.1), torch.tensor(0.2))


def draw_features(videos: int, queries: int, frames: int) -> Features:
    """Scenes of some ten frames that hold a common vector, and queries akin to one of them."""
    random = torch.Generator().manual_seed(2)
    scenes = torch.randn(videos, frames // 10 + 1, DIM, generator=random)
    of_frame = torch.arange(frames) // 10
    v = scenes[:, of_frame] + torch.randn(videos, frames, DIM, generator=random)
    about = torch.arange(queries) % videos
    q = scenes[about, scenes.shape[1] // 2] + torch.randn(queries, DIM, generator=random)
    unit = F.normalize
    return Features(unit(v, dim=-1), unit(q, dim=-1), torch.full((videos,), frames), about)


# ---- the paper read literally: one video a query, no padding, every sum vectorised ----


def literal_segment(frames: Tensor, queries: Tensor) -> Tensor:
    """Eqs. 1 to 5."""
    count = frames.shape[1]
    q = F.normalize(queries, dim=-1)[:, None]
    v = F.normalize(frames, dim=-1)
    cosine = (v @ q.mT).clamp(-1, 1)
    embedded = F.normalize(cosine * q + (1 - cosine) * v, dim=-1)
    anchor = (embedded @ q.mT).squeeze(-1).argmax(1)
    places = torch.stack((torch.zeros_like(anchor), anchor, torch.full_like(anchor, count - 1)), 1)
    three = embedded.take_along_dim(places[..., None], 1)
    to_first, to_anchor, to_last = (three @ embedded.mT).unbind(1)
    index = torch.arange(count)
    until, after = index <= anchor[:, None], index > anchor[:, None]
    left = (to_first - to_anchor).masked_fill(index == 0, 0).cumsum(1)
    right = (to_anchor - to_last).masked_fill(~after, 0).cumsum(1)
    start = left.masked_fill(~until, -torch.inf).argmax(1)
    end = right.masked_fill(index < anchor[:, None], -torch.inf).argmax(1)
    return torch.stack((start, end), 1)


def literal_mask(segments: Tensor, count: int) -> Tensor:
    """Eq. 6."""
    index = torch.arange(count)
    inside = (index >= segments[:, :1]) & (index <= segments[:, 1:])
    return torch.zeros(inside.shape).masked_fill(~inside, -torch.inf)


def literal_alignment(weights: Weights, frames: Tensor, queries: Tensor, mask: Tensor) -> Tensor:
    """Eqs. 7 to 13: the similarity map S^a."""
    w = weights
    key, value = F.linear(frames, w.k_g), F.linear(frames, w.v_g)
    attention = (key @ F.linear(queries, w.q_g)[..., None]).squeeze(-1) + mask
    g = (attention.softmax(1)[:, None] @ value).squeeze(1)
    compared = (F.linear(frames, w.w1_r) @ F.linear(g, w.w2_r)[..., None]).squeeze(-1)
    reweighted = torch.tanh(w.scale * compared + w.beta)[..., None] * frames
    scores = (F.linear(reweighted, w.w1_a) @ F.linear(queries, w.w2_a)[..., None]).squeeze(-1)
    alpha = torch.sigmoid(scores + mask)[..., None]
    aligned = F.normalize(alpha * queries[:, None] + (1 - alpha) * reweighted, dim=-1)
    return aligned @ aligned.mT


def literal(weights: Weights, features: Features) -> Tensor:
    frames, queries = features.frames[features.videos], features.queries
    with torch.no_grad():
        mask = literal_mask(literal_segment(frames, queries), frames.shape[1])
    return literal_alignment(weights, frames, queries, mask)


# ---- the same with the operators ----


class Merged(NamedTuple):
    """Products of the weights, kept between calls: u = q to_u^T, z = pooled to_z^T, y = q to_y^T."""

    to_u: Tensor
    to_z: Tensor
    to_y: Tensor


def merge(w: Weights) -> Merged:
    return Merged(w.k_g.T @ w.q_g, w.scale * (w.w1_r.T @ (w.w2_r @ w.v_g)), w.w1_a.T @ w.w2_a)


def aligned(
    weights: Weights | Merged, features: Features, segments: Tensor, gram: Tensor | None = None
) -> Tensor:
    """Eqs. 7 to 13, with every product on the query's side."""
    frames, queries, lengths, videos = features
    w = weights
    offset = queries.new_zeros(queries.shape[0])
    if isinstance(w, Merged):
        u, y = F.linear(queries, w.to_u), F.linear(queries, w.to_y)
        pooled, _ = ops.attention_pool(frames, u, segments, videos)
        z, beta = F.linear(pooled, w.to_z), offset + 0.2
    else:
        u = torch.mm(F.linear(queries, w.q_g), w.k_g)
        y = torch.mm(F.linear(queries, w.w2_a), w.w1_a)
        pooled, _ = ops.attention_pool(frames, u, segments, videos)
        z = w.scale * torch.mm(F.linear(F.linear(pooled, w.v_g), w.w2_r), w.w1_r)
        beta = w.beta.expand(queries.shape[0])
    relevance, alpha, dots = ops.frame_alignment(
        frames, queries, z, beta, y, offset, segments, lengths, videos
    )
    if gram is None:
        gram = ops.gram_matrix(frames, lengths)
    norms = queries.square().sum(1)
    return ops.aligned_similarity(gram, dots, norms, relevance, alpha, lengths, videos)


def segments_of(features: Features) -> Tensor:
    return ops.anchor_segment(*features)[1]


def vmr(weights: Weights | Merged, features: Features, gram: Tensor | None = None) -> Tensor:
    return aligned(weights, features, segments_of(features), gram)


def with_gradients(
    run: Callable[[Weights], Tensor], weights: Weights, gradient: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(run(weights), weights, gradient)


# ---- the tables ----


def agree(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-4)


@torch.no_grad()
def forward(batch: int) -> list[Comparison]:
    weights = draw_weights()
    merged, features = merge(weights), draw_features(batch, batch, FRAMES)
    frames, queries, lengths, _ = features
    segments, gram = segments_of(features), ops.gram_matrix(frames, lengths)
    mask = literal_mask(segments, FRAMES)
    for found in (vmr(weights, features), vmr(merged, features, gram)):
        agree(found, literal(weights, features))
    compiled = torch.compile(literal_alignment)
    agree(
        compiled(weights, frames, queries, mask), literal_alignment(weights, frames, queries, mask)
    )

    def run(function: Callable[..., Tensor], *arguments: object) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: function(*arguments))

    return [
        Comparison(
            f"features and segment to S^a, B = {batch}",
            {
                "vmr": run(aligned, weights, features, segments),
                "vmr, Gram matrix given": run(aligned, weights, features, segments, gram),
                "vmr, and weights merged": run(aligned, merged, features, segments, gram),
                "PyTorch, literal": run(literal_alignment, weights, frames, queries, mask),
                "PyTorch, literal, compiled": run(compiled, weights, frames, queries, mask),
            },
        ),
        Comparison(
            f"features to S^a, B = {batch}",
            {
                "vmr": run(vmr, weights, features),
                "vmr, Gram matrix given": run(vmr, weights, features, gram),
                "vmr, and weights merged": run(vmr, merged, features, gram),
                "PyTorch, literal": run(literal, weights, features),
            },
        ),
    ]


def training(batch: int) -> Comparison:
    weights = Weights(*(weight.requires_grad_() for weight in draw_weights()))
    features = draw_features(batch, batch, FRAMES)
    random = torch.Generator().manual_seed(3)
    gradient = torch.randn(batch, FRAMES, FRAMES, generator=random)

    def run(forward: Callable[[Weights, Features], Tensor]) -> tuple[Tensor, ...]:
        return with_gradients(lambda given: forward(given, features), weights, gradient)

    for found, wanted in zip(run(vmr), run(literal), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3)
    return Comparison(
        f"features to S^a and back to the weights, B = {batch}",
        {"vmr": lambda: run(vmr), "PyTorch, literal": lambda: run(literal)},
        repeats=15,
    )


def anchors(batch: int) -> Comparison:
    features = draw_features(batch, batch, FRAMES)
    frames, queries = features.frames, features.queries
    same = (segments_of(features) == literal_segment(frames, queries)).float().mean()
    assert same > 0.99  # others are ties but for rounding
    return Comparison(
        f"anchor, segment and mask, B = {batch}",
        {
            "vmr": lambda: literal_mask(segments_of(features), FRAMES),
            "PyTorch, vectorised": lambda: literal_mask(literal_segment(frames, queries), FRAMES),
            "reading the frames once (torch.sum)": frames.sum,
        },
    )


@torch.no_grad()
def several_queries(queries: int, frames: int) -> Comparison:
    """Queries about one video: the literal version has its frames once a query."""
    weights, features = draw_weights(), draw_features(1, queries, frames)
    return Comparison(
        f"features to S^a, {queries} quer{'y' if queries == 1 else 'ies'} of {frames:,} frames",
        {
            "vmr": torch.no_grad()(lambda: vmr(weights, features)),
            "PyTorch, literal": torch.no_grad()(lambda: literal(weights, features)),
        },
        repeats=5,
    )


def comparisons() -> list[Comparison]:
    return [
        anchors(128),
        *forward(32),
        *forward(1),
        training(32),
        training(1),
        *(several_queries(1, frames) for frames in (50, 300, 900, 3600)),
        several_queries(32, 1800),
    ]


# ---- memory, each in a process of its own ----


def peak(by: str, queries: int, frames: int) -> None:
    """Prints by how much a run raises the process's largest size, in MB."""
    torch.set_num_threads(1)
    weights, features = draw_weights(), draw_features(1, queries, frames)
    with torch.no_grad():
        small = draw_features(1, 1, 2)
        (vmr if by == "vmr" else literal)(weights, small)  # what libraries set up on first use
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (vmr if by == "vmr" else literal)(weights, features)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def memory_table() -> list[str]:
    lines = ["", "## Peak memory of a forward pass, MB", ""]
    lines += ["| queries of a video | frames | vmr | PyTorch, literal |", "|---:|---:|---:|---:|"]
    for queries, frames in ((1, 900), (1, 3600), (32, 1800)):
        found = [
            float(
                subprocess.run(
                    [sys.executable, __file__, "--peak", by, str(queries), str(frames)],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout
            )
            for by in ("vmr", "literal")
        ]
        lines.append(f"| {queries} | {frames:,} | {found[0]:.0f} | {found[1]:.0f} |")
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(
            f"Feature alignment (A2FA): D = {DIM}, N = {FRAMES} where not said",
            comparisons,
            __file__,
            memory_table,
        )
