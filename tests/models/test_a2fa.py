"""A2FA as a module: the paper's equations, every switch, what is kept, and every way to run it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.models.detr_case import draw_weights, numbers
from vmr.errors import InputError
from vmr.models.layers.a2fa import A2FA
from vmr.models.layers.f2sgd import F2SGD

DIM, ROWS = 6, 9
LENGTHS = torch.tensor([9, 5, 1, 7])


def module(**settings: Any) -> A2FA:
    """With weights that matter: w and beta of eq. 9 too."""
    made = A2FA(DIM, **settings)
    draw_weights(made)
    if made.reweight:
        nn.init.constant_(made.scale, 0.7)
        nn.init.constant_(made.shift, 0.3)
    return made.double()


def case(videos: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    frames = numbers("frames", videos, ROWS, DIM).double() + 0.5
    queries = numbers("queries", videos, DIM).double() + 0.3
    return frames, LENGTHS[:videos], queries


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a, b, dim=0, eps=1e-30).item()


def paper_segment(v: Tensor, q: Tensor, *, reach_end: bool = False) -> tuple[int, int]:
    """Eqs. 1 to 5, with frames counted from 0."""
    count = len(v)
    embedded = [cosine(q, f) * q + (1 - cosine(q, f)) * f for f in v]
    anchor = int(np.argmax([cosine(f, q) for f in embedded]))

    def left(b: int) -> float:
        return sum(cosine(embedded[0], embedded[i]) for i in range(1, b + 1)) + sum(
            cosine(embedded[anchor], embedded[j]) for j in range(b + 1, anchor + 1)
        )

    last = count - 1 if reach_end else count

    def right(b: int) -> float:
        return sum(cosine(embedded[anchor], embedded[i]) for i in range(anchor, b + 1)) + sum(
            cosine(embedded[-1], embedded[j]) for j in range(b + 1, last)
        )

    begin = max(range(anchor + 1), key=left)
    end = max(range(anchor, count), key=right)
    return begin, end


def paper(
    a2fa: A2FA, v: Tensor, q: Tensor, segment: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Eqs. 1 to 12 as they stand, on one video's frames [N, D] and one sentence [D]."""
    if a2fa.normalize:
        v, q = F.normalize(v, dim=-1), F.normalize(q, dim=-1)
    begin, end = segment or paper_segment(v, q, reach_end=a2fa.reach_end)
    mask = torch.full((len(v),), -torch.inf, dtype=v.dtype)
    mask[begin : end + 1] = 0
    relevance = torch.ones_like(mask)
    if a2fa.reweight:
        attention = (a2fa.pool_key(v) @ a2fa.pool_query(q) + mask).softmax(dim=0)
        pooled = attention @ a2fa.pool_value(v)
        compared = a2fa.relevance_frame(v) @ a2fa.relevance_pooled(pooled)
        relevance = (a2fa.scale * compared + a2fa.shift).tanh()
    weighted = relevance[:, None] * v
    alpha = torch.zeros_like(mask)
    if a2fa.align_frames:
        alpha = (a2fa.alignment_frame(weighted) @ a2fa.alignment_query(q) + mask).sigmoid()
    return alpha[:, None] * q + (1 - alpha[:, None]) * weighted, mask == 0


# ---- the paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": True},
        {"normalize": False},
        {"normalize": False, "bias": True},
        {"reach_end": True},
        {"reweight": False},
        {"align": False},
        {"reweight": False, "align": False},
    ],
    ids=str,
)
def test_the_equations(settings: dict[str, Any]) -> None:
    a2fa = module(**settings)
    frames, lengths, queries = case()
    broken = frames.clone()
    for row, length in enumerate(lengths.tolist()):
        broken[row, length:] = torch.nan
    for learning in (True, False):  # on the plain path, and with what is kept
        with torch.set_grad_enabled(learning):
            found, inside = a2fa(broken, lengths, queries)
        for row, length in enumerate(lengths.tolist()):
            expected, mask = paper(a2fa, frames[row, :length], queries[row])
            torch.testing.assert_close(found[row, :length], expected)
            assert torch.equal(inside[row, :length], mask)
            assert found[row, length:].eq(0).all()
            assert not inside[row, length:].any()


def test_gradients_are_those_of_the_equations() -> None:
    a2fa = module(bias=True)
    frames, lengths, queries = case()
    away = numbers("away", 4, ROWS, DIM).double()
    found: list[list[Tensor]] = []
    for literal in (False, True):
        a2fa.zero_grad()
        own = [value.clone().requires_grad_() for value in (frames, queries)]
        if literal:
            parts = [
                paper(a2fa, own[0][row, :length], own[1][row])[0]
                for row, length in enumerate(lengths.tolist())
            ]
            aligned = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        else:
            aligned, _ = a2fa(own[0], lengths, own[1])
        (aligned * away).sum().backward()
        gradients = [value.grad for value in (*own, *a2fa.parameters())]
        found.append([g for g in gradients if g is not None])
    assert len(found[0]) == 2 + len(list(a2fa.parameters()))
    torch.testing.assert_close(found[0], found[1])


def test_ready_segments() -> None:
    a2fa = module()
    frames, lengths, queries = case()
    segments = torch.tensor([[2, 6], [4, 4], [0, 0], [0, 6]])
    found, inside = a2fa(frames, lengths, queries, segments=segments)
    for row, (length, segment) in enumerate(zip(lengths.tolist(), segments.tolist(), strict=True)):
        expected, mask = paper(a2fa, frames[row, :length], queries[row], segment)
        torch.testing.assert_close(found[row, :length], expected)
        assert torch.equal(inside[row, :length], mask)


def test_another_models_anchor() -> None:
    a2fa = module()
    frames, lengths, queries = case()
    seen, asked = numbers("seen", 4, ROWS, 4).double(), numbers("asked", 4, 4).double()
    found, inside = a2fa(frames, lengths, queries, anchor_frames=seen, anchor_queries=asked)
    for row, length in enumerate(lengths.tolist()):
        segment = paper_segment(seen[row, :length], asked[row])
        expected, mask = paper(a2fa, frames[row, :length], queries[row], segment)
        torch.testing.assert_close(found[row, :length], expected)
        assert torch.equal(inside[row, :length], mask)


def test_queries_share_videos() -> None:
    a2fa = module()
    frames, lengths, _ = case()
    queries = numbers("more", 6, DIM).double()
    videos = torch.tensor([2, 0, 0, 3, 1, 0])
    shared, inside = a2fa(frames, lengths, queries, videos)
    apart, expected = a2fa(frames[videos], lengths[videos], queries)
    torch.testing.assert_close(shared, apart)
    assert torch.equal(inside, expected)
    video = a2fa.frames(frames, lengths)
    similarity = a2fa.similarity(video, a2fa.align(video, queries, videos))
    directions = F.normalize(shared, dim=-1)
    torch.testing.assert_close(similarity, directions @ directions.mT)


def test_no_queries() -> None:
    frames, lengths, _ = case()
    none = torch.zeros(0, dtype=torch.int64)
    found, inside = module()(frames, lengths, frames.new_zeros(0, DIM), none)
    assert list(found.shape) == [0, ROWS, DIM]
    assert list(inside.shape) == [0, ROWS]


# ---- what is kept -----------------------------------------------------------------------------------


def answer(a2fa: A2FA) -> Tensor:
    frames, lengths, queries = (
        part.to(a2fa.scale.dtype) if part.is_floating_point() else part for part in case()
    )
    with torch.no_grad():
        aligned: Tensor = a2fa(frames, lengths, queries)[0]
    return aligned


def plain(a2fa: A2FA) -> Tensor:
    frames, lengths, queries = (
        part.to(a2fa.scale.dtype) if part.is_floating_point() else part for part in case()
    )
    aligned: Tensor = a2fa(frames, lengths, queries)[0]
    assert aligned.requires_grad
    return aligned.detach()


def test_what_is_kept_follows_the_weights() -> None:
    a2fa = module()
    before = answer(a2fa)
    torch.testing.assert_close(before, plain(a2fa))
    optimiser = torch.optim.Adam(a2fa.parameters(), lr=0.1)
    frames, lengths, queries = case()
    a2fa(frames, lengths, queries)[0].square().sum().backward()
    optimiser.step()
    after = answer(a2fa)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(after, plain(a2fa))

    copied, stored = copy.deepcopy(a2fa), pickle.loads(pickle.dumps(a2fa))
    other = module()
    answer(other)
    other.load_state_dict(a2fa.state_dict())
    for again in (copied, stored, other):
        torch.testing.assert_close(answer(again), after)
    with torch.no_grad():
        copied.alignment_query.weight.mul_(-1)
    assert (answer(copied) - after).abs().max() > 1e-2
    torch.testing.assert_close(answer(copied), plain(copied))
    torch.testing.assert_close(answer(a2fa), after)

    a2fa.to(torch.float32)
    assert answer(a2fa).dtype == torch.float32
    torch.testing.assert_close(answer(a2fa).double(), after, rtol=1e-4, atol=1e-5)
    a2fa.to(torch.float64)
    torch.testing.assert_close(answer(a2fa), plain(a2fa))
    # New storage each time, which the allocator may put where the last but one was.
    for factor in (2.0, 3.0, 0.1):
        for weight in a2fa.parameters():
            weight.data = weight.data * factor
            weight.data = weight.data * factor
        torch.testing.assert_close(answer(a2fa), plain(a2fa))


def test_a_frozen_module_passes_gradients_on() -> None:
    frames, lengths, queries = case()
    found = []
    for frozen in (False, True):
        a2fa = module().requires_grad_(not frozen)
        own = queries.clone().requires_grad_()
        a2fa(frames, lengths, own)[0].square().sum().backward()
        found.append(own.grad)
    torch.testing.assert_close(*found)


def test_inference_mode() -> None:
    a2fa = module()
    frames, lengths, queries = case()
    with torch.inference_mode():
        found, _ = a2fa(frames, lengths, queries)
    torch.testing.assert_close(found, plain(a2fa))


# ---- compiled, exported, in half precision, on two processes -----------------------------------------


class Together(nn.Module):
    """Both plug-ins: A2FA's frames are what F2SGD reads."""

    def __init__(self) -> None:
        super().__init__()
        self.alignment = A2FA(DIM)
        self.detection = F2SGD(3, channels=4, hidden=4)
        draw_weights(self)

    def forward(self, frames: Tensor, lengths: Tensor, queries: Tensor) -> Tensor:
        aligned, _ = self.alignment(frames, lengths, queries)
        scores: Tensor = self.detection(aligned, lengths)
        return scores


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    frames, lengths, queries = case()
    return frames.float(), lengths, queries.float()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("learning", [True, False])
def test_compiles_whole(backend: str, learning: bool) -> None:
    model = Together()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.set_grad_enabled(learning):
        torch.testing.assert_close(compiled(*inputs()), model(*inputs()), rtol=1e-4, atol=1e-5)
    if learning:
        gradients = []
        for run in (compiled, model):
            model.zero_grad()
            run(*inputs()).square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_exports() -> None:
    model = Together().eval()
    program = torch.export.export(model, inputs())
    torch.testing.assert_close(program.module()(*inputs()), model(*inputs()), rtol=1e-4, atol=1e-5)


def test_exports_for_batches_and_videos_of_any_size() -> None:
    model = A2FA(DIM).eval()
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows", max=64)
    program = torch.export.export(
        model, inputs(), dynamic_shapes=({0: batch, 1: rows}, {0: batch}, {0: batch})
    ).module()
    frames, lengths, queries = inputs()
    for given in (inputs(), (frames[:2, :7], lengths[:2].clamp(max=7), queries[:2])):
        torch.testing.assert_close(program(*given)[0], model(*given)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learning", [True, False])
def test_works_under_autocast(learning: bool) -> None:
    model = Together()
    expected = model(*inputs())
    with torch.set_grad_enabled(learning), torch.autocast("cpu", torch.bfloat16):
        found = model(*inputs())
    valid = torch.arange(ROWS) < LENGTHS[:, None]
    valid = valid[:, :, None] & valid[:, None]
    torch.testing.assert_close(found.float()[valid], expected[valid], rtol=0.05, atol=0.1)
    if learning:
        found.float()[valid].square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def process(rank: int, store: str) -> None:
    """Half of the videos on each of two processes; the first keeps the gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    # With biases each of the parameters still has a gradient, without which processes would wait.
    biased = DistributedDataParallel(A2FA(DIM, bias=True))
    for _ in range(2):
        biased(*inputs())[0].sum().backward()
    model = DistributedDataParallel(Together())
    half = slice(2 * rank, 2 * rank + 2)
    squared(model(*(part[half] for part in inputs())), LENGTHS[half]).backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{store}.gradients")
    torch.distributed.destroy_process_group()


def squared(scores: Tensor, lengths: Tensor) -> Tensor:
    valid = torch.arange(ROWS) < lengths[:, None]
    return scores.masked_fill(~(valid[:, :, None] & valid[:, None]), 0.0).square().sum() / len(
        lengths
    )


def test_two_processes_are_one(tmp_path: Path) -> None:
    store = tmp_path / "store"
    torch.multiprocessing.spawn(process, (str(store),), nprocs=2)
    model = Together()
    squared(model(*inputs()), LENGTHS).backward()
    found = torch.load(f"{store}.gradients", weights_only=True)
    torch.testing.assert_close(found, [p.grad for p in model.parameters()], rtol=1e-4, atol=1e-5)


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": torch.zeros(4, 9, 5)}, r"frames: expected \[U, N, 6\], got \[4, 9, 5\]"),
        (
            {"queries": torch.zeros(4, 5)},
            r"queries: expected \[B, 6\], one vector a sentence, got \[4, 5\]",
        ),
        ({"queries": torch.zeros(3, 6)}, "a query for each of 4 videos, or `videos` .* got 3"),
        ({"videos": torch.zeros(3, dtype=torch.int64)}, r"videos: expected \[4\], got \[3\]"),
        ({"segments": torch.zeros(4, 3)}, r"segments: expected \[4, 2\], got \[4, 3\]"),
        ({"anchor_frames": torch.zeros(4, 9, 3)}, "anchor_queries together, got one"),
        (
            {"anchor_frames": torch.zeros(4, 8, 3), "anchor_queries": torch.zeros(4, 3)},
            r"expected \[4, 9, E\] and \[4, E\], got \[4, 8, 3\] and \[4, 3\]",
        ),
    ],
)
def test_bad_shapes_are_named(changes: dict[str, Tensor], message: str) -> None:
    frames, lengths, queries = inputs()
    given = {"frames": frames, "lengths": lengths, "queries": queries, **changes}
    with pytest.raises(InputError, match=message):
        A2FA(DIM)(**given)


@pytest.mark.parametrize("segment", [(1, 4), (2, 1), (-1, 0)])
def test_ready_segments_lie_within_their_video(segment: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"within the video's 3, got .* for query 1"):
        A2FA(2)(
            torch.ones(2, 5, 2),
            torch.tensor([5, 3]),
            torch.ones(2, 2),
            segments=torch.tensor([(0, 4), segment]),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zero_vectors_in_half_precision(dtype: torch.dtype) -> None:
    frames, queries = torch.ones(2, 3, DIM, dtype=dtype), torch.ones(2, DIM, dtype=dtype)
    frames[0, 1], queries[1] = 0, 0
    aligned, _ = A2FA(DIM).to(dtype)(frames, torch.tensor([3, 3]), queries)
    assert bool(aligned.isfinite().all())


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match="dim: expected at least 1, got 0"):
        A2FA(0)
    assert "reach_end=True" in repr(A2FA(3, reach_end=True))
