"""A2FA + F2SGD as one model: what it learns, answers, shares, refuses; its parts have own tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

import vmr
from tests.models.detr_case import item
from vmr.data.dataset import Batch, Item, collate
from vmr.errors import InputError
from vmr.models.afa_fsgd import A2FAF2SGD, A2FAF2SGDConfig
from vmr.models.base import MomentModel
from vmr.models.layers.points import nearest_frames, window_points
from vmr.training.engine import in_float

DIM = 8
SMALL = A2FAF2SGDConfig(
    video_dim=DIM, text_dim=DIM, kernel_size=5, channels=4, head_hidden=4, top_k=3
)


def planted(count: int, seed: int = 0) -> Batch:
    """Frames of one window a video resemble the sentence; the others resemble each other."""
    random = torch.Generator().manual_seed(seed)
    items = []
    for place in range(count):
        rows = int(torch.randint(6, 13, (), generator=random))
        start = int(torch.randint(0, rows - 2, (), generator=random))
        end = int(torch.randint(start + 1, rows, (), generator=random))
        query, rest = torch.randn(2, DIM, generator=random)
        frames = rest + 0.3 * torch.randn(rows, DIM, generator=random)
        frames[start : end + 1] = query + 0.3 * torch.randn(end + 1 - start, DIM, generator=random)
        base = item(f"v{place}", rows, 1, [(2.0 * start, 2.0 * end + 2)])
        items.append(replace(base, video=frames, pooled=query, text=None))
    return collate(items)


def model(config: A2FAF2SGDConfig = SMALL, seed: int = 0) -> A2FAF2SGD:
    torch.manual_seed(seed)
    return A2FAF2SGD(config)


def test_it_learns_what_is_planted() -> None:
    learned, batch = model(SMALL), planted(32)
    optimiser = torch.optim.Adam(learned.parameters(), lr=5e-3)
    for _ in range(120):
        optimiser.zero_grad()
        learned.loss(learned(**learned.inputs(batch)), batch).total.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        optimiser.step()
    learned.eval()
    new = planted(40, seed=1)
    with torch.no_grad():
        found = learned.decode(learned(**learned.inputs(new)), new)
    right = [
        answer.pred_relevant_windows[0][:2] == tuple(query.windows[0])
        for answer, query in zip(found, new.queries, strict=True)
        if query.windows is not None and answer.pred_relevant_windows is not None
    ]
    assert len(right) == 40
    assert sum(right) >= 16


@pytest.mark.parametrize("alignment", ["full", "align", "reweight", "none", "embedded"])
def test_every_switch_learns_with_all_its_weights(alignment: str) -> None:
    learned = model(msgspec.structs.replace(SMALL, alignment=alignment))
    batch = planted(3)
    outputs = learned(**learned.inputs(batch))
    learned.loss(outputs, batch).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.parameters())
    reweights, aligns = alignment in ("full", "reweight"), alignment in ("full", "align")
    inside = outputs.weights > 0
    assert bool((outputs.relevance[:, :6] == 1).all()) is not reweights
    assert bool(inside.any()) is (aligns or alignment == "embedded")
    if aligns:
        places = torch.arange(batch.video.shape[1])
        segment = (places >= outputs.segments[:, :1]) & (places <= outputs.segments[:, 1:])
        assert torch.equal(inside, segment)


def test_without_alignment_the_map_is_the_same_for_all_sentences() -> None:
    plain = model(msgspec.structs.replace(SMALL, alignment="none"))
    video, lengths = torch.randn(1, 7, DIM), torch.tensor([7])
    outputs = plain(video, lengths, torch.randn(3, DIM), torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(outputs.similarity[0], outputs.similarity[2])
    unit = torch.nn.functional.normalize(video[0], dim=-1)
    torch.testing.assert_close(outputs.similarity[0], unit @ unit.T)


def test_the_embedded_frames_are_those_of_equation_1() -> None:
    alone = model(msgspec.structs.replace(SMALL, alignment="embedded"))
    video, query = torch.randn(1, 7, DIM), torch.randn(1, DIM)
    outputs = alone(video, torch.tensor([7]), query)
    v, q = (torch.nn.functional.normalize(part, dim=-1) for part in (video[0], query))
    c = (v @ q.T).clamp(-1, 1)
    e = torch.nn.functional.normalize(c * q + (1 - c) * v, dim=-1)
    torch.testing.assert_close(outputs.similarity[0], e @ e.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.before[0], c[:, 0])
    torch.testing.assert_close(outputs.after[0], (e @ q.T)[:, 0], rtol=1e-4, atol=1e-5)


def test_after_is_the_cosine_of_the_aligned_frames() -> None:
    full = model(msgspec.structs.replace(SMALL, relevance_scale=20.0))
    batch = planted(4)
    outputs = full(**full.inputs(batch))
    aligned, _ = full.alignment(batch.video, batch.video_lengths, batch.pooled)
    wanted = torch.nn.functional.cosine_similarity(aligned, batch.pooled[:, None], dim=-1)
    torch.testing.assert_close(outputs.after, wanted, rtol=1e-4, atol=1e-5)


def test_queries_of_a_video_share_it() -> None:
    shared = model().eval()
    two = planted(2)
    again = [
        Item(
            query=msgspec.structs.replace(two.queries[place], qid=qid),
            video=two.video[place, : two.video_lengths[place]],
            row_seconds=2.0,
            text=None,
            pooled=torch.randn(DIM, generator=torch.Generator().manual_seed(qid)),
            windows=two.windows[place],
            saliency=None,
        )
        for qid, place in enumerate((0, 1, 0, 1, 0))
    ]
    batch = collate(again)
    inputs = shared.inputs(batch)
    assert inputs["video"].shape[0] == 2
    assert inputs["videos"].tolist() == [0, 1, 0, 1, 0]
    together = shared(**inputs)
    apart = shared(batch.video, batch.video_lengths, batch.pooled)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    assert len(shared.decode(together, batch)) == 5


def test_a_part_of_a_batch_has_its_share_of_the_loss() -> None:
    whole = model()
    items = planted(6)
    counts = whole.loss_counts(items)
    total = whole.loss(whole(**whole.inputs(items)), items).total
    parts = []
    for places in ([0, 3, 4], [1, 2, 5]):
        part = Batch(
            **{
                name: tuple(value[place] for place in places)
                if name == "queries"
                else value[places]
                if isinstance(value, Tensor)
                else value
                for name, value in (
                    (field, getattr(items, field)) for field in items.__dataclass_fields__
                )
            }
        )
        parts.append(whole.loss(whole(**whole.inputs(part)), part, counts).total)
    torch.testing.assert_close(sum(parts), total, rtol=1e-5, atol=1e-6)


def test_a_query_without_a_window_teaches_nothing() -> None:
    learned, batch = model(), planted(2)
    bare = replace(batch, window_counts=torch.tensor([1, 0]))
    outputs = learned(**learned.inputs(bare))
    assert float(learned.loss_counts(bare)["vertex"]) == 1
    points, splits = window_points(bare)
    assert splits.tolist() == [0, 1, 1]
    alone = learned.detection.loss(outputs.scores, points, splits, bare.video_lengths)[0]
    torch.testing.assert_close(learned.loss(outputs, bare).total, alone)


def test_the_interval_of_equation_5_as_the_answer() -> None:
    coarse = model(msgspec.structs.replace(SMALL, predict="segment")).eval()
    batch = planted(8)
    outputs = coarse(**coarse.inputs(batch))
    for answer, (first, last) in zip(
        coarse.decode(outputs, batch), outputs.segments.tolist(), strict=True
    ):
        assert answer.pred_relevant_windows is not None
        ((start, end, score),) = answer.pred_relevant_windows
        assert (start, end) == (2.0 * first, 2.0 * last + 2)
        assert score > 0.5


def test_another_models_frames_choose_the_segment() -> None:
    masked, batch = model(), planted(3)
    other = replace(
        batch, anchor_video=torch.randn(*batch.video.shape[:2], 5), anchor_pooled=torch.randn(3, 5)
    )
    outputs = masked(**masked.inputs(other))
    anchors, segments = vmr.ops.anchor_segment(
        other.anchor_video, other.anchor_pooled, batch.video_lengths
    )
    assert torch.equal(outputs.anchors, anchors)
    assert torch.equal(outputs.segments, segments)
    ready = masked(batch.video, batch.video_lengths, batch.pooled, segments=segments)
    torch.testing.assert_close(ready.similarity, outputs.similarity)


def test_decode_is_inclusive_frames_in_seconds() -> None:
    asked, batch = model(), planted(1)
    rows = batch.video.shape[1]
    scores = torch.zeros(1, rows, rows)
    scores[0, 2, 4], scores[0, 1, 1], scores[0, 5, 0] = 5, 3, 9
    outputs = asked(**asked.inputs(batch))._replace(scores=scores)
    (answer,) = asked.decode(outputs, batch)
    assert answer.pred_relevant_windows is not None
    first, second, _ = answer.pred_relevant_windows
    assert first[:2] == (4.0, 10.0)
    assert second[:2] == (2.0, 4.0)
    assert first[2] == 5.0


def test_labels_maximise_the_overlap() -> None:
    random = torch.Generator().manual_seed(3)
    for _ in range(200):
        rows = int(torch.randint(1, 9, (), generator=random))
        seconds = 0.3 + 2 * float(torch.rand((), generator=random))
        bounds = (torch.rand(2, generator=random) * rows * seconds).sort().values
        i, j = nearest_frames(bounds[None], torch.tensor([seconds]), torch.tensor([rows]))[
            0
        ].tolist()

        def overlap(i: int, j: int, seconds: float = seconds, bounds: Tensor = bounds) -> float:
            start, end = i * seconds, (j + 1) * seconds
            shared = min(end, float(bounds[1])) - max(start, float(bounds[0]))
            return max(shared, 0) / (max(end, float(bounds[1])) - min(start, float(bounds[0])))

        best = max(overlap(a, b) for a in range(rows) for b in range(a, rows))
        assert overlap(i, j) == pytest.approx(best, abs=1e-6)


def test_one_frame_and_padding() -> None:
    small = model().eval()
    video, queries = torch.randn(2, 6, DIM), torch.randn(2, DIM)
    lengths = torch.tensor([1, 4])
    video[0, 1:], video[1, 4:] = torch.nan, torch.inf
    padded = small(video, lengths, queries)
    alone = small(video[:1, :1], lengths[:1], queries[:1])
    torch.testing.assert_close(padded.scores[0, :1, :1], alone.scores[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.after[0, :1], alone.after[0])
    assert all(part[1].isfinite().all() for part in (padded.similarity, padded.after))


def test_what_it_refuses() -> None:
    asked, batch = model(), planted(2)
    with pytest.raises(InputError, match="expected sentences as one vector"):
        asked.inputs(replace(batch, pooled=None))
    with pytest.raises(InputError, match="of 8 columns and sentences of 8, got 8 and 5"):
        asked.inputs(replace(batch, pooled=torch.randn(2, 5)))
    broken = batch.video.clone()
    broken[1, 2, 3] = torch.nan
    with pytest.raises(InputError, match=r"NaN or an infinity in row 2 of video .*v1"):
        asked.inputs(replace(batch, video=broken))
    with pytest.raises(InputError, match="in the sentence of query"):
        asked.inputs(replace(batch, pooled=batch.pooled * torch.inf))
    anchors = torch.randn(*batch.video.shape[:2], 5)
    anchors[1, 2] = torch.inf
    with pytest.raises(InputError, match=r"in anchor row 2 of video .*v1"):
        asked.inputs(replace(batch, anchor_video=anchors, anchor_pooled=torch.randn(2, 5)))
    with pytest.raises(InputError, match="in the anchor sentence of query"):
        asked.inputs(
            replace(batch, anchor_video=anchors.nan_to_num(0, 0, 0), anchor_pooled=anchors[:, 2])
        )
    with pytest.raises(InputError, match="fit on training queries"):
        model(msgspec.structs.replace(SMALL, video_dim=12))(
            torch.randn(1, 3, 12), torch.tensor([3]), torch.randn(1, DIM)
        )
    with pytest.raises(InputError, match="top_k: expected at least 1"):
        model(msgspec.structs.replace(SMALL, top_k=0))


def test_a_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    kept = model(msgspec.structs.replace(SMALL, video_dim=12, first_column=3)).eval()
    kept.save_pretrained(tmp_path)
    again = MomentModel.from_pretrained(tmp_path)
    assert isinstance(again, A2FAF2SGD)
    assert again.config == kept.config
    video, lengths, query = torch.randn(1, 5, 12), torch.tensor([5]), torch.randn(1, DIM)
    with torch.no_grad():
        for one, other in zip(
            kept(video, lengths, query), again(video, lengths, query), strict=True
        ):
            assert torch.equal(one, other)


def test_half_precision_keeps_to_float32(tmp_path: Path) -> None:
    full, batch = model(), planted(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = in_float(full(**full.inputs(batch)))
    wanted = full(**full.inputs(batch))
    assert torch.equal(outputs.segments, wanted.segments)
    torch.testing.assert_close(outputs.similarity, wanted.similarity, rtol=0.1, atol=0.1)
