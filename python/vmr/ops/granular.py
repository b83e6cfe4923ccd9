"""GranAlign's frame scores and moment proposals (arXiv 2601.00584)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vmr.errors import InputError
from vmr.ops._library import register
from vmr.reference import granular as reference

Normalization = Literal["cosine", "min_max"]
LengthNormalization = Literal["duration", "max"]


def granular_scores(
    simple: Tensor,
    detailed: Tensor,
    agnostic: Tensor,
    aware: Tensor,
    aware_frames: Tensor,
    aware_splits: Tensor,
    *,
    normalization: Normalization = "cosine",
    agnostic_weight: float = 0.5,
    aware_weight: float = 0.5,
) -> Tensor:
    """Score every frame of a video for every query, by both granularities.

    The paper's equation, with both weights 1/2::

        S_f = 1 / (2 m) * sum_i [ g(q_s_i, C_agn_f) + g(q_d_i, C_awr_f) ]

    where g is the normalised cosine: (1 + cos) / 2, or with "min_max" each rewrite's cosines
    stretched over the video to [0, 1], which makes a rewrite whose cosines are all the same (to
    rounding) contribute 0. Embeddings need not have length one; a zero vector's cosine is 0. A frame
    without a query-aware caption falls back to its query-agnostic one. As (1 + cos) / 2 is affine, a
    query's m rewrites fold into one vector, and a caption is read once.

    Args:
        simple: [Q, m, D] embeddings of the m simplified rewrites of each query; m, D >= 1, Q may be 0.
            float32, float64, float16 or bfloat16 (these two are accumulated in float32).
        detailed: [Q, m, D] of the detailed rewrites, of the same dtype, as all embeddings.
        agnostic: [F, D] of the frames' query-agnostic captions; F >= 1.
        aware: [R, D] of the query-aware captions, query after query; R may be 0.
        aware_frames: [R] int64, the frame of each row of ``aware``, ascending within a query.
        aware_splits: [Q + 1] int64; rows ``aware_splits[q]`` to ``aware_splits[q + 1]`` are query q's.
        normalization: "cosine" or "min_max".
        agnostic_weight: of the simplified rewrites with the query-agnostic captions.
        aware_weight: of the detailed rewrites with the query-aware captions. (1, 0) and (0, 1) are
            the paper's single channels.

    Returns:
        [Q, F] scores in the dtype of ``simple``. Differentiable in the four embedding tensors.

    Under autocast: float32.
    """
    scores: Tensor = torch.ops.vmr.granular_scores(
        simple,
        detailed,
        agnostic,
        aware,
        aware_frames,
        aware_splits,
        _choice("granular_scores", "normalization", normalization, ("cosine", "min_max")) == 1,
        agnostic_weight,
        aware_weight,
    )
    return scores


def granular_proposals(
    scores: Tensor,
    lengths: Tensor,
    thresholds: Tensor,
    *,
    max_gap: int,
    drop_percent: float,
    length_weight: float = 0.3,
    length_normalization: LengthNormalization = "duration",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merge high-scoring frames into proposals, drop the weakest, and score what is left.

    A frame is high if its score is at least its query's threshold. High frames with at most
    ``max_gap`` other frames between them belong to one proposal. mu is the mean score of all its
    frames, those of bridged gaps included. A NaN score is never high and no part of mu. Of a query's
    proposals the ``drop_percent`` % with the lowest mu are dropped (rounded down, never all; of equal
    ones the later). The rest are scored as in the paper::

        Score(p) = (1 - lambda) * mu_p + lambda * rho_p

    Args:
        scores: [Q, F] frame scores, F >= 1; float32, float64, float16 or bfloat16.
        lengths: [Q] int64, how many frames of each row count, 0 to F. What lies beyond changes nothing.
        thresholds: [Q], in the dtype of ``scores``.
        max_gap: tau, in frames; 0 merges neighbours only.
        drop_percent: n, 0 to 100.
        length_weight: lambda, 0 to 1.
        length_normalization: rho is a proposal's length over that of its video ("duration"), or over
            that of the longest kept proposal of its query ("max").

    Returns:
        ``(spans, scores, means, counts)``: spans [Q, P, 2] int64, first and last frame (both
        included), in the order of time; scores and means [Q, P] in the dtype of ``scores``; counts
        [Q] int64. P = ceil(F / (max_gap + 2)) slots are always enough; those after the count hold
        -1 and -inf.

    Not differentiable. Under autocast: float32.
    """
    choice = _choice(
        "granular_proposals", "length_normalization", length_normalization, ("duration", "max")
    )
    spans, ranked, means, counts = torch.ops.vmr.granular_proposals(
        scores.detach(),
        lengths,
        thresholds.detach(),
        max_gap,
        drop_percent,
        length_weight,
        choice == 1,
    )
    return spans, ranked, means, counts


def _choice(op: str, parameter: str, value: str, choices: tuple[str, ...]) -> int:
    if value not in choices:
        raise InputError(f"{op}: {parameter} must be one of {', '.join(choices)}, got {value!r}")
    return choices.index(value)


def proposal_slots(frames: int, max_gap: int) -> int:
    """P, which proposals of a video of this many frames never exceed."""
    return (frames + max_gap + 1) // (max_gap + 2)


def _fake_scores(simple: Tensor, detailed: Tensor, agnostic: Tensor, *_: Any) -> Tensor:
    return simple.new_empty(simple.shape[0], agnostic.shape[0])


def _fake_scores_backward(
    score_gradients: Tensor,
    simple: Tensor,
    detailed: Tensor,
    agnostic: Tensor,
    aware: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (simple, detailed, agnostic, aware))


def _fake_proposals(
    scores: Tensor, lengths: Tensor, thresholds: Tensor, max_gap: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    queries, frames = scores.shape
    slots = proposal_slots(frames, max_gap)
    return (
        lengths.new_empty(queries, slots, 2),
        scores.new_empty(queries, slots),
        scores.new_empty(queries, slots),
        lengths.new_empty(queries),
    )


def _backward(context: Any, score_gradients: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.vmr.granular_scores_backward(
        score_gradients, *context.saved_tensors, *context.settings
    )
    return (*gradients, None, None, None, None, None)


register(
    "granular_scores",
    reference=reference.granular_scores,
    fake=_fake_scores,
    backward=_backward,
)
register(
    "granular_scores_backward",
    reference=reference.granular_scores_backward,
    fake=_fake_scores_backward,
)
register("granular_proposals", reference=reference.granular_proposals, fake=_fake_proposals)
