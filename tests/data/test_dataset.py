"""Queries with features as batches, in this process and in workers."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import vmr
from tests.pack_layouts import save, unit
from vmr.data.dataset import Batch, MomentDataset, collate
from vmr.data.packs import FeaturePack, load_pack
from vmr.data.records import Query, Saliency
from vmr.errors import InputError

PACK = """
columns: [clip, tef]
sources:
  clip: {files: clip.hdf5, key: "{vid}", dim: 6, normalise: already}
seconds_per_row: 2
text: {files: "text/{qid}.npz", dim: 4}
"""
ROWS = {"a": 5, "b": 9, "c": 1}


@pytest.fixture
def pack(tmp_path: Path) -> FeaturePack:
    generator = np.random.default_rng(0)
    for vid, rows in ROWS.items():
        save(tmp_path / "clip.hdf5", unit(generator.normal(size=(rows, 6))), vid)
    (tmp_path / "text").mkdir()
    for qid in range(6):
        np.savez(
            tmp_path / "text" / f"{qid}.npz",
            last_hidden_state=generator.normal(size=(qid + 1, 4)),
            pooler_output=generator.normal(size=4),
        )
    (tmp_path / "pack.yaml").write_text(PACK)
    return load_pack(tmp_path)


def query(qid: int, vid: str, *windows: tuple[float, float], **more: Any) -> Query:
    values = {"qid": qid, "video": vid, "text": f"query {qid}", "duration": ROWS[vid] * 2.0}
    return Query(**{**values, "windows": windows or None, **more})


QUERIES = [
    query(0, "a", (0, 4)),
    query(1, "a", (1.5, 3), (6, 10)),
    query(2, "b"),
    query(3, "c", (0, 2)),
    query(4, "b", (0, 18), (2, 4), (5, 5)),
]


def test_a_batch_is_padded_and_says_its_lengths(pack: FeaturePack) -> None:
    data = MomentDataset(QUERIES, pack, pooled=True)
    batch = collate([data[place] for place in range(len(data))])
    assert len(batch) == 5
    assert batch.queries == tuple(QUERIES)
    assert batch.video.shape == (5, 9, 8)
    assert batch.video_lengths.tolist() == [5, 5, 9, 1, 9]
    assert batch.row_seconds.tolist() == [2, 2, 2, 2, 2]
    assert batch.durations.tolist() == [10, 10, 18, 2, 18]
    assert batch.text is not None
    assert batch.pooled is not None
    assert batch.text.shape == (5, 5, 4)
    assert batch.text_lengths.tolist() == [1, 2, 3, 4, 5]
    assert batch.pooled.shape == (5, 4)
    assert batch.windows.shape == (5, 3, 2)
    assert batch.window_counts.tolist() == [1, 2, 0, 1, 3]
    assert batch.windows[4].tolist() == [[0, 18], [2, 4], [5, 5]]
    assert not batch.has_saliency.any()
    for place, item in enumerate(QUERIES):
        rows = ROWS[item.video]
        np.testing.assert_array_equal(batch.video[place, :rows], pack.video(item.video))
        assert not batch.video[place, rows:].any()
        np.testing.assert_array_equal(batch.text[place, : place + 1], pack.text(item))
        assert not batch.text[place, place + 1 :].any()
        np.testing.assert_array_equal(batch.pooled[place], pack.pooled_text(item))
    assert batch.video.dtype == batch.windows.dtype == torch.float32


def test_saliency_is_a_score_a_row(pack: FeaturePack) -> None:
    # Clips of 1 s, rows of 2 s: a row's middle lies in clip 2 i + 1.
    scores = Saliency(
        clip_ids=(1, 2, 7), scores=((1, 2, 3), (4, 4, 4), (0, 0, 3)), clips=9, clip_seconds=1.0
    )
    data = MomentDataset([query(0, "a", saliency=scores), query(2, "b")], pack)
    assert data[0].saliency is not None
    assert data[0].saliency.tolist() == [2, 0, 0, 1, 0]
    assert data[1].saliency is None
    batch = collate([data[0], data[1]])
    assert batch.saliency.shape == (2, 9)
    assert batch.has_saliency.tolist() == [True, False]
    assert batch.saliency[0, :5].tolist() == [2, 0, 0, 1, 0]


def test_a_video_is_read_once_for_its_queries(
    pack: FeaturePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = FeaturePack.video

    def spy(self: FeaturePack, vid: str, duration: float | None = None) -> Any:
        read.append(vid)
        return whole(self, vid, duration)

    monkeypatch.setattr(FeaturePack, "video", spy)
    data = MomentDataset([query(0, "a"), query(1, "a"), query(2, "b"), query(3, "a")], pack)
    for place in range(4):
        data[place]
    assert read == ["a", "b"]


def test_an_item_is_its_own(pack: FeaturePack) -> None:
    data = MomentDataset(QUERIES, pack)
    before = data[1].video.clone()
    data[0].video.mul_(0)
    torch.testing.assert_close(data[1].video, before, rtol=0, atol=0)


def test_every_query_is_held_against_its_own_duration(pack: FeaturePack) -> None:
    for durations in ((10.0, 100.0), (100.0, 10.0)):
        data = MomentDataset([query(0, "a", duration=duration) for duration in durations], pack)
        for place, duration in enumerate(durations):
            if duration == 10:
                assert len(data[place].video) == 5
            else:
                with pytest.raises(
                    InputError, match="5 rows at 2 s are 10 s, and the video has 100"
                ):
                    data[place]


def test_names_instead_of_what_they_name(pack: FeaturePack, tmp_path: Path) -> None:
    for path in ("t.jsonl", Path("t.jsonl")):
        with pytest.raises(
            InputError, match=r"got the name 't.jsonl'; read them by vmr.read_queries\('t"
        ):
            MomentDataset(path, pack)  # type: ignore[arg-type]
    for other, said in (("beach", "the name 'beach'"), (tmp_path, "the name "), (None, "None")):
        with pytest.raises(
            InputError, match=f"a feature pack, got {said}.*vmr.load_pack opens one"
        ):
            MomentDataset(QUERIES, other)  # type: ignore[arg-type]


def test_a_data_set_says_what_it_is(pack: FeaturePack) -> None:
    said = repr(MomentDataset(QUERIES, pack))
    assert said == f"MomentDataset(5 queries on 3 videos, {pack.name!r})"


def test_missing_features_are_an_error_or_left_out(pack: FeaturePack) -> None:
    queries = [*QUERIES, query(9, "a"), query(0, "a", video="z")]
    message = (
        r"no features of 1 video \(z\) and 1 query \(9\), out of 7 queries; add them, or leave"
    )
    with pytest.raises(InputError, match=message):
        MomentDataset(queries, pack)
    data = MomentDataset(queries, pack, skip_missing=True)
    assert data.queries == tuple(QUERIES)
    assert data.skipped == tuple(queries[5:])
    with pytest.raises(InputError, match="none of the 1 queries has features"):
        MomentDataset(queries[5:6], pack, skip_missing=True)


def test_a_pack_of_words(tmp_path: Path) -> None:
    save(tmp_path / "video" / "a.npy", np.ones((300, 3)))
    (tmp_path / "glove.txt").write_text("dog 1 2\nruns 3 4\n")
    (tmp_path / "pack.yaml").write_text(
        "columns: [i3d]\nsources: {i3d: {files: 'video/{vid}.npy', normalise: none}}\n"
        "seconds_per_row: null\nmax_rows: 128\nlonger: pool\n"
        "glove: {files: [glove.txt], split: words, dim: 2}\n"
    )
    data = MomentDataset([query(0, "a", text="Dog runs.", duration=64.0)], load_pack(tmp_path))
    (tmp_path / "glove.txt").unlink()  # read once, for all queries
    item = data[0]
    assert item.text is not None
    assert item.text.tolist() == [[1, 2], [3, 4], [0, 0]]
    assert item.row_seconds == 0.5
    assert item.pooled is None


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_batches(pack: FeaturePack, context: str) -> None:
    data = MomentDataset(QUERIES, pack, pooled=True)
    data[0]  # the HDF5 file is open in this process
    here = list(DataLoader(data, batch_size=2, collate_fn=vmr.collate))
    loader = DataLoader(
        data,
        batch_size=2,
        collate_fn=vmr.collate,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(context),
    )
    there = list(loader)
    assert [batch.queries for batch in there] == [batch.queries for batch in here]
    for one, other in zip(here, there, strict=True):
        for name in ("video", "video_lengths", "text", "pooled", "windows", "saliency"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)


def test_an_error_in_a_worker_is_an_input_error(pack: FeaturePack, tmp_path: Path) -> None:
    data = MomentDataset(QUERIES, pack)
    (tmp_path / "text" / "4.npz").write_bytes(b"")
    loader = DataLoader(data, batch_size=5, collate_fn=collate, num_workers=1)
    with pytest.raises(
        InputError, match=r"4\.npz: expected an npy, npz or HDF5 file, got an empty"
    ):
        list(loader)


def test_a_batch_moves_as_one(pack: FeaturePack) -> None:
    data = MomentDataset(QUERIES, pack)
    batch = collate([data[0], data[2]])
    moved = batch.to("meta")
    assert moved.queries == batch.queries
    assert moved.pooled is None
    assert {moved.video.device.type, moved.has_saliency.device.type} == {"meta"}
    again: Batch = pickle.loads(pickle.dumps(batch))
    torch.testing.assert_close(again.video, batch.video)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_a_loader_pins_batches(pack: FeaturePack) -> None:
    data = MomentDataset(QUERIES, pack)
    for batch in DataLoader(data, batch_size=2, collate_fn=collate, pin_memory=True):
        assert batch.video.is_pinned()
        assert batch.window_counts.is_pinned()


def test_pinning_reaches_every_tensor(pack: FeaturePack, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate([MomentDataset(QUERIES, pack)[0]])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    pinned = batch.pin_memory()
    assert pinned.queries == batch.queries
    assert pinned.video is not batch.video
    assert pinned.window_counts is not batch.window_counts


def test_what_cannot_be_a_batch(pack: FeaturePack) -> None:
    with pytest.raises(InputError, match="expected at least one item"):
        collate([])
    with_pooled, without = MomentDataset(QUERIES, pack, pooled=True), MomentDataset(QUERIES, pack)
    with pytest.raises(InputError, match="expected text for all items or for none"):
        collate([with_pooled[0], without[1]])
