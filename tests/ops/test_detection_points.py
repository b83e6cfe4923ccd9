"""Moments as points of a map of scores, on examples worked by hand, and their input checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vmr.errors import InputError
from vmr.ops import detection


def random_maps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def points_of(*queries: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    points = torch.tensor([point for own in queries for point in own], dtype=torch.int64)
    return points.reshape(-1, 2), torch.tensor([0, *(len(own) for own in queries)]).cumsum(0)


def test_the_loss_by_hand() -> None:
    scores = torch.tensor([[[0.5, 2.0], [3.0, 1.0]]])
    inputs = (*points_of([(0, 1)]), torch.tensor([2]))
    whole = detection.vertex_loss(scores, *inputs, sigmoid=False)
    upper = detection.vertex_loss(scores, *inputs, region="upper", sigmoid=False)
    assert whole.tolist() == [0.25 + 1 + 9 + 1]
    assert upper.tolist() == [0.25 + 1 + 1]
    at_zero = detection.vertex_loss(torch.zeros(1, 2, 2), *inputs)
    assert at_zero.tolist() == [1.0]  # each of the four is half wrong


@pytest.mark.parametrize("sigmoid", [True, False])
def test_the_loss_is_the_squared_error_against_the_explicit_map(sigmoid: bool) -> None:
    scores = random_maps(3, 7, 7).requires_grad_()
    # Two moments, one moment listed three times, and none.
    points, splits = points_of([(0, 6), (2, 3)], [(1, 4)] * 3, [])
    truth = torch.zeros(3, 7, 7, dtype=torch.float64)
    truth[0, 0, 6] = truth[0, 2, 3] = truth[1, 1, 4] = 1
    values = scores.sigmoid() if sigmoid else scores
    errors = torch.nn.functional.mse_loss(values, truth, reduction="none")
    lengths = torch.tensor([7, 7, 7])
    for region, expected in (("whole", errors), ("upper", errors.triu())):
        found = detection.vertex_loss(
            scores,
            points,
            splits,
            lengths,
            region=region,  # type: ignore[arg-type]
            sigmoid=sigmoid,
        )
        torch.testing.assert_close(found, expected.sum(dim=(1, 2)))
        weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        (gradient,) = torch.autograd.grad((found * weights).sum(), scores, retain_graph=True)
        (wanted,) = torch.autograd.grad(
            (expected.sum(dim=(1, 2)) * weights).sum(), scores, retain_graph=True
        )
        torch.testing.assert_close(gradient, wanted)


def test_a_map_that_is_nearly_right_keeps_its_small_loss() -> None:
    scores = torch.zeros(1, 500, 500)
    scores[0, 3, 400] = 1 + 2.0**-12
    inputs = (*points_of([(3, 400)]), torch.tensor([500]))
    assert detection.vertex_loss(scores, *inputs, sigmoid=False).tolist() == [2.0**-24]


def test_large_maps_are_summed_without_losing_digits() -> None:
    scores = random_maps(1, 1200, 1200)
    inputs = (*points_of([(3, 400)]), torch.tensor([1200]))
    exact = detection.vertex_loss(scores.float().double(), *inputs)
    torch.testing.assert_close(
        detection.vertex_loss(scores.float(), *inputs).double(), exact, rtol=2e-7, atol=0
    )


def test_a_nan_score_makes_its_own_loss_nan() -> None:
    scores = torch.zeros(2, 3, 3)
    scores[0, 1, 1] = torch.nan
    scores[1, 2, 0] = torch.nan
    inputs = (*points_of([], []), torch.tensor([3, 3]))
    upper = detection.vertex_loss(scores, *inputs, region="upper")
    assert upper.isnan().tolist() == [True, False]  # the other one does not count
    assert detection.vertex_loss(scores, *inputs).isnan().all()


@pytest.mark.parametrize("sigmoid", [True, False])
def test_gradients_are_zero_where_nothing_counts(sigmoid: bool) -> None:
    scores = torch.full((1, 4, 4), torch.nan)
    scores[0, :2, :2] = 1
    scores.requires_grad_()
    inputs = (*points_of([(0, 1)]), torch.tensor([2]))
    detection.vertex_loss(scores, *inputs, region="upper", sigmoid=sigmoid).sum().backward()
    assert scores.grad is not None
    outside = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    outside[2:], outside[:, 2:] = True, True
    assert scores.grad[0, outside].eq(0).all()
    assert scores.grad[0, ~outside].isfinite().all()


def brute_force(scores: Tensor, length: int, k: int) -> list[tuple[int, int]]:
    """The points by sorting them all in Python."""
    upper = [
        (i, j) for i in range(length) for j in range(i, length) if scores[i, j] == scores[i, j]
    ]
    return sorted(upper, key=lambda point: (-scores[point].item(), point))[:k]


@pytest.mark.parametrize("distinct", [4, 1000])
@pytest.mark.parametrize("k", [1, 13, 400])
def test_top_points_are_those_of_a_sort(distinct: int, k: int) -> None:
    random = torch.Generator().manual_seed(k)
    scores = torch.randint(0, distinct, (3, 24, 24), generator=random) / 2
    scores[:, ::5, ::7] = torch.nan
    lengths = [24, 17, 0]
    points, values, counts = detection.top_points(scores, torch.tensor(lengths), k)
    for query, length in enumerate(lengths):
        expected = brute_force(scores[query], length, k)
        count = len(expected)
        assert counts[query] == count
        assert [tuple(point) for point in points[query, :count].tolist()] == expected
        assert values[query, :count].tolist() == [scores[query][point].item() for point in expected]
        assert points[query, count:].eq(-1).all()
        assert values[query, count:].eq(-torch.inf).all()


def test_equal_scores_come_row_by_row() -> None:
    points, _, counts = detection.top_points(torch.ones(1, 3, 3), torch.tensor([3]), 5)
    assert points.tolist() == [[[0, 0], [0, 1], [0, 2], [1, 1], [1, 2]]]
    assert counts.tolist() == [5]


def test_a_video_of_one_frame() -> None:
    points, values, counts = detection.top_points(torch.tensor([[[0.25]]]), torch.tensor([1]), 2)
    assert points.tolist() == [[[0, 0], [-1, -1]]]
    assert values.tolist() == [[0.25, -torch.inf]]
    assert counts.tolist() == [1]


def test_an_infinite_score_is_taken_and_nan_is_not() -> None:
    scores = torch.full((1, 2, 2), torch.nan)
    scores[0, 0, 1] = -torch.inf
    points, _, counts = detection.top_points(scores, torch.tensor([2]), 3)
    assert points.tolist() == [[[0, 1], [-1, -1], [-1, -1]]]
    assert counts.tolist() == [1]


def test_top_points_have_no_gradient() -> None:
    scores = random_maps(1, 4, 4).requires_grad_()
    _, values, _ = detection.top_points(scores, torch.tensor([4]), 2)
    assert not values.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scores": torch.ones(1, 4, 3)},
            r"vertex_loss: scores must be \[B, N, N\] with N >= 1, got \[1, 4, 3\]",
        ),
        ({"scores": torch.ones(4, 4)}, r"scores must be \[B, N, N\] with N >= 1, got \[4, 4\]"),
        ({"scores": torch.ones(1, 0, 0)}, r"with N >= 1, got \[1, 0, 0\]"),
        ({"scores": torch.ones(1, 4, 4).long()}, "scores must be float32, .* got Long"),
        ({"points": torch.tensor([1, 2])}, r"points must be \[P, 2\], got \[2\]"),
        ({"points": torch.ones(1, 2)}, "points must be int64, got Float"),
        ({"points": torch.tensor([[0, 3]])}, r"lie in \[0, length = 3\), got \(0, 3\) at row 0"),
        ({"points": torch.tensor([[-1, 2]])}, r"lie in \[0, length = 3\), got \(-1, 2\) at row 0"),
        ({"points": torch.tensor([[2, 1]])}, r"must have i <= j, got \(2, 1\) at row 0"),
        ({"splits": torch.tensor([0])}, r"splits must be \[B \+ 1\] with scores' B, got \[1\]"),
        ({"splits": torch.tensor([0, 2])}, "splits must go from 0 to P = 1, got 0 to 2"),
        ({"splits": torch.tensor([1, 1])}, "splits must go from 0 to P = 1, got 1 to 1"),
        ({"lengths": torch.tensor([5])}, "lengths must be between 0 and 4, got 5 at query 0"),
        ({"lengths": torch.tensor([3, 3])}, r"lengths must be \[B\] with scores' B, got \[2\]"),
    ],
)
def test_wrong_loss_inputs(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {
        "scores": torch.ones(1, 4, 4),
        "points": torch.tensor([[0, 1]]),
        "splits": torch.tensor([0, 1]),
        "lengths": torch.tensor([3]),
        "region": "upper",
    }
    with pytest.raises(RuntimeError, match=message):
        detection.vertex_loss(**{**inputs, **changes})


def test_splits_must_not_descend() -> None:
    splits = torch.tensor([0, 1, 0, 1])
    with pytest.raises(RuntimeError, match="not descend, got 1 and then 0 at query 1"):
        detection.vertex_loss(
            torch.ones(3, 2, 2), torch.tensor([[0, 1]]), splits, torch.tensor([2, 2, 2])
        )


def test_an_unknown_region() -> None:
    with pytest.raises(InputError, match="region must be one of whole, upper, got 'lower'"):
        detection.vertex_loss(
            torch.ones(1, 2, 2),
            *points_of([]),
            torch.tensor([2]),
            region="lower",  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": torch.ones(1, 4, 3)}, r"top_points: scores must be \[B, N, N\] with N >= 1"),
        ({"lengths": torch.tensor([-1])}, "lengths must be between 0 and 4, got -1 at query 0"),
        ({"lengths": torch.tensor([4.0])}, "lengths must be int64, got Float"),
        ({"k": 0}, "top_points: k must be at least 1, got 0"),
    ],
)
def test_wrong_top_inputs(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {
        "scores": torch.ones(1, 4, 4),
        "lengths": torch.tensor([4]),
        "k": 2,
    }
    with pytest.raises(RuntimeError, match=message):
        detection.top_points(**{**inputs, **changes})
