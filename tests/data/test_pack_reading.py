"""What is said of features that can be read, or not be read at all, before and while they are."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_pack_mismatches import TWO, ask, fill, kinds, two
from tests.pack_layouts import LAYOUTS, VID, Array, make, save, unit
from vmr.data.arrays import StoredArray
from vmr.data.packs import load_pack
from vmr.errors import InputError, VmrWarning


@pytest.mark.parametrize("how", ["l2", "already", "none"])
def test_rows_of_zeros_are_told(tmp_path: Path, how: str) -> None:
    fill(tmp_path)
    pack = two(tmp_path, TWO.replace("dim: 5", f"dim: 5, normalise: {how}"))
    rows = unit(np.random.default_rng(0).normal(size=(10, 5)))
    rows[[3, 7]] = 0
    save(tmp_path / "clip" / "v.npz", rows)
    with pytest.warns(
        VmrWarning, match="2 of 10 rows of clip are zeros, the first is row 3; a fail"
    ):
        pack.video("v")
    zeros = {"clip has rows of zeros": ("warning", 1)}
    assert kinds(pack) == zeros | ({"clip has unit rows": ("note", 1)} if how == "l2" else {})
    save(tmp_path / "clip" / "v.npz", rows * 0)
    assert kinds(pack) == zeros


def test_half_precision_is_a_warning(tmp_path: Path) -> None:
    fill(tmp_path)
    save(tmp_path / "clip" / "v.npz", np.full((10, 5), 3, np.float16))
    tokens, pooled = np.full((6, 4), 3, np.float16), np.full(4, 3)
    np.savez(tmp_path / "text" / "1.npz", last_hidden_state=tokens, pooler_output=pooled)
    pack = two(tmp_path)
    message = "half precision: three digits are kept.* above 65504 is not.* extract in float32"
    for read in (lambda: pack.video("v"), lambda: pack.text(ask())):
        with pytest.warns(VmrWarning, match=message):
            read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read()  # once a pack
    assert kinds(pack) == {
        "clip in half precision": ("warning", 1),
        "text in half precision": ("warning", 1),
    }


def test_what_headers_refuse_is_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    (tmp_path / "feature_shapes.json").write_text('{"v": 10}')
    for name, columns in (("clip", 5), ("slowfast", 12)):
        bomb = np.zeros((200_000, columns), np.float32)
        np.savez_compressed(tmp_path / name / "v.npz", features=bomb)

    def read(self: StoredArray, rows: int | None = None) -> Array:
        raise AssertionError("was read")

    monkeypatch.setattr(StoredArray, "read", read)
    with pytest.raises(InputError, match=r"200000 rows at 2 s are 400000 s"):
        two(tmp_path).video("v", 20.0)
    with pytest.raises(InputError, match=r"clip/v\.npz.*source clip: expected 6 columns"):
        two(tmp_path, TWO.replace("dim: 5", "dim: 6")).video("v")
    even = TWO.replace("seconds_per_row: 2", "seconds_per_row: null\nlonger: pool")
    listed = even.replace("dim: 5", "dim: 5, lengths: ../feature_shapes.json")
    with pytest.raises(InputError, match=r"video v has 200000 rows, and by this file 10; extract"):
        two(tmp_path, listed).video("v", 20.0)


def test_a_duration_of_each_query_is_checked(tmp_path: Path) -> None:
    fill(tmp_path)
    for durations in ((20.0, 200.0), (200.0, 20.0)):
        queries = [ask(duration=duration) for duration in durations]
        assert kinds(two(tmp_path), *queries) == {"duration": ("error", 1)}
        assert two(tmp_path).check(queries).videos == 1


def test_the_width_is_told_without_reading(tmp_path: Path) -> None:
    fill(tmp_path)
    open_width = TWO.replace(", dim: 5", "")
    assert two(tmp_path, open_width).widths == (("slowfast", 12), ("clip", 5), ("tef", 2))
    save(tmp_path / "clip" / "v.npz", np.float32(3))
    with pytest.raises(
        InputError, match=r"clip/v\.npz.*source clip: expected \[rows, columns\], got"
    ):
        _ = two(tmp_path, open_width).width
    (tmp_path / "clip" / "v.npz").unlink()
    with pytest.raises(
        InputError, match=r"the width of clip is not known: set its `dim` in .*pack\.yaml"
    ):
        _ = two(tmp_path, open_width).width
    for key, inner in (("{vid}", ""), ("all/{vid}", "all/"), ("{vid}/clip", "")):
        name = key.replace("/", "").strip("{}")
        stored = "v/clip" if key == "{vid}/clip" else f"{inner}v"
        save(tmp_path / "clip" / f"{name}.h5", np.ones((10, 5)), stored)
        changed = open_width.replace("clip/{vid}.npz", f"clip/{name}.h5", 1)
        pack = two(tmp_path, changed.replace('.h5"', f'.h5", key: "{key}"'))
        if inner:  # a name at the top of the file is no video there
            with pytest.raises(InputError, match="the width of clip is not known"):
                _ = pack.width
            assert pack.video("v").shape == (10, 19)
        assert pack.width == 19


def test_the_source_in_the_sentences_space(tmp_path: Path) -> None:
    fill(tmp_path)
    pack = two(tmp_path)
    assert pack.columns_like(5) == (12, 5)
    assert pack.columns_like(12, "slowfast") == (0, 12)
    with pytest.raises(
        InputError, match="expected the source slowfast with the sentence's 5 columns"
    ):
        pack.columns_like(5, "slowfast")
    with pytest.raises(InputError, match="slowfast and clip are all as wide as the sentence"):
        two(tmp_path, TWO.replace("dim: 12", "dim: 5")).columns_like(5)


def test_names_that_are_too_long_for_a_file(tmp_path: Path) -> None:
    fill(tmp_path)
    for query in (ask(video="v" * 300), ask(qid="q" * 300)):
        with pytest.raises(InputError, match="cannot be read: File name too long"):
            two(tmp_path).missing([query])
        assert kinds(two(tmp_path), query) == {"unreadable": ("error", 1)}


def test_pooled_text_is_checked_too(tmp_path: Path) -> None:
    fill(tmp_path)
    tokens = np.ones((6, 4))
    np.savez(
        tmp_path / "text" / "1.npz", last_hidden_state=tokens, pooler_output=np.full(4, np.nan)
    )
    assert kinds(two(tmp_path))["not finite"] == ("error", 1)
    save(tmp_path / "text" / "1.npz", tokens, "last_hidden_state")
    assert kinds(two(tmp_path))["no pooled text"] == ("note", 1)


def test_a_summary_is_for_reading(tmp_path: Path) -> None:
    fill(tmp_path, rows=46)
    queries = [ask(duration=92.0), ask(qid=2, duration=92.0)]
    said = two(tmp_path).check(queries).summary().splitlines()
    assert said[0].endswith(": 2 queries on 1 video")
    assert said[1] == "  46 rows a video, 19 columns: slowfast 12 + clip 5 + tef 2"
    assert said[2] == "  error: missing text: 1 query (qid 2)"


def test_text_is_read_no_further_than_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    asked: list[int | None] = []
    whole = StoredArray.read

    def spy(self: StoredArray, rows: int | None = None) -> Array:
        asked.append(rows)
        return whole(self, rows)

    monkeypatch.setattr(StoredArray, "read", spy)
    pack = two(tmp_path, TWO.replace("max_rows: 32", "max_rows: 3"))
    tokens = np.random.default_rng(0).normal(size=(6, 4))
    for array, rows in ((tokens, 3), (tokens[None], None)):  # some leave the batch axis in
        save(tmp_path / "text" / "1.npz", array, "last_hidden_state")
        assert pack.text(ask()).shape == (3, 4)
        assert asked.pop() == rows


def test_advice_for_a_ready_pack_can_be_followed(tmp_path: Path) -> None:
    layout = LAYOUTS["moment-detr-qvhighlights"]
    make(tmp_path, layout, rows=75)
    folders = [(tmp_path / file).parent for ((file, _),) in layout.video.values()]
    pack = load_pack("moment-detr-qvhighlights", tmp_path)
    folders[0].rename(tmp_path / "other")
    folders[1].rename(folders[0])
    (tmp_path / "other").rename(folders[1])
    with pytest.raises(InputError, match=r"move the files of .* and .* into each other's folder$"):
        pack.video(VID)
    save(folders[0] / f"{VID}.npz", np.ones((75, 9)))
    with pytest.raises(InputError, match=r"or describe these in a YAML of your own \(dim: 9\)"):
        pack.video(VID)
