"""Anchor-aware feature alignment, from features to the similarity map, against the paper read literally.

python benchmarks/ops/bench_alignment.py --out benchmarks/results/alignment.md
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
