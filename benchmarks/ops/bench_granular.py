"""Granular scores, and proposals with NMS, of a 10-hour video for 8 queries.

python benchmarks/ops/bench_granular.py --out benchmarks/results/granular.md
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr import ops

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import Comparison, main

QUERIES, REWRITES, FRAMES, DIM = 8, 3, 36_000, 384
OWN = FRAMES // 5
MAX_GAP, DROP_PERCENT, LENGTH_WEIGHT, NMS_IOU, TOP_K = 2, 20.0, 0.3, 0.5, 10

Array = NDArray[Any]


def embeddings() -> tuple[Tensor, ...]:
    """Captions as of scenes of some 10 s that hold a common vector, and queries akin to some scene."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    scene_of = (torch.rand(FRAMES, generator=random) < 0.1).cumsum(0)
    scenes = draw(int(scene_of.max()) + 1, DIM)
    agnostic = scenes[scene_of] + 0.5 * draw(FRAMES, DIM)
    wanted = scenes[torch.randint(len(scenes), (QUERIES,), generator=random)].unsqueeze(1)
    frames = [torch.randperm(FRAMES, generator=random)[:OWN].sort().values for _ in range(QUERIES)]
    aware = torch.cat([agnostic[own] + 0.5 * draw(OWN, DIM) for own in frames])
    return (
        wanted + draw(QUERIES, REWRITES, DIM),
        wanted + draw(QUERIES, REWRITES, DIM),
        agnostic,
        aware,
        torch.cat(frames),
        torch.arange(QUERIES + 1) * OWN,
    )


# ---- frame scores: NumPy and PyTorch, literally and folded ----


def numpy_literal(s: Array, d: Array, c: Array, a: Array, frames: Array, splits: Array) -> Array:
    def unit(x: Array) -> Array:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    s, d, c, a = unit(s), unit(d), unit(c), unit(a)
    g_s = (1 + s.reshape(-1, DIM) @ c.T).reshape(QUERIES, REWRITES, FRAMES) / 2
    g_d = (1 + d.reshape(-1, DIM) @ c.T).reshape(QUERIES, REWRITES, FRAMES) / 2
    for q in range(QUERIES):
        rows = slice(splits[q], splits[q + 1])
        g_d[q][:, frames[rows]] = (1 + d[q] @ a[rows].T) / 2
    return (g_s.sum(1) + g_d.sum(1)) / (2 * REWRITES)


def numpy_folded(s: Array, d: Array, c: Array, a: Array, frames: Array, splits: Array) -> Array:
    def fold(x: Array) -> Array:
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).mean(1)

    def inverse_norms(x: Array) -> Array:
        return 1 / np.sqrt(np.einsum("nd,nd->n", x, x))

    vectors = np.concatenate([fold(s), fold(d)])
    cosines = (vectors @ c.T) * inverse_norms(c)
    of_rows = inverse_norms(a)
    for q in range(QUERIES):
        rows = slice(splits[q], splits[q + 1])
        cosines[QUERIES + q, frames[rows]] = (a[rows] @ vectors[QUERIES + q]) * of_rows[rows]
    return 0.5 + (cosines[:QUERIES] + cosines[QUERIES:]) / 4


def torch_literal(
    s: Tensor, d: Tensor, c: Tensor, a: Tensor, frames: Tensor, splits: list[int]
) -> Tensor:
    unit = torch.nn.functional.normalize
    s, d, c, a = unit(s, dim=-1), unit(d, dim=-1), unit(c, dim=-1), unit(a, dim=-1)
    g_s = (1 + (s.flatten(0, 1) @ c.T).view(QUERIES, REWRITES, FRAMES)) / 2
    g_d = (1 + (d.flatten(0, 1) @ c.T).view(QUERIES, REWRITES, FRAMES)) / 2
    for q in range(QUERIES):
        rows = slice(splits[q], splits[q + 1])
        g_d[q].index_copy_(1, frames[rows], (1 + d[q] @ a[rows].T) / 2)
    return (g_s.sum(1) + g_d.sum(1)) / (2 * REWRITES)


def torch_folded(
    s: Tensor, d: Tensor, c: Tensor, a: Tensor, frames: Tensor, splits: list[int]
) -> Tensor:
    unit = torch.nn.functional.normalize
    vectors = torch.cat([unit(s, dim=-1).mean(1), unit(d, dim=-1).mean(1)])
    cosines = (vectors @ c.T) / torch.linalg.vector_norm(c, dim=1)
    of_rows = torch.linalg.vector_norm(a, dim=1)
    for q in range(QUERIES):
        rows = slice(splits[q], splits[q + 1])
        cosines[QUERIES + q, frames[rows]] = (a[rows] @ vectors[QUERIES + q]) / of_rows[rows]
    return 0.5 + (cosines[:QUERIES] + cosines[QUERIES:]) / 4


# ---- proposals and NMS: NumPy and PyTorch, vectorised over frames, proposals and queries ----


def numpy_proposals(scores: Array, thresholds: Array) -> list[list[tuple[int, int]]]:
    query, frame = np.nonzero(scores >= thresholds[:, None])
    begins = np.flatnonzero(
        (np.diff(frame, prepend=-FRAMES) > MAX_GAP + 1) | (np.diff(query, prepend=-1) != 0)
    )
    ends = np.append(begins[1:], len(frame)) - 1
    query, first, last = query[begins], frame[begins], frame[ends]
    # reduceat sums from each bound to the next: every other sum is a proposal's.
    bounds = np.stack([query * FRAMES + first, query * FRAMES + last + 1], axis=1).ravel()
    flat = np.append(scores.ravel(), np.float32(0))
    size = last - first + 1
    mean = np.add.reduceat(flat, bounds, dtype=np.float64)[::2] / size
    counts = np.bincount(query, minlength=QUERIES)
    offsets = np.cumsum(counts) - counts
    order = np.lexsort((-first, mean, query))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    kept = rank - offsets[query] >= (counts * DROP_PERCENT / 100).astype(np.int64)[query]
    query, first, last, mean, size = query[kept], first[kept], last[kept], mean[kept], size[kept]
    score = (1 - LENGTH_WEIGHT) * mean + LENGTH_WEIGHT * size / FRAMES
    return [numpy_nms(first[own], last[own], score[own]) for own in numpy_groups(query)]


def numpy_groups(query: Array) -> list[slice]:
    edges = np.searchsorted(query, np.arange(QUERIES + 1))
    return [slice(start, stop) for start, stop in pairwise(edges)]


def numpy_nms(first: Array, last: Array, score: Array) -> list[tuple[int, int]]:
    order = np.argsort(-score, kind="stable")
    start, end = first[order].astype(np.float64), last[order] + 1.0
    found: list[tuple[int, int]] = []
    while len(order) and len(found) < TOP_K:
        found.append((int(first[order[0]]), int(last[order[0]])))
        inter = np.clip(np.minimum(end, end[0]) - np.maximum(start, start[0]), 0, None)
        free = inter <= NMS_IOU * (end - start + end[0] - start[0] - inter)
        free[0] = False
        order, start, end = order[free], start[free], end[free]
    return found


def torch_proposals(scores: Tensor, thresholds: Tensor) -> list[list[tuple[int, int]]]:
    query, frame = torch.nonzero(scores >= thresholds.unsqueeze(1), as_tuple=True)
    begins = torch.ones(len(frame), dtype=torch.bool)
    begins[1:] = (frame.diff() > MAX_GAP + 1) | (query.diff() != 0)
    begins = begins.nonzero().squeeze(1)
    ends = torch.cat([begins[1:], torch.tensor([len(frame)])]) - 1
    query, first, last = query[begins], frame[begins], frame[ends]
    sums = torch.zeros(QUERIES * FRAMES + 1, dtype=torch.float64)
    torch.cumsum(scores.flatten(), 0, dtype=torch.float64, out=sums[1:])
    size = last - first + 1
    mean = (sums[query * FRAMES + last + 1] - sums[query * FRAMES + first]) / size
    counts = torch.bincount(query, minlength=QUERIES)
    order = mean.argsort(stable=True)
    order = order[query[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    rank -= (counts.cumsum(0) - counts)[query]
    kept = rank >= (counts * DROP_PERCENT / 100).long()[query]
    query, first, last, mean, size = query[kept], first[kept], last[kept], mean[kept], size[kept]
    score = (1 - LENGTH_WEIGHT) * mean + LENGTH_WEIGHT * size / FRAMES
    counts = torch.bincount(query, minlength=QUERIES).tolist()
    groups = zip(first.split(counts), last.split(counts), score.split(counts), strict=True)
    return [torch_nms(*group) for group in groups]


def torch_nms(first: Tensor, last: Tensor, score: Tensor) -> list[tuple[int, int]]:
    order = score.argsort(descending=True, stable=True)
    start, end = first[order].double(), last[order] + 1.0
    found: list[tuple[int, int]] = []
    while len(order) and len(found) < TOP_K:
        found.append((int(first[order[0]]), int(last[order[0]])))
        inter = (torch.minimum(end, end[0]) - torch.maximum(start, start[0])).clamp(min=0)
        free = inter <= NMS_IOU * (end - start + end[0] - start[0] - inter)
        free[0] = False
        order, start, end = order[free], start[free], end[free]
    return found


def vmr_proposals(scores: Tensor, thresholds: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    spans, ranked, _, counts = ops.granular_proposals(
        scores, lengths, thresholds, max_gap=MAX_GAP, drop_percent=DROP_PERCENT,
        length_weight=LENGTH_WEIGHT,
    )  # fmt: skip
    most = int(counts.max())
    spans, ranked = spans[:, :most], ranked[:, :most]
    seconds = spans + torch.tensor([0.0, 1.0])
    kept, kept_counts = ops.span_nms(seconds, ranked, counts, iou_threshold=NMS_IOU, top_k=TOP_K)
    return spans.gather(1, kept.clamp(min=0).unsqueeze(-1).expand(-1, -1, 2)), kept_counts


def comparisons() -> list[Comparison]:
    """What is measured, after all contenders were found to agree."""
    tensors = embeddings()
    arrays = [tensor.numpy() for tensor in tensors]
    splits = tensors[5].tolist()
    scores = ops.granular_scores(*tensors)
    for other in (numpy_literal(*arrays), numpy_folded(*arrays)):
        torch.testing.assert_close(scores, torch.from_numpy(other), rtol=0, atol=1e-5)
    for other in (torch_literal(*tensors[:5], splits), torch_folded(*tensors[:5], splits)):
        torch.testing.assert_close(scores, other, rtol=0, atol=1e-5)

    deviation, mean = torch.std_mean(scores, dim=1)
    thresholds = mean + 0.5 * deviation
    lengths = torch.full((QUERIES,), FRAMES)
    found, counts = vmr_proposals(scores, thresholds, lengths)
    ours = [
        [tuple(span) for span in row[:count]]
        for row, count in zip(found.tolist(), counts.tolist(), strict=True)
    ]
    score_array, threshold_array = scores.numpy(), thresholds.numpy()
    assert ours == numpy_proposals(score_array, threshold_array)
    assert ours == torch_proposals(scores, thresholds)

    flat = [tensor.flatten() for tensor in tensors[:4]]
    return [
        Comparison(
            "frame scores",
            {
                "reading the inputs once (torch.sum)": lambda: [x.sum() for x in flat],
                "vmr": lambda: ops.granular_scores(*tensors),
                "PyTorch, folded": lambda: torch_folded(*tensors[:5], splits),
                "PyTorch, literal": lambda: torch_literal(*tensors[:5], splits),
                "NumPy, folded": lambda: numpy_folded(*arrays),
                "NumPy, literal": lambda: numpy_literal(*arrays),
            },
            repeats=15,
        ),
        Comparison(
            "proposals and NMS",
            {
                "vmr": lambda: vmr_proposals(scores, thresholds, lengths),
                "NumPy, vectorised": lambda: numpy_proposals(score_array, threshold_array),
                "PyTorch, vectorised": lambda: torch_proposals(scores, thresholds),
            },
            repeats=40,
        ),
    ]


if __name__ == "__main__":
    main(
        "Granular scores, proposals and NMS: 36,000 frames, m = 3, 384-d, 8 queries, 20% query-aware",
        comparisons,
        __file__,
    )
