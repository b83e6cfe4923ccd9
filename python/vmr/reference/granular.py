"""GranAlign's scores and proposals in plain PyTorch (arXiv 2601.00584)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from vmr.reference.common import gradients, widened


def unit(vectors: Tensor) -> Tensor:
    """The vectors [..., D] at length one; a zero vector stays zero."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    zero = squared == 0
    return torch.where(zero, 0.0, vectors * torch.where(zero, 1.0, squared).rsqrt())


def similarity(cosines: Tensor, min_max: bool) -> Tensor:
    """g: the normalised cosines [Q, m, F] of each rewrite with the frames of the video."""
    if not min_max:
        return (1 + cosines) / 2
    low = cosines.amin(dim=-1, keepdim=True)
    span = cosines.amax(dim=-1, keepdim=True) - low
    constant = span <= 16 * torch.finfo(cosines.dtype).eps
    return torch.where(constant, 0.0, (cosines - low) / torch.where(constant, 1.0, span))


def granular_scores(
    simple: Tensor,
    detailed: Tensor,
    agnostic: Tensor,
    aware: Tensor,
    aware_frames: Tensor,
    aware_splits: Tensor,
    min_max: bool,
    agnostic_weight: float,
    aware_weight: float,
) -> Tensor:
    """S_f = agnostic_weight mean_i g(q_s_i, C_agn_f) + aware_weight mean_i g(q_d_i, C_awr_f)."""
    q_s, q_d = unit(widened(simple)), unit(widened(detailed))
    c_agn, c_awr = unit(widened(agnostic)), unit(widened(aware))
    simple_cosines = q_s @ c_agn.T
    detailed_cosines = q_d @ c_agn.T  # the fallback of frames without a caption of the query's own
    for query, (start, end) in enumerate(itertools.pairwise(aware_splits.tolist())):
        own = q_d[query] @ c_awr[start:end].T
        row = detailed_cosines[query].index_copy(1, aware_frames[start:end], own)
        detailed_cosines = detailed_cosines.index_copy(
            0, torch.tensor([query], device=row.device), row.unsqueeze(0)
        )
    scores = agnostic_weight * similarity(simple_cosines, min_max).mean(dim=1)
    scores = scores + aware_weight * similarity(detailed_cosines, min_max).mean(dim=1)
    return scores.to(simple.dtype)


def granular_scores_backward(
    score_gradients: Tensor,
    simple: Tensor,
    detailed: Tensor,
    agnostic: Tensor,
    aware: Tensor,
    aware_frames: Tensor,
    aware_splits: Tensor,
    min_max: bool,
    agnostic_weight: float,
    aware_weight: float,
) -> tuple[Tensor, ...]:
    """The gradients of the four embedding tensors."""
    tensors = (simple, detailed, agnostic, aware, aware_frames, aware_splits)
    settings = (min_max, agnostic_weight, aware_weight)
    return gradients(granular_scores, score_gradients, tensors, *settings)


def merged(scores: list[float], threshold: float, max_gap: int) -> list[tuple[int, int]]:
    """First and last frame of each run of high frames, gaps up to ``max_gap`` bridged."""
    spans: list[tuple[int, int]] = []
    for frame in (frame for frame, score in enumerate(scores) if score >= threshold):
        if spans and frame - spans[-1][1] - 1 <= max_gap:
            spans[-1] = (spans[-1][0], frame)
        else:
            spans.append((frame, frame))
    return spans


def mean(scores: list[float]) -> float:
    """The mean of those that are not NaN."""
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known)


def granular_proposals(
    scores: Tensor,
    lengths: Tensor,
    thresholds: Tensor,
    max_gap: int,
    drop_percent: float,
    length_weight: float,
    by_longest: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score(p) = (1 - lambda) mu_p + lambda rho_p of the proposals that are not dropped."""
    queries, frames = scores.shape
    slots = (frames + max_gap + 1) // (max_gap + 2)
    spans = torch.full((queries, slots, 2), -1)
    ranked = torch.full((queries, slots), -math.inf, dtype=torch.float64)
    means = torch.full((queries, slots), -math.inf, dtype=torch.float64)
    counts = torch.zeros(queries, dtype=torch.int64)
    for query, (row, length, threshold) in enumerate(
        zip(scores.double().tolist(), lengths.tolist(), thresholds.tolist(), strict=True)
    ):
        found = merged(row[:length], threshold, max_gap)
        mu = [mean(row[first : last + 1]) for first, last in found]
        # Lowest first, and of equal ones the later; NaN (of both infinities) is the lowest.
        order = sorted(
            range(len(found)), key=lambda p: (-math.inf if math.isnan(mu[p]) else mu[p], -p)
        )
        dropped = max(min(int(len(found) * drop_percent / 100), len(found) - 1), 0)
        kept = sorted(order[dropped:])
        sizes = [found[p][1] - found[p][0] + 1 for p in kept]
        longest = max(sizes, default=1) if by_longest else length
        for place, (p, size) in enumerate(zip(kept, sizes, strict=True)):
            spans[query, place] = torch.tensor(found[p])
            means[query, place] = mu[p]
            ranked[query, place] = (1 - length_weight) * mu[p] + length_weight * size / longest
        counts[query] = len(kept)
    device, dtype = scores.device, scores.dtype
    return (
        spans.to(device),
        ranked.to(dtype).to(device),
        means.to(dtype).to(device),
        counts.to(device),
    )
