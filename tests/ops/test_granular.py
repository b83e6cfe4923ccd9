"""Granular scores and proposals on examples worked by hand, and their input checks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vmr import InputError, ops

# Two queries of one rewrite each in the plane; three frames; query 1 has a caption for frame 2.
SIMPLE = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
DETAILED = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])
AGNOSTIC = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
AWARE = torch.tensor([[0.0, 5.0]])
FRAMES = torch.tensor([2])
SPLITS = torch.tensor([0, 0, 1])
INPUTS = (SIMPLE, DETAILED, AGNOSTIC, AWARE, FRAMES, SPLITS)


def test_scores_by_hand() -> None:
    # cos(simple, agnostic): [1, 0, -1], [0, 1, 0]; cos(detailed, aware or agnostic): [0, 1, 0],
    # [0, 1, 1]. g = (1 + cos) / 2.
    expected = torch.tensor([[0.75, 0.75, 0.25], [0.5, 1.0, 0.75]])
    torch.testing.assert_close(ops.granular_scores(*INPUTS), expected)


def test_the_ablations_single_channels() -> None:
    simple = ops.granular_scores(*INPUTS, agnostic_weight=1, aware_weight=0)
    torch.testing.assert_close(simple, torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 0.5]]))
    detailed = ops.granular_scores(*INPUTS, agnostic_weight=0, aware_weight=1)
    torch.testing.assert_close(detailed, torch.tensor([[0.5, 1.0, 0.5], [0.5, 1.0, 1.0]]))


def test_min_max_by_hand() -> None:
    scores = ops.granular_scores(*INPUTS, normalization="min_max")
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.75, 0.0], [0.0, 1.0, 0.5]]))


def test_min_max_of_a_constant_channel_is_zero() -> None:
    # Rounding makes the cosines of proportional captions differ in the last bit.
    caption = torch.randn(64, generator=torch.Generator().manual_seed(0))
    captions = caption * torch.linspace(0.1, 9, 23).unsqueeze(1)
    query = torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(1))
    none = torch.zeros(0, dtype=torch.int64)
    scores = ops.granular_scores(
        query, query, captions, captions[:0], none, torch.tensor([0, 0]), normalization="min_max"
    )
    assert torch.equal(scores, torch.zeros(1, 23))


def test_length_of_the_embeddings_does_not_matter() -> None:
    scores = ops.granular_scores(*INPUTS)
    scaled = ops.granular_scores(SIMPLE * 7, DETAILED / 3, AGNOSTIC * 11, AWARE, FRAMES, SPLITS)
    torch.testing.assert_close(scores, scaled)


def test_a_nan_caption_spoils_its_own_frame_only() -> None:
    spoiled = AGNOSTIC.clone()
    spoiled[1] = torch.nan
    scores = ops.granular_scores(SIMPLE, DETAILED, spoiled, AWARE, FRAMES, SPLITS)
    assert scores[:, 1].isnan().all()
    torch.testing.assert_close(scores[:, ::2], ops.granular_scores(*INPUTS)[:, ::2])


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({0: SIMPLE[0]}, r"granular_scores: simple must be \[Q, m, D\], got \[1, 2\]"),
        ({0: SIMPLE[:, :0]}, r"m >= 1 and D >= 1, got \[2, 0, 2\]"),
        ({1: DETAILED[:1]}, r"detailed must be \[Q, m, D\] like simple, got \[1, 1, 2\]"),
        ({2: AGNOSTIC[:, :1]}, r"agnostic must be \[F, D\] with simple's D, got \[3, 1\]"),
        ({2: AGNOSTIC[:0]}, r"agnostic must be \[F, D\] with F >= 1, got \[0, 2\]"),
        ({3: AWARE[0]}, r"aware must be \[R, D\] with simple's D, got \[2\]"),
        ({4: FRAMES[:0]}, r"aware_frames must be \[R\] with aware's R, got \[0\]"),
        ({5: SPLITS[:2]}, r"aware_splits must be \[Q \+ 1\] with simple's Q, got \[2\]"),
        ({0: SIMPLE.int()}, "simple must be float32, float64, float16 or bfloat16, got Int"),
        ({2: AGNOSTIC.double()}, "agnostic must have the dtype of simple, Float, got Double"),
        ({4: FRAMES.int()}, "aware_frames must be int64, got Int"),
        ({5: torch.tensor([0, 0, 2])}, "aware_splits must go from 0 to R = 1, got 0 to 2"),
        (
            {5: torch.tensor([0, 2, 1])},
            "aware_splits must not descend, got 2 and then 1 at query 1",
        ),
        ({4: torch.tensor([3])}, r"lie in \[0, F = 3\), got 3 after -1 at row 0"),
        ({4: torch.tensor([-1])}, r"lie in \[0, F = 3\), got -1 after -1 at row 0"),
    ],
)
def test_wrong_score_inputs(replaced: dict[int, Tensor], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.granular_scores(*(replaced.get(place, value) for place, value in enumerate(INPUTS)))


def test_frames_of_a_query_must_ascend() -> None:
    twice = (AWARE.repeat(2, 1), torch.tensor([2, 2]), torch.tensor([0, 0, 2]))
    with pytest.raises(RuntimeError, match=r"must ascend within a query .* got 2 after 2 at row 1"):
        ops.granular_scores(SIMPLE, DETAILED, AGNOSTIC, *twice)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="normalization must be one of cosine, min_max, got 'max'"):
        ops.granular_scores(*INPUTS, normalization="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="length_normalization must be one of duration, max, got"):
        propose([1.0], length_normalization="min")


def propose(
    scores: list[float], **changes: Any
) -> tuple[list[list[int]], list[float], list[float]]:
    settings = {"max_gap": 0, "drop_percent": 0.0, **changes}
    spans, ranked, means, counts = ops.granular_proposals(
        torch.tensor([scores]), torch.tensor([len(scores)]), torch.tensor([0.5]), **settings
    )
    count = int(counts[0])
    assert (spans[0, count:] == -1).all()
    assert (ranked[0, count:] == -math.inf).all()
    assert (means[0, count:] == -math.inf).all()
    return spans[0, :count].tolist(), ranked[0, :count].tolist(), means[0, :count].tolist()


def test_proposals_by_hand() -> None:
    spans, ranked, means = propose([1.0, 0.5, 0.0, 0.0, 0.75, 0.0, 0.75, 0.25])
    assert spans == [[0, 1], [4, 4], [6, 6]]
    assert means == pytest.approx([0.75, 0.75, 0.75])
    assert ranked == pytest.approx([0.7 * 0.75 + 0.3 * length / 8 for length in (2, 1, 1)])


def test_a_gap_is_bridged_up_to_max_gap_and_counts_in_the_mean() -> None:
    scores = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert propose(scores, max_gap=1)[::2] == ([[0, 2], [5, 5]], pytest.approx([2 / 3, 1.0]))
    assert propose(scores, max_gap=2)[::2] == ([[0, 5]], pytest.approx([0.5]))


def test_length_by_the_longest_proposal() -> None:
    _, ranked, _ = propose([0.5, 0.5, 0.0, 0.5], length_normalization="max", length_weight=1.0)
    assert ranked == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(
    ("percent", "kept"),
    [(0, [0, 2, 4, 6]), (24, [0, 2, 4, 6]), (25, [0, 2, 4]), (50, [0, 4]), (100, [4])],
)
def test_the_lowest_means_are_dropped_and_of_equal_ones_the_later(
    percent: int, kept: list[int]
) -> None:
    spans, _, _ = propose([0.75, 0, 0.625, 0, 0.875, 0, 0.625], drop_percent=percent)
    assert [first for first, _ in spans] == kept


def test_nan_is_never_high_and_no_part_of_the_mean() -> None:
    spans, _, means = propose([1.0, math.nan, 1.0, 0.25, 1.0, math.nan], max_gap=1)
    assert spans == [[0, 4]]
    assert means == pytest.approx([3.25 / 4])


def test_a_nan_threshold_gives_no_proposals() -> None:
    *_, counts = ops.granular_proposals(
        torch.ones(1, 4), torch.tensor([4]), torch.tensor([torch.nan]), max_gap=0, drop_percent=0
    )
    assert counts.tolist() == [0]


@pytest.mark.parametrize("max_gap", [0, 1, 2, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9])
def test_slots_hold_the_most_proposals_there_can_be(frames: int, max_gap: int) -> None:
    scores = torch.zeros(1, frames)
    scores[:, :: max_gap + 2] = 1
    spans, _, _, counts = ops.granular_proposals(
        scores, torch.tensor([frames]), torch.tensor([0.5]), max_gap=max_gap, drop_percent=0
    )
    assert counts.item() == spans.shape[1]


def test_proposals_have_no_gradient() -> None:
    scores = torch.ones(1, 4, requires_grad=True)
    _, ranked, means, _ = ops.granular_proposals(
        scores, torch.tensor([4]), torch.tensor([0.5]), max_gap=0, drop_percent=0
    )
    assert not ranked.requires_grad
    assert not means.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": torch.ones(4)}, r"granular_proposals: scores must be \[Q, F\], got \[4\]"),
        ({"scores": torch.ones(1, 0)}, r"scores must be \[Q, F\] with F >= 1, got \[1, 0\]"),
        ({"lengths": torch.tensor([5])}, "lengths must be between 0 and 4, got 5 at query 0"),
        ({"lengths": torch.tensor([-1])}, "lengths must be between 0 and 4, got -1 at query 0"),
        ({"thresholds": torch.ones(2)}, r"thresholds must be \[Q\] with scores' Q, got \[2\]"),
        ({"thresholds": torch.ones(1).half()}, "thresholds must have the dtype of scores, Float"),
        ({"max_gap": -1}, "max_gap must be at least 0, got -1"),
        ({"drop_percent": 101.0}, "drop_percent must be between 0 and 100, got 101"),
        ({"length_weight": 1.5}, "length_weight must be between 0 and 1, got 1.5"),
        ({"length_weight": math.nan}, "length_weight must be between 0 and 1, got nan"),
    ],
)
def test_wrong_proposal_inputs(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {
        "scores": torch.ones(1, 4),
        "lengths": torch.tensor([4]),
        "thresholds": torch.ones(1),
        "max_gap": 0,
        "drop_percent": 0.0,
    }
    with pytest.raises(RuntimeError, match=message):
        ops.granular_proposals(**{**inputs, **changes})


def test_inductor_compiles_scores_and_gradients() -> None:
    """One case through the default compiler; the others trace only (test_every_op.py)."""

    def loss(simple: Tensor, agnostic: Tensor) -> Tensor:
        scores = ops.granular_scores(simple, DETAILED, agnostic, AWARE, FRAMES, SPLITS)
        return scores.exp().sum()

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        tensors = SIMPLE.clone().requires_grad_(), AGNOSTIC.clone().requires_grad_()
        found.append(torch.autograd.grad(function(*tensors), tensors))
    for result, wanted in zip(*found, strict=True):
        torch.testing.assert_close(result, wanted)
