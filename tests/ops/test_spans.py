"""Overlap, suppression and assignment of spans: examples by hand, SciPy's answers, input checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vmr import ops

EQUAL, TOUCHING, NESTED, APART = (
    [[0, 4], [0, 4]],
    [[0, 4], [4, 8]],
    [[0, 4], [1, 2]],
    [[0, 4], [6, 8]],
)
POINT_INSIDE, SAME_POINT, OTHER_POINT = [[0, 4], [2, 2]], [[2, 2], [2, 2]], [[2, 2], [3, 3]]
REVERSED = [[5, 3], [0, 10]]


@pytest.mark.parametrize(
    ("pair", "iou", "giou"),
    [
        (EQUAL, 1, 1),
        (TOUCHING, 0, 0),
        (NESTED, 0.25, 0.25),
        (APART, 0, -0.25),
        ([[0, 4], [2, 6]], 1 / 3, 1 / 3),
        (POINT_INSIDE, 0, 0),
        (SAME_POINT, 0, 0),
        (OTHER_POINT, 0, -1),
        (REVERSED, 0, 0),
    ],
)
def test_overlap_by_hand(pair: list[list[float]], iou: float, giou: float) -> None:
    for a, b in (pair, pair[::-1]):
        spans = torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
        assert ops.span_iou(*spans).item() == pytest.approx(iou)
        assert ops.span_giou(*spans).item() == pytest.approx(giou)
        assert ops.span_iou(*spans, aligned=True).tolist() == pytest.approx([iou])
        assert ops.span_giou(*spans, aligned=True).tolist() == pytest.approx([giou])


@pytest.mark.parametrize("overlap", [ops.span_iou, ops.span_giou])
def test_aligned_pairs_are_the_diagonal_of_all_pairs(overlap: Any) -> None:
    a, b = torch.rand(2, 3, 6, 2, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    torch.testing.assert_close(
        overlap(a, b, aligned=True), overlap(a, b).diagonal(dim1=-2, dim2=-1)
    )


@pytest.mark.parametrize("overlap", [ops.span_iou, ops.span_giou])
@pytest.mark.parametrize("pair", [EQUAL, TOUCHING, POINT_INSIDE, SAME_POINT, OTHER_POINT, REVERSED])
def test_gradients_of_degenerate_spans_are_finite(overlap: Any, pair: list[list[float]]) -> None:
    a, b = (torch.tensor([span], dtype=torch.float64, requires_grad=True) for span in pair)
    for gradient in torch.autograd.grad(overlap(a, b).sum(), (a, b)):
        assert gradient.isfinite().all()


def test_nan_in_the_padding_leaves_the_other_gradients_alone() -> None:
    a = torch.tensor([[0.0, 4.0], [torch.nan, torch.nan]], requires_grad=True)
    b = torch.tensor([[1.0, 6.0]], requires_grad=True)
    ops.span_giou(a, b).nansum().backward()
    only = torch.tensor([[0.0, 4.0]], requires_grad=True)
    alone = torch.tensor([[1.0, 6.0]], requires_grad=True)
    ops.span_giou(only, alone).sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad, torch.cat([only.grad, torch.zeros(1, 2)]))
    torch.testing.assert_close(b.grad, alone.grad)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 3), (4, 2)), r"span_iou: a must be \[..., N, 2\], got \[4, 3\]"),
        (((2,), (4, 2)), r"span_iou: a must be \[..., N, 2\], got \[2\]"),
        (((4, 2), (2, 4)), r"span_iou: b must be \[..., M, 2\], got \[2, 4\]"),
        (((3, 4, 2), (2, 4, 2)), r"same leading sizes, got \[3, 4, 2\] and \[2, 4, 2\]"),
        (((3, 4, 2), (4, 2)), r"same leading sizes, got \[3, 4, 2\] and \[4, 2\]"),
    ],
)
def test_wrong_pairs(shapes: tuple[tuple[int, ...], tuple[int, ...]], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.span_iou(torch.ones(shapes[0]), torch.ones(shapes[1]))


def test_wrong_dtypes() -> None:
    spans = torch.ones(3, 2)
    with pytest.raises(
        RuntimeError, match="span_giou: b must have the dtype of a, Float, got Half"
    ):
        ops.span_giou(spans, spans.half())
    with pytest.raises(
        RuntimeError, match="a must be float32, float64, float16 or bfloat16, got Long"
    ):
        ops.span_iou(spans.long(), spans.long())


def test_suppression_by_hand() -> None:
    # The second overlaps the best by 3/5; the third by 1/3; the fourth overlaps the third by 3/5.
    spans = torch.tensor([[[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    lengths = torch.tensor([4])
    indices, counts = ops.span_nms(spans, scores, lengths, iou_threshold=0.5, top_k=3)
    assert indices.tolist() == [[0, 2, -1]]
    assert counts.tolist() == [2]


def test_an_overlap_of_just_the_threshold_is_kept() -> None:
    spans = torch.tensor([[[0.0, 4.0], [2.0, 4.0]]])
    indices, _ = ops.span_nms(
        spans, torch.tensor([[1.0, 0.5]]), torch.tensor([2]), iou_threshold=0.5, top_k=2
    )
    assert indices.tolist() == [[0, 1]]


def test_of_equal_scores_the_smaller_index_comes_first() -> None:
    spans = torch.arange(12.0).reshape(1, 6, 2)
    scores = torch.tensor([[0.5, 1.0, 0.5, 1.0, 0.5, torch.nan]])
    indices, counts = ops.span_nms(spans, scores, torch.tensor([6]), iou_threshold=0.5, top_k=6)
    assert indices.tolist() == [[1, 3, 0, 2, 4, -1]]
    assert counts.tolist() == [5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spans": torch.ones(4, 2)}, r"span_nms: spans must be \[Q, P, 2\], got \[4, 2\]"),
        ({"scores": torch.ones(1, 3)}, r"scores must be \[Q, P\] like spans, got \[1, 3\]"),
        ({"scores": torch.ones(1, 4).double()}, "scores must have the dtype of spans, Float"),
        ({"lengths": torch.tensor([5])}, "lengths must be between 0 and 4, got 5 at query 0"),
        ({"lengths": torch.tensor([4.0])}, "lengths must be int64, got Float"),
        ({"iou_threshold": 1.5}, "iou_threshold must be between 0 and 1, got 1.5"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ],
)
def test_wrong_suppression_inputs(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {
        "spans": torch.ones(1, 4, 2),
        "scores": torch.ones(1, 4),
        "lengths": torch.tensor([4]),
        "iou_threshold": 0.5,
        "top_k": 2,
    }
    with pytest.raises(RuntimeError, match=message):
        ops.span_nms(**{**inputs, **changes})


def test_assignment_by_hand() -> None:
    nan, inf = torch.nan, torch.inf
    costs = torch.tensor(
        [
            [[1, 2], [0, 5], [3, 3]],  # 0 + 2
            [[5, 1], [4, 4], [9, nan]],  # 4 + 1
            [[nan, 7], [inf, 7], [2e6, 7]],  # NaN and infinity cost 1e6: the first of both
            [[-2e6, -inf], [-2e6, 0], [0, 0]],  # minus infinity 1e6 less than nothing
        ]
    )
    found = ops.assignment(costs, torch.tensor([2, 2, 1, 2]))
    assert found.tolist() == [[1, 0], [1, 0], [0, -1], [1, 0]]


def test_windows_that_no_slot_is_left_for_are_left_out() -> None:
    costs = torch.tensor([[[3.0, 1, 2, 0], [1, 2, 9, 0]]])
    assert ops.assignment(costs, torch.tensor([3])).tolist() == [[1, 0, -1, -1]]
    assert ops.assignment(costs, torch.tensor([1])).tolist() == [[1, -1, -1, -1]]
    assert ops.assignment(costs[:, :0], torch.tensor([3])).tolist() == [[-1] * 4]


Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[Any]]
COSTS: dict[str, Draw] = {
    "continuous": lambda random, shape: random.normal(size=shape),
    "below zero": lambda random, shape: -random.random(shape) - 3,
    "many ties": lambda random, shape: random.integers(-2, 3, shape),
    "zero or one": lambda random, shape: random.random(shape) < 0.5,
    "all the same": lambda random, shape: np.full(shape, random.normal()),
    "every assignment as cheap": lambda random, shape: (
        random.integers(9, size=shape[:2])[..., None] + random.integers(9, size=shape[::2])[:, None]
    ),
    "huge": lambda random, shape: 1e36 * random.normal(size=shape),
    "of any size": lambda random, shape: (
        random.normal(size=shape) * 10 ** random.uniform(-6, 6, shape)
    ),
    "no numbers": lambda random, shape: random.choice([np.nan, np.inf, -np.inf, 0, 1, 2e6], shape),
}


def compare_with_scipy(seed: int, problems: int = 200) -> int:
    """Checks one size with every kind of costs, and gives the number of problems."""
    random = np.random.default_rng(seed)
    slots, windows = random.integers(1, 13, size=2)
    counts = random.integers(0, windows + 1, size=problems)
    matched = np.minimum(counts, slots)
    for kind, draw in COSTS.items():
        dtype = torch.float32 if seed % 2 else torch.float64
        costs = torch.from_numpy(np.asarray(draw(random, (problems, slots, windows)), float))
        costs = costs.to(dtype)
        found = ops.assignment(costs, torch.from_numpy(counts)).numpy()
        there = found >= 0
        assert (there.sum(axis=1) == matched).all(), (kind, seed)
        assert not there[np.arange(windows) >= counts[:, None]].any(), (kind, seed)
        uses = (found[..., None] == np.arange(slots)).sum(axis=1)
        assert uses.max(initial=0) <= 1, (kind, seed)

        table = costs.double().nan_to_num(1e6, 1e6, -1e6).numpy()
        chosen = np.take_along_axis(table, found.clip(min=0)[:, None], axis=1)[:, 0]
        totals = np.where(there, chosen, 0).sum(axis=1)
        cheapest = np.empty(problems)
        for problem, count in enumerate(counts):
            own = table[problem, :, :count]
            cheapest[problem] = own[linear_sum_assignment(own)].sum()
        scale = np.abs(table).max() * slots
        np.testing.assert_allclose(totals, cheapest, rtol=0, atol=1e-13 * scale, err_msg=kind)
    return problems * len(COSTS)


def test_assignment_is_as_cheap_as_that_of_scipy() -> None:
    assert sum(compare_with_scipy(seed) for seed in range(12)) > 20_000


@pytest.mark.slow
def test_a_million_assignments_are_as_cheap_as_those_of_scipy() -> None:
    assert sum(compare_with_scipy(seed, problems=1000) for seed in range(12, 124)) > 1_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"costs": torch.ones(3, 4)}, r"assignment: costs must be \[P, Q, M\], got \[3, 4\]"),
        ({"counts": torch.ones(3).long()}, r"counts must be \[P\] with costs' P, got \[3\]"),
        ({"counts": torch.tensor([1, 5])}, "counts must be between 0 and 4, got 5 at problem 1"),
        ({"counts": torch.tensor([-1, 0])}, "counts must be between 0 and 4, got -1 at problem 0"),
        ({"counts": torch.ones(2)}, "counts must be int64, got Float"),
        ({"costs": torch.ones(2, 3, 4).int()}, "costs must be float32, .* or bfloat16, got Int"),
    ],
)
def test_wrong_assignment_inputs(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {"costs": torch.ones(2, 3, 4), "counts": torch.tensor([4, 1])}
    with pytest.raises(RuntimeError, match=message):
        ops.assignment(**{**inputs, **changes})


def test_centre_and_width_there_and_back() -> None:
    spans = torch.tensor([[1.0, 4.0], [0.0, 0.0]], requires_grad=True)
    cxw = ops.span_to_cxw(spans)
    assert cxw.tolist() == [[2.5, 3.0], [0.0, 0.0]]
    torch.testing.assert_close(ops.cxw_to_span(cxw), spans)
    (gradient,) = torch.autograd.grad(cxw.sum(), spans)
    assert gradient.tolist() == [[-0.5, 1.5], [-0.5, 1.5]]
