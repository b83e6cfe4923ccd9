"""Background-aware moment detection (Jung et al., WACV 2025, equations 5 to 10, 15 and 16).

What lies behind a length, NaN included, changes nothing. All floating-point arguments of an operator
have one dtype: float32, float64, float16 or bfloat16 (these two are computed in float32). Frames and
features may be a view of a longer memory, as ``memory[:, :N]`` is: it is not copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vmr.ops._library import call, register
from vmr.reference import background as reference


def frame_attention(
    frames: Tensor,
    hidden_weight: Tensor,
    score_weight: Tensor,
    lengths: Tensor,
    negative: Tensor | None = None,
    *,
    official_padding: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How likely each frame is under a query and not under another, and the frames weighted by it.

    The paper's eqs. 5 to 8::

        PFM(f) = sigmoid(tanh(f W_1) W_2)
        p_i    = PFM(v+_i) (1 - PFM(v-_i)), or PFM(v+_i) where there is no negative query
        o      = softmax(p),  v'_i = o_i v+_i

    Args:
        frames: [B, N, D] v+, encoded with the positive queries; N, D >= 1, B may be 0.
        hidden_weight: [H, D] W_1 as torch.nn.Linear has it, transposed; H >= 1.
        score_weight: [H] W_2.
        lengths: [B] int64, how many frames a video has, 1 to N.
        negative: [B, N, D] v-, the same frames encoded with the negative queries.
        official_padding: True repeats the official code, whose softmax counts each padded row with
            p = 0: such rows then have attention, and ``attended`` holds them, as ``frames`` does.

    Returns:
        ``(attended, joint, positive, attention)``: [B, N, D] v', and [B, N] each p, PFM(v+) and o.
        Zeros in the padding. Differentiable in ``frames``, ``negative`` and both weights.

    Raises:
        RuntimeError: shapes, dtypes or lengths that do not fit.

    Under autocast: float32.
    """
    if negative is None:
        negative = frames.new_empty(0, *frames.shape[1:])
    attended, joint, positive, attention, *_ = call(
        torch.ops.vmr.frame_attention,
        frames,
        hidden_weight,
        score_weight,
        lengths,
        negative,
        official_padding,
    )
    return attended, joint, positive, attention


def attentive_pool(features: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """The mean of each sequence's rows by the softmax of their scores; eqs. 9 and 10.

    ::

        a = softmax(scores),  pooled = sum_n a_n features_n

    where the paper's scores are v' W_v and q' W_q.

    Args:
        features: [B, N, D]; N, D >= 1, B may be 0.
        scores: [B, N].
        lengths: [B] int64, how many rows count, 0 to N.

    Returns:
        [B, D], zeros where the length is 0. Differentiable in ``features`` and ``scores``.

    Raises:
        RuntimeError: shapes, dtypes or lengths that do not fit.

    Under autocast: float32.
    """
    pooled: Tensor = call(torch.ops.vmr.attentive_pool, features, scores, lengths)
    return pooled


def margin_loss(
    scores: Tensor, windows: Tensor, counts: Tensor, lengths: Tensor, *, margin: float = 0.2
) -> Tensor:
    """Frames of the moments score higher than others by a margin; eq. 15.

    ::

        L = mean over i in the foreground, j in the background of max(0, margin + s_j - s_i)

    The paper does not say which two frames it compares: this is the mean over all pairs, which is what
    sampling one expects. The foreground are the rows below the length that lie in a window, the
    background the other rows below the length.

    Args:
        scores: [B, N] s; N >= 1, B may be 0.
        windows: [B, M, 2] int64, first and last row (both included) of a video's moments, which may
            overlap: 0 <= first <= last < N.
        counts: [B] int64, how many of the M windows count, 0 to M.
        lengths: [B] int64, how many rows a video has, 0 to N.
        margin: the paper's Delta.

    Returns:
        [B], 0 where foreground or background is empty. Differentiable in ``scores``; where a pair is
        just at the margin its gradient is 0.

    Raises:
        RuntimeError: shapes, dtypes, windows, counts or lengths that do not fit.

    Under autocast: float32.
    """
    losses: Tensor = call(torch.ops.vmr.margin_loss, scores, windows, counts, lengths, margin)
    return losses


def probability_loss(joint: Tensor, windows: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
    """Frames of the moments are likely, and others are not; eq. 16.

    ::

        L = 1 - mean of p in the foreground + mean of p in the background

    An empty background has the mean 0. Without any foreground there is nothing to be likely, and the
    loss is 0.

    Args:
        joint: [B, N] p, see :func:`frame_attention`; N >= 1, B may be 0.
        windows: [B, M, 2] int64, as in :func:`margin_loss`.
        counts: [B] int64, how many of the M windows count, 0 to M.
        lengths: [B] int64, how many rows a video has, 0 to N.

    Returns:
        [B]. Differentiable in ``joint``.

    Raises:
        RuntimeError: shapes, dtypes, windows, counts or lengths that do not fit.

    Under autocast: float32.
    """
    losses: Tensor = call(torch.ops.vmr.probability_loss, joint, windows, counts, lengths)
    return losses


# ---- fake kernels ----


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fake_frame_attention(
    frames: Tensor, hidden_weight: Tensor, score_weight: Tensor, lengths: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    negative, _ = others
    hidden, wide = hidden_weight.shape[0], _wide(frames.dtype)
    return (
        frames.new_empty(frames.shape),
        *(frames.new_empty(frames.shape[:2]) for _ in range(3)),
        *(frames.new_empty(*x.shape[:2], hidden, dtype=wide) for x in (frames, negative)),
    )


def _fake_frame_attention_backward(*arguments: Any) -> tuple[Tensor, ...]:
    frames, hidden_weight, score_weight, _, negative = arguments[4:9]
    return tuple(x.new_empty(x.shape) for x in (frames, hidden_weight, score_weight, negative))


def _fake_attentive_pool(features: Tensor, *_: Any) -> Tensor:
    return features.new_empty(features.shape[0], features.shape[2])


def _fake_attentive_pool_backward(
    output_gradients: Tensor, features: Tensor, scores: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    return features.new_empty(features.shape), scores.new_empty(scores.shape)


def _fake_loss(scores: Tensor, *_: Any) -> Tensor:
    return scores.new_empty(scores.shape[0])


def _fake_loss_backward(output_gradients: Tensor, scores: Tensor, *_: Any) -> Tensor:
    return scores.new_empty(scores.shape)


# ---- gradients ----


def _frame_attention_backward(context: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    frames = context.saved_tensors[0]
    shapes = (frames.shape, *[frames.shape[:2]] * 3)
    whole = [
        frames.new_zeros(shape) if gradient is None else gradient
        for gradient, shape in zip(gradients, shapes, strict=False)
    ]
    to_frames, to_hidden_weight, to_score_weight, to_negative = (
        torch.ops.vmr.frame_attention_backward(*whole, *context.saved_tensors, *context.settings)
    )
    return to_frames, to_hidden_weight, to_score_weight, None, to_negative, None


def _attentive_pool_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.vmr.attentive_pool_backward(gradients, *context.saved_tensors), None


def _margin_loss_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    to_scores = torch.ops.vmr.margin_loss_backward(
        gradients, *context.saved_tensors, *context.settings
    )
    return to_scores, None, None, None, None


def _probability_loss_backward(context: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    to_joint = torch.ops.vmr.probability_loss_backward(gradients, *context.saved_tensors)
    return to_joint, None, None, None


register(
    "frame_attention",
    reference=reference.frame_attention,
    fake=_fake_frame_attention,
    backward=_frame_attention_backward,
    kept=2,
)
register(
    "frame_attention_backward",
    reference=reference.frame_attention_backward,
    fake=_fake_frame_attention_backward,
)
register(
    "attentive_pool",
    reference=reference.attentive_pool,
    fake=_fake_attentive_pool,
    backward=_attentive_pool_backward,
)
register(
    "attentive_pool_backward",
    reference=reference.attentive_pool_backward,
    fake=_fake_attentive_pool_backward,
)
register(
    "margin_loss",
    reference=reference.margin_loss,
    fake=_fake_loss,
    backward=_margin_loss_backward,
)
register(
    "margin_loss_backward",
    reference=reference.margin_loss_backward,
    fake=_fake_loss_backward,
)
register(
    "probability_loss",
    reference=reference.probability_loss,
    fake=_fake_loss,
    backward=_probability_loss_backward,
)
register(
    "probability_loss_backward",
    reference=reference.probability_loss_backward,
    fake=_fake_loss_backward,
)
