"""What loaders pass over in silence, and what is wrong with a pack's YAML."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pack_layouts import LAYOUTS, QUERY, VID, Array, make, save, unit
from vmr.data.pack_spec import Pack, decode_yaml
from vmr.data.packs import FeaturePack, load_pack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning

# ---- what peers pass over in silence ----------------------------------------------------------------

TWO = """
columns: [slowfast, clip, tef]
sources:
  slowfast: {files: "slowfast/{vid}.npz", dim: 12}
  clip: {files: "clip/{vid}.npz", dim: 5}
seconds_per_row: 2
max_rows: 75
text: {files: "text/{qid}.npz", dim: 4, max_rows: 32}
"""


def two(root: Path, text: str = TWO) -> FeaturePack:
    root.mkdir(exist_ok=True)
    (root / "pack.yaml").write_text(text, encoding="utf-8")
    return load_pack(root)


def fill(
    root: Path, vid: str = "v", rows: int = 10, clip: int | None = None, scale: float = 3
) -> None:
    generator = np.random.default_rng(2)
    save(root / "slowfast" / f"{vid}.npz", generator.normal(size=(rows, 12)) * scale)
    save(root / "clip" / f"{vid}.npz", generator.normal(size=(clip or rows, 5)) * scale)
    path = root / "text" / "1.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(
        path,
        last_hidden_state=generator.normal(size=(6, 4)),
        pooler_output=generator.normal(size=4),
    )


def ask(**values: Any) -> Query:
    return Query(**{"qid": 1, "video": "v", "text": "a b", "duration": 20.0, **values})


def kinds(pack: FeaturePack, *queries: Query) -> dict[str, tuple[str, int]]:
    found = pack.check(queries or (ask(),))
    assert found.ok == all(finding.level != "error" for finding in found.findings)
    return {finding.kind: (finding.level, finding.count) for finding in found.findings}


def test_a_sound_pack_has_no_findings(tmp_path: Path) -> None:
    fill(tmp_path)
    pack = two(tmp_path)
    found = pack.check([ask()])
    assert found.findings == ()
    assert (found.videos, found.queries, found.rows, found.width) == (1, 1, (10, 10), 19)
    assert "nothing odd" in found.summary()


def test_swapped_sources_name_both_and_the_fix(tmp_path: Path) -> None:
    fill(tmp_path)
    pack = two(
        tmp_path,
        TWO.replace('"clip/', '"swap/')
        .replace('"slowfast/', '"clip/')
        .replace('"swap/', '"slowfast/'),
    )
    message = (
        r"clip/v\.npz, key 'features': source slowfast: expected 12 columns, got \[10, 5\]; that is "
        "the width of the source clip: .*swap `files` of slowfast and clip"
    )
    with pytest.raises(InputError, match=message):
        pack.video("v")
    assert kinds(pack) == {"width": ("error", 1)}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.ones((10, 6)),
            "expected 5 columns, got .10, 6.; name the right files, or set `dim: 6`",
        ),
        (np.ones((5, 10)), "the array lies on its side; save its transpose"),
        (np.ones((10, 7)), "if the last two are a TEF, save the array without them"),
        (np.ones(5), r"expected \[rows, columns\], got \[5\]"),
        (np.ones((1, 10, 5)), r"expected \[rows, columns\], got \[1, 10, 5\]"),
        (np.ones((0, 5)), "source clip: has no rows"),
    ],
)
def test_wrong_shapes(tmp_path: Path, array: Array, message: str) -> None:
    fill(tmp_path)
    save(tmp_path / "clip" / "v.npz", array)
    with pytest.raises(InputError, match=message):
        two(tmp_path).video("v")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_rows_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    fill(tmp_path)
    array = np.ones((10, 5))
    array[[4, 7], 2] = bad
    save(tmp_path / "clip" / "v.npz", array)
    with pytest.raises(
        InputError, match=r"source clip: row 4 is not finite \(2 of 10 rows are not\)"
    ):
        two(tmp_path).video("v")
    save(tmp_path / "clip" / "v.npz", np.ones((10, 5)))
    save(tmp_path / "text" / "1.npz", np.full((3, 4), bad), "last_hidden_state")
    with pytest.raises(
        InputError, match=r"text/1\.npz, key 'last_hidden_state': row 0 is not finite"
    ):
        two(tmp_path).text(ask())
    assert kinds(two(tmp_path)) == {"not finite": ("error", 1)}


def test_rows_that_do_not_fit_the_duration(tmp_path: Path) -> None:
    fill(tmp_path, rows=20)
    pack = two(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for duration in (40.0, 36.5, 43.9, None):
            pack.video("v", duration)
    with pytest.warns(
        VmrWarning, match="20 rows at 2 s are 40 s, and the video has 50 s, which would be 2.5"
    ):
        pack.video("v", 50.0)
    with pytest.raises(
        InputError, match=r"video v: 20 rows at 2 s are 40 s, .* 1 s a row; is `seconds_per"
    ):
        pack.video("v", 20.0)
    assert kinds(pack, ask(duration=20.0)) == {"duration": ("error", 1)}
    assumed = two(tmp_path, TWO + "assumed: true\n")
    with pytest.warns(VmrWarning, match="1 s a row"):
        assumed.video("v", 20.0)
    # Stored after it was cut to max_rows: nothing is wrong with that.
    fill(tmp_path, "long", rows=75)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack.video("long", 600.0)


def test_a_warning_comes_at_the_first_and_the_tenth_video(tmp_path: Path) -> None:
    pack_folder = tmp_path
    for number in range(12):
        fill(pack_folder, f"v{number}", rows=20, clip=14)
    pack = two(pack_folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            for number in range(12):
                assert pack.video(f"v{number}").shape == (14, 19)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert (
        "v0: its sources differ in rows (slowfast 20, clip 14) and are cut to the shortest"
        in said[0]
    )
    assert "v9 (the 10th such): " in said[1]
    assert "sources apart" in kinds(pack, ask(video="v1", duration=28.0))


def test_rows_that_are_not_as_normalised_as_the_pack_says(tmp_path: Path) -> None:
    fill(tmp_path)
    already = two(tmp_path, TWO.replace("dim: 5", "dim: 5, normalise: already"))
    with pytest.warns(VmrWarning, match=r"row 0 has length \S+; set `normalise: l2` for clip"):
        video = already.video("v")
    np.testing.assert_array_equal(
        video[:, 12:17], np.load(tmp_path / "clip" / "v.npz")["features"].astype(np.float32)
    )
    rows = unit(np.random.default_rng(0).normal(size=(10, 5)))
    save(tmp_path / "clip" / "v.npz", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        already.video("v")
    assert kinds(two(tmp_path)) == {"clip has unit rows": ("note", 1)}


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    fill(tmp_path)
    pack = two(tmp_path)
    (tmp_path / "clip" / "only-slowfast.npz").touch()
    queries = [ask(), ask(qid=2), ask(qid=3, video="w"), ask(qid=4, video="only-slowfast")]
    missing = pack.missing(queries)
    assert missing.videos == ("w", "only-slowfast")
    assert missing.queries == (2, 3, 4)
    with pytest.raises(
        InputError, match=r"video w: no slowfast features; looked for \S+slowfast/w\.npz"
    ):
        pack.video("w")
    with pytest.raises(InputError, match=r"query 2: no text features; looked for \S+text/2\.npz"):
        pack.text(ask(qid=2))
    assert kinds(pack, *queries) == {"missing video": ("error", 2), "missing text": ("error", 3)}


def test_a_video_missing_in_hdf5_is_missing(tmp_path: Path) -> None:
    make(tmp_path, LAYOUTS["univtg-hdf5"], rows=75)
    pack = load_pack("univtg-hdf5", tmp_path)
    assert pack.missing([ask(qid=8)]).videos == ("v",)
    assert pack.missing([ask(qid=8)]).queries == (8,)
    with pytest.raises(
        InputError, match=r"video v: no slowfast features; .*vid_slowfast.hdf5, key 'v'"
    ):
        pack.video("v")


def test_moments_that_are_cut_away_are_told(tmp_path: Path) -> None:
    fill(tmp_path, rows=100)
    windows = ((151.0, 160.0), (180.0, 190.0))
    found = kinds(two(tmp_path), ask(duration=200.0, windows=windows))
    assert found == {"moments out of reach": ("warning", 1), "cut videos": ("note", 1)}


def test_lengths_beside_the_arrays_are_compared(tmp_path: Path) -> None:
    make(tmp_path, LAYOUTS["emb-charades"], rows=60)
    folder = tmp_path / "data/features/charades/new"
    for lengths, level in (
        ({VID: 60}, None),
        ({VID: 59}, "warning"),
        ({}, "warning"),
        ([], "warning"),
    ):
        (folder / "feature_shapes.json").write_text(json.dumps(lengths))
        assert (
            kinds(load_pack("emb-charades", tmp_path), QUERY).get("lengths", (None, 0))[0] == level
        )
    assert kinds(load_pack("emb-charades", tmp_path), QUERY)["unknown words"] == ("note", 1)


@pytest.mark.parametrize("vid", ["../v", "/etc/v", "a/../../v", "v\0"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, vid: str) -> None:
    fill(tmp_path)
    with pytest.raises(InputError, match="cannot be part of a file name"):
        two(tmp_path).video(vid)


def test_a_pack_may_be_pickled(tmp_path: Path) -> None:
    make(tmp_path, LAYOUTS["univtg-hdf5"], rows=60)
    pack = load_pack("univtg-hdf5", tmp_path)
    video = pack.video(VID)
    again: FeaturePack = pickle.loads(pickle.dumps(pack))
    np.testing.assert_array_equal(again.video(VID), video)


def test_a_row_of_time(tmp_path: Path) -> None:
    fill(tmp_path)
    assert two(tmp_path).row_seconds(75, 140.0) == 2
    pool = two(tmp_path, TWO + "longer: pool\n")
    assert pool.row_seconds(75, 300.0) == 4
    assert pool.row_seconds(70, 140.0) == 2
    even = two(tmp_path, TWO.replace("seconds_per_row: 2", "seconds_per_row: null"))
    assert even.row_seconds(70, 35.0) == 0.5


# ---- the YAML ---------------------------------------------------------------------------------------


def change(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("max_rows", "max_row"), "unknown key max_row; did you mean 'max_rows'"),
        (change("dim: 12", "dims: 12"), r"sources\.\*\.dims; did you mean 'sources\.\*\.dim'"),
        (change("dim: 12", "dim: wide"), r"sources\.\*\.dim: expected `int \| null`, got `str`"),
        (change("dim: 12", "normalise: l1"), r"normalise: expected one of already, l2, none; got 'l1'"),
        (change("[slowfast, clip", "[slowfast, clap"), "names 'clap'; did you mean 'clip'"),
        (change("[slowfast, clip, tef]", "[clip, tef]"), "leaves out the source 'slowfast'"),
        (change("{vid}", "{video}"), r"has \{video\}; known here: \{vid\}"),
        (change("{qid}", "{query}"), r"has \{query\}; known here: \{qid\}, \{vid\}, \{sub\}"),
        (change('"clip/', '"/clip/'), "must be a path from the pack's folder"),
        (change("seconds_per_row: 2", "seconds_per_row: 0"), "must be > 0, or null"),
        (change("seconds_per_row: 2", ""), "missing required field `seconds_per_row`"),
        (change("max_rows: 75", "max_rows: 0"), "`max_rows` must be >= 1"),
        (change("columns", "version: 2\ncolumns"), "version: expected one of 1; got 2"),
        (change('files: "clip', 'parts: [a, b], files: "clip'), "either `files` or `parts`"),
        (change("columns: [", "columns: [["), "line 3: is not YAML"),
        (change("columns", "\tcolumns"), "line 2: is not YAML: found character"),
        (lambda _: "[1, 2]", "expected `object`, got `array`"),
        (lambda _: "", "is empty"),
        (lambda _: "!!python/object/apply:os.getcwd []", "is not YAML: could not determine a const"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_yaml(
    tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    fill(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        two(tmp_path, edit(TWO))
    assert "pack.yaml" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from("{}[]:,&*!-#'\"\n\t 0aé~|>?%@")), max_size=5
    ),
    more=st.sampled_from(
        ["", "about: &a [*a]\n", "made: &a {b: *a}\n", "? [1]\n: 2\n", "x: 2001-01-01\n"]
    ),
)
def test_a_yaml_is_a_pack_or_an_error(changes: list[tuple[int, str]], more: str) -> None:
    text = list(TWO)
    for place, character in changes:
        text[place % len(text)] = character
    try:
        read = decode_yaml(("".join(text) + more).encode(), Pack, "a.yaml")
    except InputError as error:
        said = str(error)
    else:
        assert read.sources
        return
    assert "a.yaml" in said


def test_what_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="got 'moment-detr-qvhighlight'; did you mean 'moment-detr-q"
    ):
        load_pack("moment-detr-qvhighlight", tmp_path)
    with pytest.raises(InputError, match="expected the folder of the features, got none"):
        load_pack("univtg")
    with pytest.raises(InputError, match="there is no such folder"):
        load_pack("univtg", tmp_path / "none")
    with pytest.raises(
        InputError, match=r"holds no features in this layout; looked for \S+vid_slowfast"
    ):
        load_pack("univtg", tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        load_pack(tmp_path / "none.yaml")
