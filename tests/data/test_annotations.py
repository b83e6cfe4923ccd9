"""Annotations of every layout: made small here, and the real ones where the machine has them."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmr
from vmr.data.annotations import Queries, read_durations, read_queries, write_queries

# file -> layout, videos, queries, ground-truth windows, queries with saliency
REAL = {
    "activitynet_captions/json/train.json": ("activitynet", 10009, 37421, 37421, 0),
    "activitynet_captions/json/val_1.json": ("activitynet", 4917, 17505, 17505, 0),
    "activitynet_captions/json/val_2.json": ("activitynet", 4885, 17031, 17031, 0),
    "activitynet_captions/lighthouse/activitynet_val_release.jsonl": (
        "qvhighlights", 4917, 17505, 17505, 0,
    ),
    "activitynet_cd/derived/anet_train_DERIVED.json": ("activitynet", 10984, 51415, 51415, 0),
    "activitynet_cd/json/anet_test_iid.json": ("activitynet", 746, 3443, 3443, 0),
    "activitynet_cd/json/anet_test_ood.json": ("activitynet", 2450, 13578, 13578, 0),
    "activitynet_cd/json/anet_val.json": ("activitynet", 746, 3521, 3521, 0),
    "activitynet_cg/novel_composition.json": ("activitynet", 4202, 12028, 12028, 0),
    "activitynet_cg/novel_word.json": ("activitynet", 1991, 3920, 3920, 0),
    "activitynet_cg/test_trivial.json": ("activitynet", 4775, 15712, 15712, 0),
    "activitynet_cg/train.json": ("activitynet", 9659, 36724, 36724, 0),
    "charades_cd/bm_detr/test_iid.jsonl": ("qvhighlights", 333, 823, 823, 0),
    "charades_cd/bm_detr/test_ood.jsonl": ("qvhighlights", 1442, 3375, 3375, 0),
    "charades_cd/bm_detr/train.jsonl": ("qvhighlights", 4564, 11071, 11071, 0),
    "charades_cd/bm_detr/val.jsonl": ("qvhighlights", 333, 859, 859, 0),
    "charades_cd/json/charades_test_iid.json": ("charades-cd", 333, 823, 823, 0),
    "charades_cd/json/charades_test_ood.json": ("charades-cd", 1442, 3375, 3375, 0),
    "charades_cd/json/charades_train.json": ("charades-cd", 4564, 11071, 11071, 0),
    "charades_cd/json/charades_val.json": ("charades-cd", 333, 859, 859, 0),
    "charades_cg/novel_composition.json": ("activitynet", 2480, 3442, 3442, 0),
    "charades_cg/novel_word.json": ("activitynet", 580, 695, 695, 0),
    "charades_cg/test_trivial.json": ("activitynet", 1689, 3096, 3096, 0),
    "charades_cg/train.json": ("activitynet", 3555, 8281, 8281, 0),
    "charades_sta/bm_detr/test.jsonl": ("qvhighlights", 1334, 3720, 3720, 0),
    "charades_sta/bm_detr/train.jsonl": ("qvhighlights", 5338, 12408, 12408, 0),
    "charades_sta/lighthouse/charades_test_release.jsonl": ("qvhighlights", 1334, 3720, 3720, 0),
    "charades_sta/lighthouse/charades_train_release.jsonl": ("qvhighlights", 5336, 12404, 12404, 0),
    "charades_sta/txt/charades_sta_test.txt": ("charades-sta", 1334, 3720, 3720, 0),
    "charades_sta/txt/charades_sta_train.txt": ("charades-sta", 5338, 12408, 12408, 0),
    "qvhighlights/highlight_test_release.jsonl": ("qvhighlights", 1529, 1542, 0, 0),
    "qvhighlights/highlight_test_with_gt.jsonl": ("qvhighlights", 1529, 1542, 2761, 1542),
    "qvhighlights/highlight_train_release.jsonl": ("qvhighlights", 7100, 7218, 12803, 7218),
    "qvhighlights/highlight_val_release.jsonl": ("qvhighlights", 1519, 1550, 2803, 1550),
    "tacos/json/test.json": ("tacos", 25, 4001, 4001, 0),
    "tacos/json/train.json": ("tacos", 75, 9790, 9790, 0),
    "tacos/json/val.json": ("tacos", 27, 4436, 4436, 0),
    "tacos/lighthouse/tacos_test_release.jsonl": ("qvhighlights", 25, 4001, 4001, 0),
    "tacos/lighthouse/tacos_train_release.jsonl": ("qvhighlights", 75, 9790, 9790, 0),
    "tacos/lighthouse/tacos_val_release.jsonl": ("qvhighlights", 27, 4436, 4436, 0),
    "tvsum/tvsum_train_release.jsonl": ("tvsum", 40, 40, 0, 40),
    "tvsum/tvsum_val_release.jsonl": ("tvsum", 10, 10, 0, 10),
    "youtube_highlights/youtube_highlight_train_release.jsonl": (
        "youtube-highlights", 233, 233, 0, 233,
    ),
    "youtube_highlights/youtube_highlight_val_release.jsonl": (
        "youtube-highlights", 152, 152, 0, 152,
    ),
}  # fmt: skip


# ---- the real files -----------------------------------------------------------------------------------


def test_the_table_has_all_files(real_data: Path) -> None:
    folders = {name.split("/")[0] for name in REAL}
    found = {
        str(path.relative_to(real_data))
        for folder in folders
        for path in (real_data / folder).rglob("*.*")
        if path.suffix in {".json", ".jsonl", ".txt"}
    }
    assert found - {"charades_sta/txt/charades.json"} == set(REAL)
    assert len(REAL) == 44


@pytest.mark.parametrize("name", REAL)
def test_real_counts(real_data: Path, name: str) -> None:
    queries = read_queries(real_data / name)
    found = (
        queries.kind,
        len({query.video for query in queries}),
        len(queries),
        sum(len(query.windows or ()) for query in queries),
        sum(query.saliency is not None for query in queries),
    )
    assert found == REAL[name]
    lines = [query.line for query in queries]
    assert lines == list(range(1, len(queries) + 1))


def by_key(queries: Queries) -> dict[tuple[str, str], list[object]]:
    found: dict[tuple[str, str], list[object]] = {}
    for query in queries:
        found.setdefault((query.video, query.text), []).append(query.windows)
    return found


def test_real_copies_say_the_same(real_data: Path) -> None:
    ours = read_queries(real_data / "tacos/json/val.json")
    lighthouse = read_queries(real_data / "tacos/lighthouse/tacos_val_release.jsonl")
    assert list(ours) == list(lighthouse)  # to the last bit, qids and line numbers too
    cd, bm_detr = (
        read_queries(real_data / "charades_cd" / name)
        for name in ("json/charades_val.json", "bm_detr/val.jsonl")
    )
    assert [msgspec.structs.replace(query, qid=0) for query in cd] == [
        msgspec.structs.replace(query, qid=0) for query in bm_detr
    ]
    val = read_queries(real_data / "activitynet_captions/json/val_1.json")
    release = read_queries(
        real_data / "activitynet_captions/lighthouse/activitynet_val_release.jsonl"
    )
    mine, theirs = ({(q.video, q.text, q.windows) for q in file} for file in (val, release))
    assert len(mine - theirs) == len(theirs - mine) == 19  # spelling
    txt = read_queries(real_data / "charades_sta/txt/charades_sta_test.txt")
    assert by_key(txt) == by_key(read_queries(real_data / "charades_sta/bm_detr/test.jsonl"))


def test_real_content(real_data: Path) -> None:
    val = read_queries(real_data / "qvhighlights/highlight_val_release.jsonl")
    query = val.by_qid[2579]
    assert query is val[0]
    assert query.video == "NUsG9BgSes0_210.0_360.0"
    assert query.windows == ((82.0, 150.0),)
    assert query.duration == 150.0
    assert query.saliency is not None
    assert query.saliency.clip_ids == tuple(range(41, 75))
    assert query.saliency.dense().shape == (75, 3)
    tvsum = read_queries(real_data / "tvsum/tvsum_train_release.jsonl").by_qid["akI8YFjEmUw"]
    assert (tvsum.duration, tvsum.domain, tvsum.windows) == (132.0, "VU", None)
    assert tvsum.saliency is not None
    assert tvsum.saliency.dense().shape == (66, 20)
    youtube = read_queries(
        real_data / "youtube_highlights/youtube_highlight_train_release.jsonl"
    ).by_qid["6bS6-GVLBeM"]
    assert youtube.duration == 842 / 27.172045139576323
    assert youtube.saliency is not None
    assert youtube.saliency.clip_seconds == 50 / 27.172045139576323
    assert np.flatnonzero(youtube.saliency.dense()).tolist() == [12, 13, 14]
    lengths = read_durations(real_data / "charades_sta/txt/charades.json")
    assert len(lengths) == 9848
    assert lengths["7UPGT"] == 23.21


@pytest.mark.parametrize(
    "name", [name for name, row in REAL.items() if row[0] in {"qvhighlights", "tvsum"}]
)
def test_real_files_survive_writing(real_data: Path, tmp_path: Path, name: str) -> None:
    queries = read_queries(real_data / name)
    write_queries(tmp_path / "out.jsonl", queries)
    assert list(read_queries(tmp_path / "out.jsonl")) == list(queries)
    if name.startswith("qvhighlights"):
        official = [json.loads(line) for line in (real_data / name).read_text().splitlines()]
        written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        for theirs, ours in zip(official, written, strict=True):
            theirs["query"] = theirs["query"].strip()
            assert json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True)


# ---- small files of every layout ----------------------------------------------------------------------


def jsonl(*rows: object) -> str:
    return "\n".join(json.dumps(row) for row in rows)


ROW = {
    "qid": 7,
    "query": " a dog runs ",
    "duration": 9,
    "vid": "v",
    "relevant_windows": [[0, 4], [6, 12]],
    "relevant_clip_ids": [0, 1, 4],
    "saliency_scores": [[4, 1, 0], [2, 2, 2], [0, 0, 1]],
}
OWN = {"qid": "a", "query": "x", "vid": "w", "duration": 3.5, "relevant_windows": [[2.5, 1]]}
TVSUM = {
    "qid": "t", "query": "q", "duration": 2, "vid": "t", "relevant_windows": None,
    "label": [[1.0, 5.0], [2.0, 3.0]], "domain": "VU",
}  # fmt: skip
YOUTUBE = {
    "qid": "y", "query": "dog", "duration": 10.0, "vid": "y", "relevant_windows": None,
    "label": [[0], [1], [0]], "match": [-1, 1, 0], "domain": "dog",
    "clip": [[0.0, 100.0], [50.0, 150.0], [101.0, 200.0]], "frames": 250.0, "fps": 25.0,
}  # fmt: skip
VIDEOS = {
    "v_1": {"duration": 9.5, "timestamps": [[0, 4], [5.5, 3]], "sentences": [" one", "two "]},
    "v_2": {"duration": 3, "timestamps": [[0, 9]], "sentences": [""], "news": [{"VERB": ["x"]}]},
}
CHARADES_CD = {
    "AAAAA": {
        "timestamps": [[0.0, 6.9]], "sentences": ["put a book"], "video_duration": 33.5,
        "decode_fps": 16.0, "video_fps": -1.0, "framestamps": [[0, 110]], "encoded_sentences": [[1]],
    }
}  # fmt: skip
TACOS = {
    "s1-d2.avi": {
        "timestamps": [[50, 100], [100, 700]], "sentences": ["He cuts", "He eats"],
        "fps": 25.0, "num_frames": 500,
    }
}  # fmt: skip
TXT = "AAAAA 0.0 6.9##a person sits.\nBBBBB 1 20.5##x ## y\nAAAAA 3 2##z"
LENGTHS = {"AAAAA": {"subset": "test", "duration": 30.5, "actions": [[1, 0.0, 2.0]]}, "BBBBB": 9}

SMALL = {
    "qvhighlights": jsonl(ROW, {**ROW, "qid": 8, "saliency_scores": None}),
    "test split": jsonl({"qid": 1, "query": "x", "duration": 9, "vid": "v"}),
    "own": jsonl(OWN, {**OWN, "qid": "b", "relevant_windows": None}),
    "tvsum": jsonl(TVSUM),
    "youtube": jsonl(YOUTUBE),
    "videos": json.dumps(VIDEOS),
    "videos, indented": json.dumps(VIDEOS, indent=2),
    "charades-cd": json.dumps(CHARADES_CD),
    "tacos": json.dumps(TACOS),
    "txt": TXT,
}


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> str:
    return SMALL[request.param]


def read(folder: Path, text: str | bytes) -> Queries:
    """Reads a file whose name says nothing."""
    raw = text.encode() if isinstance(text, str) else text
    (folder / "file").write_bytes(raw)
    return read_queries(folder / "file", durations={"AAAAA": 30.5, "BBBBB": 9.0})


def told(queries: Sequence[vmr.Query]) -> list[tuple[object, ...]]:
    return [(q.qid, q.video, q.text, q.duration, q.windows, q.line) for q in queries]


def test_qvhighlights(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["qvhighlights"])
    windows = ((0.0, 4.0), (6.0, 12.0))
    assert queries.kind == "qvhighlights"
    assert told(queries) == [
        (7, "v", "a dog runs", 9.0, windows, 1),
        (8, "v", "a dog runs", 9.0, windows, 2),
    ]
    saliency = queries[0].saliency
    assert saliency == vmr.Saliency((0, 1, 4), ((4, 1, 0), (2, 2, 2), (0, 0, 1)), 5, 2.0)
    assert saliency.dense().tolist() == [[4, 1, 0], [2, 2, 2], [0] * 3, [0] * 3, [0, 0, 1]]
    assert queries[1].saliency is None


def test_own_data_and_test_split(tmp_path: Path) -> None:
    assert told(read(tmp_path, SMALL["own"])) == [
        ("a", "w", "x", 3.5, ((2.5, 1.0),), 1),
        ("b", "w", "x", 3.5, None, 2),
    ]
    assert told(read(tmp_path, SMALL["test split"])) == [(1, "v", "x", 9.0, None, 1)]


def test_tvsum_counts_clips(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["tvsum"])
    assert queries.kind == "tvsum"
    assert told(queries) == [("t", "t", "q", 4.0, None, 1)]
    assert queries[0].saliency == vmr.Saliency((0, 1), ((1.0, 5.0), (2.0, 3.0)), 2, 2.0)
    assert queries[0].domain == "VU"


def test_youtube_highlights(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["youtube"])
    assert queries.kind == "youtube-highlights"
    assert told(queries) == [("y", "y", "dog", 10.0, None, 1)]
    clip_seconds = 51 / 25  # the middle one of the strides 50 and 51, the later of two
    assert queries[0].saliency == vmr.Saliency((0, 1, 2), ((0,), (1,), (0,)), 3, clip_seconds)


@pytest.mark.parametrize("name", ["videos", "videos, indented"])
def test_by_video(tmp_path: Path, name: str) -> None:
    queries = read(tmp_path, SMALL[name])
    assert queries.kind == "activitynet"
    assert told(queries) == [
        ("v_1_0", "v_1", "one", 9.5, ((0.0, 4.0),), 1),
        ("v_1_1", "v_1", "two", 9.5, ((5.5, 3.0),), 2),
        ("v_2_0", "v_2", "", 3.0, ((0.0, 9.0),), 3),
    ]


def test_times_beside_a_duration_are_seconds(tmp_path: Path) -> None:
    video = {**TACOS["s1-d2.avi"], "duration": 20}
    queries = read(tmp_path, json.dumps({"v": video}))
    assert queries.kind == "activitynet"
    assert queries[0].windows == ((50.0, 100.0),)


def test_charades_cd(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["charades-cd"])
    assert queries.kind == "charades-cd"
    assert told(queries) == [("AAAAA_0", "AAAAA", "put a book", 33.5, ((0.0, 6.9),), 1)]


def test_tacos_frames_become_seconds(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["tacos"])
    assert queries.kind == "tacos"
    assert told(queries) == [
        ("s1-d2_0", "s1-d2", "He cuts", 20.0, ((2.0, 4.0),), 1),
        ("s1-d2_1", "s1-d2", "He eats", 20.0, ((4.0, 28.0),), 2),
    ]


def test_charades_sta(tmp_path: Path) -> None:
    queries = read(tmp_path, SMALL["txt"])
    assert queries.kind == "charades-sta"
    assert told(queries) == [
        ("AAAAA_0", "AAAAA", "a person sits.", 30.5, ((0.0, 6.9),), 1),
        ("BBBBB_0", "BBBBB", "x ## y", 9.0, ((1.0, 20.5),), 2),
        ("AAAAA_1", "AAAAA", "z", 30.5, ((3.0, 2.0),), 3),
    ]


def test_durations_of_charades_sta(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TXT)
    with pytest.raises(vmr.InputError, match=r"a\.txt: is a Charades-STA txt.*charades\.json"):
        read_queries(tmp_path / "a.txt")
    (tmp_path / "lengths").write_text(json.dumps(LENGTHS))
    assert read_durations(tmp_path / "lengths") == {"AAAAA": 30.5, "BBBBB": 9.0}
    named = read_queries(tmp_path / "a.txt", durations=tmp_path / "lengths")
    (tmp_path / "lengths").rename(tmp_path / "charades.json")
    beside = read_queries(tmp_path / "a.txt")
    assert list(named) == list(beside) == list(read(tmp_path, TXT))
    with pytest.raises(vmr.InputError, match=r"a\.txt, line 2: no duration of the video 'BBBBB'"):
        read_queries(tmp_path / "a.txt", durations={"AAAAA": 1.0})
    with pytest.raises(vmr.InputError, match=r"line 1: duration: expected seconds above 0.*nan"):
        read_queries(tmp_path / "a.txt", durations={"AAAAA": math.nan})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "holds no durations"),
        ('{"a": -1}', "above 0"),
        ('{"a": 1e8}', "up to 10,000,000"),
        ('{"a": "x"}', "got `str`"),
        ('{"a": {"b": 1}}', "missing"),
        ('{"a": NaN}', "got nan"),
        ('{"a": 2, "b": 3, "a": 3}', "the key 'a' stands there twice"),
        ('{"a": {"duration": 2}, "a": {"duration": 2, "x": 1}}', "the key 'a' stands there twice"),
        ('{"a": {"duration": 2, "duration": 3}}', "the key 'duration' stands there twice"),
    ],
)
def test_bad_durations(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lengths").write_text(text)
    with pytest.raises(vmr.InputError, match=f"lengths.*{message}"):
        read_durations(tmp_path / "lengths")


def test_bom_crlf_and_final_newline(tmp_path: Path, small: str) -> None:
    plain = list(read(tmp_path, small))
    assert list(read(tmp_path, b"\xef\xbb\xbf" + small.encode())) == plain
    assert list(read(tmp_path, small.replace("\n", "\r\n"))) == plain
    assert list(read(tmp_path, small + "\n\n")) == plain
    late = list(read(tmp_path, "\n \n" + small))
    assert [msgspec.structs.replace(query, line=0) for query in late] == [
        msgspec.structs.replace(query, line=0) for query in plain
    ]


def test_queries_are_a_sequence(tmp_path: Path) -> None:
    queries = vmr.read_queries(_file(tmp_path, SMALL["videos"]))
    assert isinstance(queries, Sequence)
    assert isinstance(queries, vmr.Queries)
    assert queries[-1] is queries.by_qid["v_2_0"]
    assert queries[1:] == (queries[1], queries[2])
    assert queries[0] in queries
    assert "v_3_0" not in queries.by_qid
    assert "activitynet, 3 queries" in repr(queries)
    assert queries.path == tmp_path / "file"
    copied = pickle.loads(pickle.dumps(queries))  # as a loader's worker gets them
    assert (list(copied), copied.kind, copied.path) == (list(queries), queries.kind, queries.path)
    with pytest.raises(AttributeError):
        queries[0].text = "another"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        queries.path = tmp_path  # type: ignore[misc]
    with pytest.raises(TypeError):
        queries.by_qid[1] = queries[0]  # type: ignore[index]


def _file(folder: Path, text: str) -> Path:
    (folder / "file").write_text(text)
    return folder / "file"


# ---- writing ------------------------------------------------------------------------------------------

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-9, 200).map(float)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.integers() | TEXTS


@st.composite
def saliencies(draw: st.DrawFn, duration: float, annotators: int) -> vmr.Saliency:
    clips = math.ceil(duration / 2)
    ids = draw(st.lists(st.integers(0, clips - 1), max_size=4))
    row = st.tuples(*[NUMBERS] * annotators)
    return vmr.Saliency(tuple(ids), tuple(draw(row) for _ in ids), clips, 2.0)


@st.composite
def queries_of_a_file(draw: st.DrawFn) -> list[vmr.Query]:
    qids = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    annotators = draw(st.integers(1, 3))
    queries = []
    for line, qid in enumerate(qids, 1):
        duration = draw(st.floats(1e-3, 1e5) | st.integers(1, 200).map(float))
        query = vmr.Query(
            qid=qid,
            video=draw(TEXTS.filter(bool)),
            text=draw(TEXTS).strip(),
            duration=duration,
            windows=draw(st.none() | st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple)),
            saliency=draw(st.none() | saliencies(duration, annotators)),
            domain=draw(st.none() | TEXTS),
            neg_query_ids=draw(st.none() | st.lists(NAMES, max_size=3).map(tuple)),
            line=line,
        )
        queries.append(query)
    return queries


@settings(max_examples=60, deadline=None)
@given(queries_of_a_file())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, queries: list[vmr.Query]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.jsonl"
    vmr.write_queries(path, queries)
    assert list(vmr.read_queries(path)) == queries


def test_every_layout_can_be_written(tmp_path: Path, small: str) -> None:
    queries = read(tmp_path, small)
    if queries.kind == "youtube-highlights":
        with pytest.warns(vmr.VmrWarning, match="saliency is left out .queries: 1."):
            write_queries(tmp_path / "out", queries)
        expected = [msgspec.structs.replace(queries[0], saliency=None)]
    else:
        write_queries(tmp_path / "out", queries)
        expected = list(queries)
    assert list(read_queries(tmp_path / "out")) == expected


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    write_queries(tmp_path / "out", read(tmp_path, jsonl(ROW)))
    assert (tmp_path / "out").read_text() == (
        '{"qid":7,"query":"a dog runs","duration":9,"vid":"v","relevant_windows":[[0,4],[6,12]],'
        '"relevant_clip_ids":[0,1,4],"saliency_scores":[[4,1,0],[2,2,2],[0,0,1]]}\n'
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": math.nan}, "query 1 cannot be written"),
        ({"duration": 0.0}, "duration: expected seconds above 0"),
        ({"windows": ((0.0, math.inf),)}, "cannot be written"),
        ({"text": "\ud800"}, "cannot be written"),
        ({"video": ""}, "expected the video's name"),
    ],
)
def test_what_no_file_may_have_is_not_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    query = vmr.Query(qid=1, video="v", text="x", duration=2.0)
    (tmp_path / "out").write_text("kept")
    with pytest.raises(vmr.InputError, match=message):
        write_queries(tmp_path / "out", [msgspec.structs.replace(query, **change)])
    with pytest.raises(vmr.InputError, match="query 2: the qid 1 stands on query 1 already"):
        write_queries(tmp_path / "out", [query, query])
    with pytest.raises(vmr.InputError, match="no queries to write"):
        write_queries(tmp_path / "out", [])
    with pytest.raises(vmr.CacheError, match="could not be written"):
        write_queries(tmp_path / "none" / "out", [query])
    assert (tmp_path / "out").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
