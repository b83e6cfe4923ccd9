"""Every ready pack on files made in its layout, and the words of queries."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

import vmr
from tests.pack_layouts import (
    LAYOUTS,
    QUERY,
    VID,
    expected_text,
    expected_video,
    make,
    save,
    unit,
)
from vmr.data.glove import GloveFile, tokenise
from vmr.data.packs import list_packs, load_pack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning


def test_there_is_a_layout_of_every_ready_pack() -> None:
    assert sorted(LAYOUTS) == sorted(list_packs())


@pytest.mark.parametrize("rows", [60, 1100])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_ready_pack_gives_what_its_loader_does(tmp_path: Path, name: str, rows: int) -> None:
    layout = LAYOUTS[name]
    made = make(tmp_path, layout, rows=rows)
    pack = load_pack(name, tmp_path)
    video = pack.video(VID, rows * layout.seconds if layout.seconds else 150.0)
    wanted = expected_video(layout, made)
    assert video.dtype == np.float32
    assert video.shape == wanted.shape == (len(wanted), pack.width)
    np.testing.assert_allclose(video, wanted, rtol=0, atol=1e-6)
    text = pack.text(layout.query)
    assert text.dtype == np.float32
    np.testing.assert_allclose(text, expected_text(layout, made), rtol=0, atol=1e-6)
    assert not pack.missing([layout.query])


@pytest.mark.parametrize("name", ["moment-detr-qvhighlights", "emb-charades", "univtg-hdf5"])
def test_half_precision_is_read_as_float32(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    made = make(tmp_path, layout, rows=200, dtype="f2")
    pack = load_pack(name, tmp_path)
    with pytest.warns(VmrWarning, match="in half precision"):
        video = pack.video(VID)
    np.testing.assert_allclose(video, expected_video(layout, made), rtol=0, atol=1e-6)
    source = next(iter(layout.video))
    told = {f.kind for f in pack.check([layout.query]).findings if f.level == "warning"}
    assert f"{source} in half precision" in told


def test_lighthouse_widths_are_those_of_its_configs(tmp_path: Path) -> None:
    # v_feat_dim, and a_feat_dim where there is one
    for name, width in {
        "lighthouse-qvhighlights-clip": 514,
        "lighthouse-qvhighlights-clip-slowfast": 2818,
        "lighthouse-qvhighlights-clip-slowfast-pann": 2818 + 2048,
        "lighthouse-tvsum-i3d": 2050,
        "lighthouse-charades-resnet-glove": 2050,
        "lighthouse-clotho-moment-clap": 2 + 768,
        "qd-detr-qvhighlights-audio": 2818 + 2050,
        "moment-detr-qvhighlights": 2818,
    }.items():
        make(tmp_path / name, LAYOUTS[name], rows=2)
        assert load_pack(name, tmp_path / name).width == width


def test_files_are_found_under_their_other_names(tmp_path: Path) -> None:
    rows = np.ones((3, 8), np.float32)
    save(tmp_path / "t" / "c3d_features" / "v-cam-002.npz", rows)
    assert load_pack("bm-detr-tacos", tmp_path / "t").video("v").shape == (3, 10)
    # lighthouse's CG-DETR loader falls back to npy, video by video
    for vid, end in (("a", "npz"), ("b", "npy")):
        save(tmp_path / "clip" / f"{vid}.{end}", np.ones((3, 512), np.float32))
    pack = load_pack("lighthouse-charades-clip", tmp_path)
    assert pack.video("a").shape == pack.video("b").shape
    # another folder is another feature: never a fallback
    for folder, vid in (("new", "a"), ("org", "b")):
        save(tmp_path / "charades" / folder / f"{vid}.npy", np.ones((3, 1024), np.float32))
    emb_pack = load_pack("emb-charades", tmp_path)
    assert emb_pack.video("a").shape == (3, 1024)
    with pytest.raises(InputError, match=r"looked for \S+/charades/new/b\.npy$"):
        emb_pack.video("b")


def test_pooled_text(tmp_path: Path) -> None:
    make(tmp_path, LAYOUTS["bm-detr-charades"], rows=60)
    row = np.random.default_rng(0).normal(size=512).astype(np.float32)
    pack = load_pack("bm-detr-charades", tmp_path)
    for array in (row, row[None]):  # BM-DETR's extractor leaves the batch axis in
        save(tmp_path / LAYOUTS["bm-detr-charades"].text, array, "pooler_output")
        np.testing.assert_allclose(pack.pooled_text(QUERY), unit(row), atol=1e-6)
    save(tmp_path / LAYOUTS["bm-detr-charades"].text, row[None, None].repeat(5, 1))
    with pytest.raises(InputError, match="expected the key 'last_hidden_state', got 'features'"):
        pack.text(QUERY)
    make(tmp_path / "t", LAYOUTS["qd-detr-tvsum"], rows=60)
    with pytest.raises(InputError, match="has no pooled text"):
        load_pack("qd-detr-tvsum", tmp_path / "t").pooled_text(QUERY)


def test_real_sample(real_data: Path) -> None:
    folder = real_data / "sample" / "univtg_clip"
    pack = load_pack("univtg-demo", folder)
    query = Query(qid=1, video="charades", text="", duration=30.697)
    with np.load(folder / "vid.npz") as vid, np.load(folder / "txt.npz") as txt:
        wanted = unit(vid["features"].astype(np.float32))
        text = unit(txt["features"].astype(np.float32))
    video = pack.video("charades", 30.697)
    assert video.shape == (15, 514)
    np.testing.assert_allclose(video[:, :512], wanted, atol=1e-6)
    with pytest.warns(VmrWarning, match="half precision"):
        np.testing.assert_allclose(pack.text(query), text, atol=1e-6)
    found = pack.check([query])
    assert found.ok
    assert [finding.kind for finding in found.findings] == ["text in half precision"]
    assert (found.width, found.rows) == (514, (15, 15))


# ---- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A man doesn't close the fridge's door.", "a man does n't close the fridge 's door ."),
        ("They're running; I'm not, we'll see!", "they 're running ; i 'm not , we 'll see !"),
        ("3,000 t-shirts at 10:30, and/or more...", "3,000 t-shirts at 10:30 , and/or more ..."),
        ('He says "stop" (twice) -- ok?', "he says `` stop '' ( twice ) -- ok ?"),
        ("He cannot, and is gonna.  Then stops. ", "he can not , and is gon na . then stops ."),
        ("five o'clock u.s. men's 'n' dogs'", "five o'clock u.s . men 's ' n ' dogs '"),
        ("  ", ""),
    ],
)
def test_words_are_counted_as_the_treebank_does(sentence: str, words: str) -> None:
    assert tokenise(sentence) == tuple(words.split())


def test_a_glove_file_is_read_for_the_words_that_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    lines = [
        "2196017 3",
        ". . . 1 2 3",
        "the 1 2 3",
        "dog 4 5 6",
        "broken 1 x 3",
        "dog 7 8 9",
        "the 1",
    ]
    path.write_text("\n".join(lines))
    glove = GloveFile(path, 3)
    np.testing.assert_array_equal(
        glove.vectors(["dog", "none", "the"]), [[7, 8, 9], [0, 0, 0], [1, 2, 3]]
    )
    assert "dog" in glove
    assert "none" not in glove
    with pytest.raises(InputError, match=r"glove\.txt, line 5: expected 3 finite numbers"):
        glove.vectors(["broken"])
    again: GloveFile = pickle.loads(pickle.dumps(glove))
    path.unlink()
    assert math.isclose(again.vectors(["dog"])[0, 0], 7)
    with pytest.raises(InputError, match="cannot be read"):
        again.vectors(["new"])
    path.write_bytes(b"PK" * 100)
    with pytest.raises(InputError, match="expected lines of a word and 3 numbers, got none"):
        again.vectors(["new"])


def test_importing_packs_is_cheap() -> None:
    import subprocess
    import sys

    script = "import sys, vmr, vmr.data; vmr.load_pack; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert vmr.load_pack is load_pack
