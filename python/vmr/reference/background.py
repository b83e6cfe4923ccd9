"""Background-aware moment detection in plain PyTorch (Jung et al., WACV 2025, eqs. 5 to 10, 15, 16)."""

from __future__ import annotations

import torch
from torch import Tensor

from vmr.reference.common import gradients, valid_frames, widened


def frame_attention(
    frames: Tensor,
    hidden_weight: Tensor,
    score_weight: Tensor,
    lengths: Tensor,
    negative: Tensor,
    official_padding: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Eqs. 5 to 8: v', p, P(f | Q+), o; and the matcher's hidden layers, of v+ and of v-.

    ``negative`` is [0, N, D] where there is no negative query.
    """
    valid = valid_frames(lengths, frames.shape[1])
    w1, w2 = widened(hidden_weight), widened(score_weight)

    def match(features: Tensor) -> tuple[Tensor, Tensor]:
        of_rows = valid[: features.shape[0], :, None]
        hidden = (torch.where(of_rows, widened(features), 0.0) @ w1.mT).tanh()
        return (hidden @ w2).sigmoid(), hidden  # eq. 5

    positive, hidden = match(frames)
    against, negative_hidden = match(negative)
    joint = positive * (1 - against) if len(negative) else positive  # eq. 6
    joint, positive = (torch.where(valid, x, 0.0) for x in (joint, positive))
    counted = valid | official_padding
    attention = joint.masked_fill(~counted, -torch.inf).softmax(dim=1)  # eq. 7
    attention = torch.where(counted, attention, 0.0)
    rows = torch.where(counted[..., None], widened(frames), 0.0)
    attended = torch.where(counted[..., None], attention[..., None] * rows, 0.0)  # eq. 8
    found = tuple(x.to(frames.dtype) for x in (attended, joint, positive, attention))
    return found[0], found[1], found[2], found[3], hidden, negative_hidden


def frame_attention_backward(
    attended_gradients: Tensor,
    joint_gradients: Tensor,
    positive_gradients: Tensor,
    attention_gradients: Tensor,
    frames: Tensor,
    hidden_weight: Tensor,
    score_weight: Tensor,
    lengths: Tensor,
    negative: Tensor,
    hidden: Tensor,
    negative_hidden: Tensor,
    official_padding: bool,
) -> tuple[Tensor, ...]:
    """The gradients of frames, both weights and negative; here without the kept hidden layers."""
    output_gradients = (
        attended_gradients,
        joint_gradients,
        positive_gradients,
        attention_gradients,
        torch.zeros_like(hidden),
        torch.zeros_like(negative_hidden),
    )
    inputs = (frames, hidden_weight, score_weight, lengths, negative)
    return gradients(frame_attention, output_gradients, inputs, official_padding)


def attentive_pool(features: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """Eqs. 9 and 10 after W: the rows' mean by the softmax of their scores."""
    valid = valid_frames(lengths, features.shape[1])
    weights = torch.where(valid, widened(scores), -torch.inf).softmax(dim=1)
    weights = torch.where(valid, weights, 0.0)  # a softmax over nothing is NaN
    rows = torch.where(valid[..., None], widened(features), 0.0)
    return (weights[:, None] @ rows).squeeze(1).to(features.dtype)


def attentive_pool_backward(
    output_gradients: Tensor, features: Tensor, scores: Tensor, lengths: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of features and scores."""
    # Without NaN from the softmax over nothing.
    some = lengths > 0
    found = gradients(
        attentive_pool, output_gradients[some], (features[some], scores[some], lengths[some])
    )
    whole = torch.zeros_like(features), torch.zeros_like(scores)
    for to, gradient in zip(whole, found, strict=True):
        to[some] = gradient
    return whole


def _sides(windows: Tensor, counts: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """[B, N] truth values: the foreground, and the background."""
    valid = valid_frames(lengths, frames)
    place = torch.arange(frames, device=windows.device)
    inside = (place >= windows[..., :1]) & (place <= windows[..., 1:])
    fore = (inside & valid_frames(counts, windows.shape[1])[..., None]).any(dim=1) & valid
    return fore, valid & ~fore


def margin_loss(
    scores: Tensor, windows: Tensor, counts: Tensor, lengths: Tensor, margin: float
) -> Tensor:
    """[B] eq. 15, the mean over all pairs of a foreground and a background row."""
    fore, back = _sides(windows, counts, lengths, scores.shape[1])
    pairs = fore[:, :, None] & back[:, None, :]
    s = torch.where(fore | back, widened(scores), 0.0)
    errors = torch.where(pairs, margin + s[:, None, :] - s[:, :, None], 0.0).relu()
    return (errors.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)).to(scores.dtype)


def margin_loss_backward(
    output_gradients: Tensor,
    scores: Tensor,
    windows: Tensor,
    counts: Tensor,
    lengths: Tensor,
    margin: float,
) -> Tensor:
    """The gradient of the scores."""
    inputs = (scores, windows, counts, lengths)
    return gradients(margin_loss, output_gradients, inputs, margin)[0]


def probability_loss(joint: Tensor, windows: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
    """[B] eq. 16: 1 - mean of p in the foreground + mean of p in the background."""
    fore, back = _sides(windows, counts, lengths, joint.shape[1])

    def mean(side: Tensor) -> Tensor:
        return torch.where(side, widened(joint), 0.0).sum(1) / side.sum(1).clamp(min=1)

    return torch.where(fore.any(1), 1 - mean(fore) + mean(back), 0.0).to(joint.dtype)


def probability_loss_backward(
    output_gradients: Tensor, joint: Tensor, windows: Tensor, counts: Tensor, lengths: Tensor
) -> Tensor:
    """The gradient of the joint probabilities."""
    return gradients(probability_loss, output_gradients, (joint, windows, counts, lengths))[0]
