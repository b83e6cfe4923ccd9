"""The feature alignment on examples worked by hand, beside loops that read as the paper does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops

LENGTHS, VIDEOS = torch.tensor([9, 4, 6]), torch.tensor([1, 0, 2, 0])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(seed: int = 0) -> dict[str, Tensor]:
    """The arguments of frame_alignment."""
    return {
        "frames": draw(3, 9, 6, seed=seed),
        "queries": draw(4, 6, seed=seed + 1),
        "relevance_vectors": draw(4, 6, seed=seed + 2),
        "relevance_offsets": draw(4, seed=seed + 3),
        "alignment_vectors": draw(4, 6, seed=seed + 4),
        "alignment_offsets": draw(4, seed=seed + 5),
        "segments": torch.tensor([[0, 3], [2, 5], [1, 1], [0, 8]]),
        "lengths": LENGTHS,
        "videos": VIDEOS,
    }


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def segment_by_loops(v: Tensor, q: Tensor, reach_end: bool) -> tuple[int, int, int]:
    """Eqs. 1 to 5 as they stand, counted from 0."""
    v, q = F.normalize(v, dim=-1), F.normalize(q, dim=-1)
    n = len(v)
    e = [cosine(q, v[i]) * q + (1 - cosine(q, v[i])) * v[i] for i in range(n)]
    anchor = max(range(n), key=lambda i: cosine(e[i], q))

    def left(b: int) -> float:
        first = sum(cosine(e[0], e[i]) for i in range(1, b + 1))
        return first + sum(cosine(e[anchor], e[j]) for j in range(b + 1, anchor + 1))

    def right(b: int) -> float:
        until = n - 1 if reach_end else n
        own = sum(cosine(e[anchor], e[i]) for i in range(anchor, b + 1))
        return own + sum(cosine(e[n - 1], e[j]) for j in range(b + 1, until))

    return anchor, max(range(anchor + 1), key=left), max(range(anchor, n), key=right)


@pytest.mark.parametrize("reach_end", [False, True])
def test_segments_equal_the_papers_loops(reach_end: bool) -> None:
    frames, queries = draw(40, 11, 5, seed=3), draw(40, 5, seed=4)
    lengths = torch.arange(40) % 11 + 1
    anchors, segments = ops.anchor_segment(frames, queries, lengths, reach_end=reach_end)
    for video, length in enumerate(lengths.tolist()):
        wanted = segment_by_loops(frames[video, :length], queries[video], reach_end)
        assert (int(anchors[video]), *segments[video].tolist()) == wanted


def test_the_last_frame_is_out_of_reach_unless_asked_for() -> None:
    # In the plane: the anchor is the first frame, and the last one is like it.
    frames = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.1, 1.0]]])
    queries, lengths = torch.tensor([[0.0, 1.0]]), torch.tensor([3])
    anchors, segments = ops.anchor_segment(frames, queries, lengths)
    assert (anchors.tolist(), segments[0, 1].item() < 2) == ([0], True)
    _, segments = ops.anchor_segment(frames, queries, lengths, reach_end=True)
    assert segments.tolist() == [[0, 2]]
    *_, without = ops.anchor_segment(draw(300, 9, 4), draw(300, 4, seed=1), torch.full((300,), 9))
    anchors, _ = ops.anchor_segment(draw(300, 9, 4), draw(300, 4, seed=1), torch.full((300,), 9))
    assert ((without[:, 1] < 8) | (anchors == 8)).all()


def test_ties_go_to_the_first_frame_and_zero_vectors_have_cosine_zero() -> None:
    equal = draw(1, 1, 70).float().expand(1, 9, 70)
    for frames, queries in (
        (equal, draw(1, 70, seed=1)),
        (equal * 0, draw(1, 70)),
        (equal, 0 * equal[:, 0]),
    ):
        anchors, segments = ops.anchor_segment(
            frames.float(), queries.float(), torch.tensor([9]), reach_end=False
        )
        assert (anchors.tolist(), segments[:, 0].tolist()) == ([0], [0])


def test_length_of_the_vectors_matters_only_without_normalize() -> None:
    frames, queries = draw(8, 9, 5), draw(8, 5, seed=1)
    lengths = torch.full((8,), 9)
    scaled = frames * draw(8, 9, 1, seed=2).exp(), queries * 5, lengths
    plain = ops.anchor_segment(frames, queries, lengths)
    for result, wanted in zip(ops.anchor_segment(*scaled), plain, strict=True):
        assert torch.equal(result, wanted)
    changed = ops.anchor_segment(*scaled, normalize=False)
    assert not torch.equal(changed[1], plain[1])


def test_attention_by_hand() -> None:
    frames = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [torch.nan] * 2]])
    pooled, weights = ops.attention_pool(
        frames, torch.tensor([[5.0, math.log(3.0)]]), torch.tensor([[1, 2]])
    )
    # Logits 2 log 3 and log 3: weights 9 / 12 and 3 / 12.
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.75, 0.25, 0.0]]))
    torch.testing.assert_close(pooled, torch.tensor([[0.0, 1.75]]))


def test_relevance_and_alignment_by_hand() -> None:
    one = torch.tensor([1.0])
    arguments: tuple[Tensor, ...] = (
        torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]]),
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([[0.5, -1.0]]),
        one,
        torch.tensor([[2.0, 1.0]]),
        -one,
        torch.tensor([[1, 1]]),
        torch.tensor([2]),
    )
    relevance, weights, dots = ops.frame_alignment(*arguments)
    r = [math.tanh(1.5), math.tanh(-1.0), 0.0]
    torch.testing.assert_close(relevance, torch.tensor([r]))
    alpha = 1 / (1 + math.exp(-(r[1] * 2 - 1)))
    torch.testing.assert_close(weights, torch.tensor([[0.0, alpha, 0.0]]))
    torch.testing.assert_close(dots, torch.tensor([[3.0, 8.0, 0.0]]))
    relevance, weights, _ = ops.frame_alignment(*arguments, reweight=False)
    assert relevance.tolist() == [[1, 1, 0]]
    torch.testing.assert_close(weights[0, 1], torch.tensor(1 / (1 + math.exp(-1))))
    assert not ops.frame_alignment(*arguments, align=False)[1].any()


def similarity(given: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    relevance, weights, dots = ops.frame_alignment(**given)
    norms = given["queries"].square().sum(1)
    gram = ops.gram_matrix(given["frames"], LENGTHS)
    found = ops.aligned_similarity(gram, dots, norms, relevance, weights, LENGTHS, given["videos"])
    return found, relevance, weights


def test_similarity_is_that_of_the_aligned_frames() -> None:
    given = inputs()
    found, relevance, weights = similarity(given)
    aligned = ops.aligned_frames(
        given["frames"], given["queries"], relevance, weights, LENGTHS, VIDEOS
    )
    unit = F.normalize(aligned, dim=-1)
    torch.testing.assert_close(found, unit @ unit.mT, rtol=0, atol=1e-9)
    # Outside of the segment nothing is aligned.
    cosines = F.normalize(given["frames"][0], dim=-1)
    signs = relevance[1].sign()
    wanted = signs[:, None] * signs * (cosines @ cosines.mT)
    torch.testing.assert_close(found[1, 6:, 6:], wanted[6:, 6:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_frame_that_cancels_out_with_the_query_stays_bounded(dtype: torch.dtype) -> None:
    # v parallel to q and (1 - alpha) r = -alpha: the first aligned frame is zero but for rounding.
    frames = draw(1, 3, 64).to(dtype)
    queries = frames[:, 0].clone()
    relevance = torch.tensor([[-0.3 / 0.7, 0.5, -0.5]], dtype=dtype)
    weights = torch.tensor([[0.3, 0.2, 0.1]], dtype=dtype)
    lengths = torch.tensor([3])
    tensors = [
        ops.gram_matrix(frames, lengths),
        (frames @ queries[..., None]).squeeze(-1),
        queries.square().sum(1),
        relevance,
        weights,
    ]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    found = ops.aligned_similarity(*leaves, lengths)
    assert found.isfinite().all()
    assert (found.abs() <= 1).all()
    for gradient in torch.autograd.grad(found.sum(), leaves):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e4


def run_all(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    lengths, about = given["lengths"], given["videos"]
    found = ops.anchor_segment(given["frames"], given["queries"], lengths, about)
    pooled = ops.attention_pool(given["frames"], given["queries"], given["segments"], about)
    gram = ops.gram_matrix(given["frames"], lengths)
    return (*found, *pooled, gram, *similarity(given))


def test_what_lies_in_the_padding_changes_nothing() -> None:
    given = inputs()
    given["segments"] = torch.tensor([[0, 3], [2, 5], [1, 1], [0, 8]])
    spoiled = {**given, "frames": given["frames"].clone()}
    for video, length in enumerate(LENGTHS.tolist()):
        spoiled["frames"][video, length:] = torch.nan
    for result, wanted in zip(run_all(spoiled), run_all(given), strict=True):
        assert torch.equal(result, wanted)


def test_queries_do_not_depend_on_one_another() -> None:
    given = inputs()
    together = run_all(given)
    per_query = [name for name in given if name not in ("frames", "lengths")]
    for query in range(4):
        alone = run_all({**given, **{name: given[name][query : query + 1] for name in per_query}})
        for place, (result, wanted) in enumerate(zip(alone, together, strict=True)):
            if place != 4:  # the Gram matrices, one a video
                assert torch.equal(result[0], wanted[query])


def test_a_video_without_padding_needs_no_videos() -> None:
    given = inputs()
    own = torch.arange(3)
    queries, lengths = given["queries"][:3], LENGTHS
    for result, wanted in zip(
        ops.anchor_segment(given["frames"], queries, lengths),
        ops.anchor_segment(given["frames"], queries, lengths, own),
        strict=True,
    ):
        assert torch.equal(result, wanted)


def test_gradients_are_made_only_where_they_are_wanted() -> None:
    given = inputs()
    for name in ("relevance_vectors", "alignment_vectors"):
        given[name].requires_grad_()
    found, _, _ = similarity(given)
    frozen = torch.autograd.grad(
        found.exp().sum(), (given["relevance_vectors"], given["alignment_vectors"])
    )
    for name in ("frames", "queries"):
        given[name].requires_grad_()
    found, _, _ = similarity(given)
    found.exp().sum().backward()
    for gradient, name in zip(frozen, ("relevance_vectors", "alignment_vectors"), strict=True):
        torch.testing.assert_close(gradient, given[name].grad)
    assert given["frames"].grad is not None
    assert given["queries"].grad is not None


def frame_alignment(**changes: Tensor) -> Any:
    return ops.frame_alignment(**{**inputs(), **changes})


def aligned_similarity(**changes: Tensor) -> Any:
    arguments = {
        "gram": draw(3, 9, 9),
        "query_dots": draw(4, 9),
        "query_norms": torch.ones(4).double(),
        "relevance": draw(4, 9),
        "weights": draw(4, 9),
        "lengths": LENGTHS,
        "videos": VIDEOS,
    }
    return ops.aligned_similarity(**{**arguments, **changes})


ALIGNMENT_RULES: list[tuple[dict[str, Tensor], str]] = [
    ({"frames": draw(9, 6)}, r"frame_alignment: frames must be \[U, N, D\], got \[9, 6\]"),
    ({"frames": draw(3, 0, 6)}, r"with N >= 1 and D >= 1, got \[3, 0, 6\]"),
    ({"frames": draw(3, 9, 6).int()}, "frames must be float32, float64, float16 or bfloat16, got"),
    ({"queries": draw(4, 5)}, r"queries must be \[B, D\] with frames' D, got \[4, 5\]"),
    ({"queries": draw(4, 6).float()}, "queries must have the dtype of frames, Double, got Float"),
    ({"relevance_vectors": draw(3, 6)}, r"relevance_vectors must be \[B, D\] like queries, got"),
    ({"alignment_offsets": draw(1)}, r"alignment_offsets must be \[B\] with queries' B, got \[1\]"),
    ({"segments": torch.zeros(4)}, r"segments must be \[B, 2\], one a query, got \[4\]"),
    (
        {"segments": torch.tensor([[3, 2]] * 4)},
        r"\(first, last\) with 0 <= first <= last < N = 9, got \(3, 2\) at query 0",
    ),
    ({"segments": torch.tensor([[3, 9]] * 4)}, r"got \(3, 9\) at query 0"),
    ({"lengths": torch.tensor([9, 10, 1])}, "must be between 1 and 9, got 10 at video 1"),
    ({"lengths": torch.tensor([9, 1, 0])}, "must be between 1 and 9, got 0 at video 2"),
    ({"lengths": LENGTHS[:2]}, r"lengths must be \[U\], one a video, got \[2\]"),
    ({"lengths": LENGTHS.int()}, "lengths must be int64, got Int"),
    ({"videos": VIDEOS[:2]}, r"videos must be \[B\], one a query, got \[2\]"),
    ({"videos": VIDEOS + 1}, r"videos must lie in \[0, U = 3\), got 3 at query 2"),
    ({"videos": VIDEOS - 1}, r"videos must lie in \[0, U = 3\), got -1 at query 1"),
]
SIMILARITY_RULES: list[tuple[dict[str, Tensor], str]] = [
    (
        {"gram": draw(3, 9, 8)},
        r"aligned_similarity: gram must be \[U, N, N\] with N >= 1, got \[3, 9, 8\]",
    ),
    ({"query_dots": draw(4, 8)}, r"query_dots must be \[B, N\] with gram's N, got \[4, 8\]"),
    ({"query_norms": draw(3)}, r"query_norms must be \[B\] with query_dots' B, got \[3\]"),
    ({"weights": draw(4, 9).half()}, "weights must have the dtype of gram, Double, got Half"),
    ({"videos": VIDEOS.float()}, "videos must be int64, got Float"),
]


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        *((frame_alignment, *rule) for rule in ALIGNMENT_RULES),
        *((aligned_similarity, *rule) for rule in SIMILARITY_RULES),
    ],
)
def test_wrong_inputs(call: Callable[..., Any], changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        call(**changes)
