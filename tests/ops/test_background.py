"""Frame attention, pooling and frame losses, on examples worked by hand, and their input checks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vmr import ops


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention_inputs(**changes: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "frames": draw(2, 4, 6),
        "hidden_weight": draw(3, 6, seed=1),
        "score_weight": draw(3, seed=2),
        "lengths": torch.tensor([4, 2]),
    }
    return {**inputs, **changes}


def test_frame_attention_by_hand() -> None:
    # tanh(atanh(1/2)) = 1/2; log(3) / 2 and log(1/3) / 2 by it give the probabilities 0.63 and 0.37.
    one = math.atanh(0.5)
    frames = torch.tensor([[[one, 7.0], [-one, 9.0]]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([math.log(3)]).double()
    high = 1 / (1 + 3**-0.5)
    attended, joint, positive, attention = ops.frame_attention(frames, *weights, torch.tensor([2]))
    torch.testing.assert_close(positive, torch.tensor([[high, 1 - high]]).double())
    torch.testing.assert_close(joint, positive)
    share = math.exp(high) / (math.exp(high) + math.exp(1 - high))
    torch.testing.assert_close(attention, torch.tensor([[share, 1 - share]]).double())
    torch.testing.assert_close(attended, frames * attention[..., None])


def test_a_negative_query_halves_what_it_knows_nothing_of() -> None:
    inputs = attention_inputs()
    *_, positive, _ = ops.frame_attention(**inputs)
    nothing = torch.zeros_like(inputs["frames"])  # 1 - PFM(0) = 1/2
    _, joint, same, _ = ops.frame_attention(**inputs, negative=nothing)
    torch.testing.assert_close(same, positive)
    torch.testing.assert_close(joint, positive / 2)


def test_the_same_query_as_its_own_negative() -> None:
    inputs = attention_inputs()
    _, joint, positive, _ = ops.frame_attention(**inputs, negative=inputs["frames"])
    torch.testing.assert_close(joint, positive * (1 - positive))


def test_padding_has_no_part() -> None:
    inputs = attention_inputs()
    own = attention_inputs(frames=inputs["frames"][1:, :2], lengths=torch.tensor([2]))
    alone = ops.frame_attention(**own)
    inputs["frames"][1, 2:] = torch.nan
    for result, wanted in zip(ops.frame_attention(**inputs), alone, strict=True):
        torch.testing.assert_close(result[1:, :2], wanted)
        assert result[1, 2:].eq(0).all()


def test_official_padding_counts_padded_rows_with_probability_zero() -> None:
    inputs = attention_inputs()
    attended, joint, positive, attention = ops.frame_attention(**inputs, official_padding=True)
    assert joint[1, 2:].eq(0).all()
    assert positive[1, 2:].eq(0).all()
    torch.testing.assert_close(attention, joint.softmax(dim=1))
    torch.testing.assert_close(attended, attention[..., None] * inputs["frames"])
    plain = ops.frame_attention(**inputs)
    torch.testing.assert_close(plain[1], joint)
    assert plain[3][1, 0] > attention[1, 0]


def test_gradients_reach_a_memory_through_its_view() -> None:
    memory = draw(2, 6, 6, seed=4).requires_grad_()
    negative = draw(2, 6, 6, seed=5).requires_grad_()
    inputs = attention_inputs(frames=memory[:, :4], negative=negative[:, :4])
    attended, *_ = ops.frame_attention(**inputs)
    attended.square().sum().backward()
    assert memory.grad is not None
    assert negative.grad is not None
    assert memory.grad[0, :4].ne(0).all()
    assert memory.grad[:, 4:].eq(0).all()
    assert negative.grad[0, :4].ne(0).all()
    assert negative.grad[1, 2:].eq(0).all()


@pytest.mark.parametrize("wanted", range(4))
def test_one_output_alone_has_its_gradient(wanted: int) -> None:
    inputs = attention_inputs(negative=draw(2, 4, 6, seed=3))
    leaves = [inputs[name].requires_grad_() for name in ("frames", "hidden_weight", "negative")]
    whole = ops.frame_attention(**inputs)
    loss = whole[wanted].square().sum()
    others = sum((output * 0).sum() for output in whole)
    some = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    for found, expected in zip(some, torch.autograd.grad(loss + others, leaves), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_is_kept_for_the_backward_asks_for_no_gradient() -> None:
    inputs = attention_inputs()
    inputs["frames"].requires_grad_()
    arguments = (*inputs.values(), inputs["frames"].detach()[:0], False)
    found = torch.ops.vmr.frame_attention(*arguments)
    assert [output.requires_grad for output in found] == [True] * 4 + [False] * 2


def test_pooling_by_hand() -> None:
    features = torch.tensor([[[1.0, 0.0], [0.0, 8.0], [torch.nan, 5.0]]] * 3)
    scores = torch.tensor([[0.0, math.log(3.0), torch.nan]] * 3)
    pooled = ops.attentive_pool(features, scores, torch.tensor([2, 1, 0]))
    torch.testing.assert_close(pooled, torch.tensor([[0.25, 6.0], [1.0, 0.0], [0.0, 0.0]]))


def test_the_margin_loss_by_hand() -> None:
    # Foreground 1 and 2 (listed twice), background 0 and 3; row 4 is padding.
    scores = torch.tensor([[0.5, 1.0, 0.25, 0.0, torch.nan]], requires_grad=True)
    inputs = (torch.tensor([[[1, 2], [2, 2], [9, 9]]]), torch.tensor([2]), torch.tensor([4]))
    loss = ops.margin_loss(scores, *inputs, margin=0.5)
    # 1: max(0, 0.5 + 0.5 - 1) = 0 and 0; 2: 0.75 and 0.25.
    assert loss.tolist() == [0.25]
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.25, 0.0, -0.5, 0.25, 0.0]]
    # With row 3 in a window, which ends behind the length, row 0 alone is left.
    windows = torch.tensor([[[1, 2], [2, 4], [9, 9]]])
    longer = ops.margin_loss(scores.detach(), windows, *inputs[1:], margin=0.5)
    torch.testing.assert_close(longer, torch.tensor([(0.0 + 0.75 + 1.0) / 3]))


@pytest.mark.parametrize("windows", [[[0, 3]], [[0, 1], [1, 3]]])
def test_without_background_or_foreground_there_is_no_margin(windows: list[list[int]]) -> None:
    scores = torch.randn(2, 4, requires_grad=True)
    inputs = (torch.tensor([windows] * 2), torch.tensor([len(windows), 0]), torch.tensor([4, 4]))
    loss = ops.margin_loss(scores, *inputs)
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert scores.grad is not None
    assert scores.grad.eq(0).all()


def test_a_nan_score_makes_its_own_losses_nan() -> None:
    scores = torch.zeros(3, 4)
    scores[0, 1] = scores[1, 3] = torch.nan
    inputs = (torch.tensor([[[1, 2]]] * 3), torch.tensor([1] * 3), torch.tensor([4] * 3))
    for loss in (ops.margin_loss(scores, *inputs), ops.probability_loss(scores, *inputs)):
        assert loss.isnan().tolist() == [True, True, False]


def test_the_margin_loss_of_many_rows_is_that_of_all_pairs() -> None:
    scores, fore = draw(1, 700), torch.zeros(700, dtype=torch.bool)
    windows = torch.tensor([[[3, 3], [100, 399], [350, 500]]])
    for first, last in windows[0].tolist():
        fore[first : last + 1] = True
    pairs = 0.2 + scores[0, ~fore] - scores[0, fore][:, None]
    loss = ops.margin_loss(scores, windows, torch.tensor([3]), torch.tensor([700]))
    torch.testing.assert_close(loss[0], pairs.clamp(min=0).mean())


def test_the_probability_loss_by_hand() -> None:
    joint = torch.tensor([[0.5, 1.0, 0.25, 0.0]] * 4, requires_grad=True)
    windows = torch.tensor([[[1, 2]], [[0, 3]], [[1, 2]], [[2, 3]]])
    counts, lengths = torch.tensor([1, 1, 0, 1]), torch.tensor([4, 4, 4, 2])
    loss = ops.probability_loss(joint, windows, counts, lengths)
    # No background; no window; a window behind the length.
    assert loss.tolist() == [1 - 0.625 + 0.25, 1 - 0.4375, 0, 0]
    loss.sum().backward()
    assert joint.grad is not None
    assert joint.grad.tolist() == [[0.5, -0.5, -0.5, 0.5], [-0.25] * 4, [0.0] * 4, [0.0] * 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": draw(4, 6)}, r"frames must be \[B, N, D\] .*, got \[4, 6\]"),
        ({"frames": draw(2, 0, 6)}, r"with N >= 1 and D >= 1, got \[2, 0, 6\]"),
        ({"hidden_weight": draw(6, 3)}, r"hidden_weight must be \[H, D\] .*, got \[6, 3\]"),
        ({"hidden_weight": draw(0, 6)}, r"must be \[H, D\] with H >= 1, got \[0, 6\]"),
        ({"score_weight": draw(1, 3)}, r"score_weight must be \[H\] .*, got \[1, 3\]"),
        ({"score_weight": draw(3).float()}, "must have the dtype of frames, Double, got Float"),
        ({"negative": draw(1, 4, 6)}, r"negative must be \[B, N, D\] like frames, got \[1, 4, 6\]"),
        ({"negative": draw(2, 3, 6)}, r"negative must be \[B, N, D\] like frames, got \[2, 3, 6\]"),
        ({"lengths": torch.tensor([4, 0])}, "between 1 and 4, got 0 at video 1"),
        ({"lengths": torch.tensor([5, 1])}, "between 1 and 4, got 5 at video 0"),
        ({"lengths": torch.tensor([4.0, 1.0])}, "lengths must be int64, got Float"),
    ],
)
def test_wrong_attention_inputs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=f"frame_attention: .*{message}"):
        ops.frame_attention(**attention_inputs(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": draw(2, 3)}, r"scores must be \[B, N\] .*, got \[2, 3\]"),
        ({"lengths": torch.tensor([4, -1])}, "between 0 and 4, got -1 at query 1"),
    ],
)
def test_wrong_pooling_inputs(changes: dict[str, Any], message: str) -> None:
    inputs = {"features": draw(2, 4, 6), "scores": draw(2, 4), "lengths": torch.tensor([4, 2])}
    with pytest.raises(RuntimeError, match=f"attentive_pool: .*{message}"):
        ops.attentive_pool(**{**inputs, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": draw(4)}, r"must be \[B, N\] with N >= 1, got \[4\]"),
        ({"windows": torch.tensor([[0, 1]])}, r"windows must be \[B, M, 2\].*, got \[1, 2\]"),
        ({"windows": torch.zeros(1, 1, 2)}, "windows must be int64, got Float"),
        ({"windows": torch.tensor([[[0, 4]]])}, r"last < N = 4, got \(0, 4\) at video 0"),
        ({"windows": torch.tensor([[[-1, 2]]])}, r"last < N = 4, got \(-1, 2\) at video 0"),
        ({"windows": torch.tensor([[[2, 1]]])}, r"last < N = 4, got \(2, 1\) at video 0"),
        ({"counts": torch.tensor([2])}, "counts must be between 0 and M = 1, got 2 at video 0"),
        ({"lengths": torch.tensor([5])}, "lengths must be between 0 and 4, got 5"),
    ],
)
@pytest.mark.parametrize("loss", [ops.margin_loss, ops.probability_loss])
def test_wrong_loss_inputs(loss: Any, changes: dict[str, Any], message: str) -> None:
    inputs = {
        "scores": draw(1, 4),
        "windows": torch.tensor([[[0, 1]]]),
        "counts": torch.tensor([1]),
        "lengths": torch.tensor([4]),
    }
    with pytest.raises(RuntimeError, match=f"{loss.__name__}: .*{message}"):
        loss(*{**inputs, **changes}.values())
