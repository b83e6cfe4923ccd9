"""What is odd about annotations, and the command line that says it and converts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vmr
from vmr.cli import main
from vmr.data.annotations import read_queries
from vmr.data.check import Check, check_queries
from vmr.data.records import Place

DURATION = 10.0
ROWS = [
    {"qid": "clean", "query": "a", "windows": [[0, 4], [4, 10]]},
    {"qid": "reversed", "query": "b", "windows": [[6, 2], [12, 3]]},
    {"qid": "empty", "query": "c", "windows": [[3, 3]]},
    {"qid": "before", "query": "d", "windows": [[-1, 3]]},
    {"qid": "outside", "query": "e", "windows": [[11, 12]]},
    {"qid": "late", "query": "f", "windows": [[9, 10.5]]},
    {"qid": "rounded", "query": "g", "windows": [[9, 10.0000000001]]},
    {"qid": "overlap", "query": "h", "windows": [[0, 5], [4, 6]]},
    {"qid": "unsorted", "query": "i", "windows": [[4, 6], [0, 2]]},
    {"qid": "none", "query": "j", "windows": []},
    {"qid": "again", "query": " a ", "windows": [[0, 4], [4, 10]]},
    {"qid": "no text", "query": " ", "windows": [[0, 1]]},
    {"qid": "longer", "query": "k", "windows": [[0, 1]], "duration": 11},
    {"qid": "not known", "query": "l", "windows": None},
    {
        "qid": "clips", "query": "m", "windows": [[0, 2]],
        "relevant_clip_ids": [0, 0], "saliency_scores": [[1], [2]],
    },
    {"qid": "file name", "query": "n", "windows": [[0, 2]], "vid": "V.MP4"},
]  # fmt: skip
EXPECTED = {
    "reversed": (2, ["reversed"]),
    "zero_length": (1, ["empty"]),
    "negative": (1, ["before"]),
    "start_after_end": (1, ["outside"]),
    "end_after_end": (2, ["outside", "late"]),
    "overlapping": (1, ["overlap"]),
    "unsorted": (1, ["unsorted"]),
    "no_windows": (1, ["none"]),
    "repeated": (1, ["again"]),
    "empty_text": (1, ["no text"]),
    "durations_differ": (1, ["longer"]),
    "repeated_clips": (1, ["clips"]),
    "file_names": (1, ["file name"]),
}
VIDEOS = {"v": {"duration": 9.5, "timestamps": [[0, 4], [5, 12]], "sentences": ["one", "two"]}}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    rows = [{"vid": "v", "duration": DURATION, **row} for row in ROWS]
    text = "\n".join(json.dumps(row) for row in rows).replace('"windows"', '"relevant_windows"')
    path = tmp_path / "odd.jsonl"
    path.write_text(text)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    path = tmp_path / "clean.jsonl"
    row = {"qid": 1, "query": "x", "vid": "v", "duration": 4, "relevant_windows": [[0, 2.5]]}
    path.write_text(json.dumps(row))
    return path


def figures(check: Check) -> dict[str, int]:
    return {quirk.name: quirk.count for quirk in check.quirks}


def test_every_quirk_is_found(odd: Path) -> None:
    check = check_queries(read_queries(odd))
    assert (check.queries, check.videos, check.windows) == (16, 2, 19)
    assert (check.without_windows, check.with_saliency) == (1, 1)
    assert (check.path, check.kind) == (str(odd), "qvhighlights")
    lines = {row["qid"]: line for line, row in enumerate(ROWS, 1)}
    assert {quirk.name: (quirk.count, list(quirk.places)) for quirk in check.quirks} == {
        name: (count, [Place(lines[qid], qid) for qid in qids])
        for name, (count, qids) in EXPECTED.items()
    }


def test_a_clean_file_has_none(clean: Path) -> None:
    assert check_queries(read_queries(clean)).quirks == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("charades_sta/txt/charades_sta_train.txt", {"end_after_end": 1802}),
        ("charades_sta/txt/charades_sta_test.txt", {"end_after_end": 562}),
        ("charades_sta/lighthouse/charades_train_release.jsonl", {}),
        (
            "charades_sta/bm_detr/train.jsonl",
            {"start_after_end": 3, "end_after_end": 1789},
        ),
        # Over the three files 2 reversed, 2 of no length, 35 late by more than rounding.
        (
            "activitynet_captions/json/train.json",
            {"reversed": 2, "zero_length": 2, "end_after_end": 29},
        ),
        ("activitynet_captions/json/val_1.json", {"end_after_end": 5}),
        ("activitynet_captions/json/val_2.json", {"end_after_end": 1}),
        # With the blanks around sentences 1,201, 516 and 567 repeat; without them a few more do.
        ("tacos/json/train.json", {"end_after_end": 43, "repeated": 1206}),
        ("tacos/json/val.json", {"repeated": 517}),
        ("tacos/json/test.json", {"end_after_end": 5, "repeated": 572}),
        ("tacos/lighthouse/tacos_train_release.jsonl", {"repeated": 1206}),
        ("qvhighlights/highlight_train_release.jsonl", {}),
        ("tvsum/tvsum_train_release.jsonl", {}),
    ],
)
def test_real_quirks(real_data: Path, name: str, expected: dict[str, int]) -> None:
    assert figures(check_queries(read_queries(real_data / name))) == expected


# ---- vmr data check -----------------------------------------------------------------------------------


def test_check_prints_a_table(odd: Path, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(clean)]) == 0
    assert "nothing odd was found" in capsys.readouterr().out
    assert main(["data", "check", str(clean), str(odd)]) == 0
    header, first, second, *rest = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "layout", "queries", "videos", "windows", "saliency", "odd"]
    assert first.split() == [str(clean), "qvhighlights", "1", "1", "1", "none", "0"]
    assert second.split() == [str(odd), "qvhighlights", "16", "2", "19", "1", "15"]
    assert rest[1] == str(odd)
    assert "  windows that end before they start: 2 (line 2, qid reversed; ...)" in rest


def test_missing_features_are_odd(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"query": "x", "duration": 4, "relevant_windows": [[0, 2]]}
    rows = [row | {"qid": qid, "vid": vid} for qid, vid in ((1, "v"), (2, "w"), (3, "w"))]
    clean.write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "features"
    (folder / "clip").mkdir(parents=True)
    np.savez(folder / "clip" / "v.npz", features=np.ones((4, 3), np.float32))
    (folder / "pack.yaml").write_text(
        "version: 1\ncolumns: [clip]\nsources: {clip: {files: 'clip/{vid}.npz', dim: 3}}\n"
        "seconds_per_row: 2\ntext: {files: 'text/qid{qid}.npz', dim: 3}\n",
        encoding="utf-8",
    )
    assert main(["data", "check", str(clean), "--features", str(folder), "--strict"]) == 1
    said = capsys.readouterr().out
    assert (
        "queries that have no text features in the pack: 3 (line 1, qid 1; line 2, qid 2;" in said
    )
    assert "queries whose video has no features in the pack: 2 (line 2, qid 2;" in said
    assert main(["data", "check", str(clean), "--root", str(folder)]) == 3
    assert "--features" in capsys.readouterr().err


def test_strict(odd: Path, clean: Path) -> None:
    assert main(["data", "check", "--strict", str(clean)]) == 0
    assert main(["data", "check", "--strict", str(clean), str(odd)]) == 1


def test_check_json(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--json", str(odd), "nothing"]) == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["version"] == 1
    (file,) = document["files"]
    assert file["queries"] == 16
    assert file["quirks"][1] == {
        "name": "zero_length",
        "meaning": "windows of no length",
        "count": 1,
        "places": [{"line": 3, "qid": "empty"}],
    }
    assert [error["path"] for error in document["errors"]] == ["nothing"]
    assert captured.err == "vmr: error: nothing: there is no such file\n"


def test_a_folder_is_walked(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "videos.json").write_text(json.dumps(VIDEOS))
    (inner / "charades.json").write_text('{"AAAAA": {"duration": 9}}')
    (inner / "train.txt").write_text("AAAAA 1 2##x")
    (inner / "README.txt").write_text("Annotations")
    (inner / "results.jsonl").write_text('{"qid": 1, "pred_relevant_windows": []}')
    (inner / "results.json").write_text(json.dumps({"version": 1, "videos": []}, indent=2))
    (inner / "package.json").write_text('{"scripts": {"a": "b"}, "version": "1"}')
    (inner / "NOTES.txt").write_text("## Notes")
    (inner / "frames.npy").write_bytes(b"\x93NUMPY")
    assert main(["data", "check", "--json", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(file["path"]).name for file in document["files"]] == [
        "train.txt", "videos.json", "odd.jsonl",
    ]  # fmt: skip
    assert [Path(path).name for path in document["skipped"]] == [
        "NOTES.txt", "README.txt", "charades.json", "package.json", "results.json", "results.jsonl",
    ]  # fmt: skip
    assert main(["data", "check", str(inner)]) == 0
    captured = capsys.readouterr()
    assert "skipped, no annotations: " in captured.err
    assert "query 2, qid v_1" in captured.out
    # A file that was named is meant.
    assert main(["data", "check", str(inner / "charades.json")]) == 3
    assert "gives durations" in capsys.readouterr().err
    (inner / "broken.jsonl").write_text(odd.read_text() + "\n{")
    assert main(["data", "check", str(inner)]) == 3
    assert "broken.jsonl, line 17: is not JSON" in capsys.readouterr().err


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert said.err == f"vmr: error: {tmp_path}: holds no annotation files\n"
    assert said.out == ""


def test_durations_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.txt"
    path.write_text("AAAAA 1 2##x")
    lengths = tmp_path / "lengths.json"
    lengths.write_text('{"AAAAA": 1.5}')
    assert main(["data", "check", str(path)]) == 3
    assert "--durations" in capsys.readouterr().err
    assert main(["data", "check", str(path), "--durations", str(lengths)]) == 0
    assert "windows that end after the end of the video: 1 (line 1" in capsys.readouterr().out
    assert main(["data", "convert", str(path), str(tmp_path / "out")]) == 3
    command = ["data", "convert", str(path), str(tmp_path / "out"), "--durations", str(lengths)]
    assert main(command) == 0


@pytest.mark.parametrize("action", ["check", "convert"])
def test_help_loads_little(action: str) -> None:
    script = (
        "import sys, contextlib, vmr.cli\n"
        f"with contextlib.suppress(SystemExit): vmr.cli.main(['data', '{action}', '--help'])\n"
        "print(sorted({'torch', 'numpy', 'msgspec', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"usage: vmr data {action}" in run.stdout.replace("usage: -c", "usage: vmr")
    assert run.stderr.strip() == "[]"


def test_checking_loads_no_torch(clean: Path) -> None:
    script = (
        f"import sys, vmr.cli; vmr.cli.main(['data', 'check', {str(clean)!r}])\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "nothing odd was found" in run.stdout
    assert run.stderr.strip() == "[]"


# ---- vmr data convert ---------------------------------------------------------------------------------


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos.json").write_text(json.dumps(VIDEOS))
    out = tmp_path / "out.jsonl"
    command = ["data", "convert", str(tmp_path / "videos.json"), str(out)]
    assert main(command) == 0
    assert capsys.readouterr().err == f"vmr: wrote {out}: 2 queries (activitynet)\n"
    assert [query.windows for query in vmr.read_queries(out)] == [((0, 4),), ((5, 12),)]
    before = out.read_bytes()
    assert main([*command, "--clip-windows"]) == 3
    assert "is there already; name another file, or add --force" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*command, "--clip-windows", "--force"]) == 0
    assert "windows cut to the video: 1 (0 lay outside it" in capsys.readouterr().err
    assert [query.windows for query in vmr.read_queries(out)] == [((0, 4),), ((5, 9.5),)]
    # Onto itself: everything was read before anything is written.
    assert main(["data", "convert", str(out), str(out), "--force"]) == 0
    assert len(vmr.read_queries(out)) == 2
    assert main(["data", "convert", str(out), str(tmp_path / "none" / "out")]) == 6


def test_cut_windows(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["data", "convert", str(odd), str(out), "--clip-windows"]) == 0
    # before, outside, late, rounded and the start of one of the reversed
    said = "windows cut to the video: 5 (1 lay outside it and have no length now)"
    assert said in capsys.readouterr().err
    queries = vmr.read_queries(out)
    assert len(queries) == len(ROWS)
    assert queries.by_qid["before"].windows == ((0, 3),)
    assert queries.by_qid["outside"].windows == ((10, 10),)
    assert queries.by_qid["late"].windows == ((9, 10),)
    assert queries.by_qid["reversed"].windows == ((6, 2), (10, 3))
    assert queries.by_qid["none"].windows == ()
    assert queries.by_qid["not known"].windows is None


def test_convert_warns_of_lost_saliency(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    row = {
        "qid": "y", "query": "dog", "duration": 4.0, "vid": "y", "label": [[0], [1]], "domain": "d",
        "match": [-1, 1], "clip": [[0, 50], [25, 75]], "frames": 100, "fps": 25,
    }  # fmt: skip
    (tmp_path / "y.jsonl").write_text(json.dumps(row))
    assert main(["data", "convert", str(tmp_path / "y.jsonl"), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err + "".join(str(warning.message) for warning in recwarn)
    assert "saliency is left out (queries: 1)" in told
    written = (tmp_path / "out").read_text()
    assert written == '{"qid":"y","query":"dog","duration":4,"vid":"y","domain":"d"}\n'
