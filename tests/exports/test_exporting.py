"""The options of the command line, as a command that has them uses them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from tests.videos import needs_ffmpeg
from vmr.cli import exporting
from vmr.errors import BackendError, CacheError, InputError
from vmr.results import Results

from .conftest import MakeResult


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+")
    parser.add_argument("-q", action="append", dest="queries", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    exporting.add_options(parser)
    return parser.parse_args(["bikes.mp4", "-q", "a dog", *words])


def test_nothing_asked_for_is_nothing_done(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    exporting.check(options())
    exporting.write(options(), results)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--export", "vtt,srr"], "--export: expected some of json.*got 'srr'; did you mean 'srt'"),
        (["--export", ","], "--export: expected one or more"),
        (["--export", "srt", "--name", "{rank}"], r"--name: expected fields of \{video\}"),
        (["--name", "{query}"], "--name is for --export"),
        (["--clip-name", "{rank}"], "--clip-name is for --clips"),
        (["--clips", "c", "--clip-name", "{ranc}"], "--clip-name: .*did you mean 'rank'"),
        (["--export", "csv", "--out", "a file"], "a file: expected a folder, got a file"),
        (["--clips", "a file/below"], "a file: expected a folder, got a file"),
        (["--export", "srt"], r"bikes\.srt exists already; .* with --overwrite"),
        (
            ["--export", "json", "--name", "results", "--out", "o"],
            "results.json is written by --out",
        ),
    ],
)
@needs_ffmpeg
def test_what_is_wrong_is_said_before_the_work(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a file", "bikes.srt"):
        Path(name).touch()
    with pytest.raises(InputError, match=said):
        exporting.check(options(*words))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "bikes.srt"]


@pytest.mark.parametrize(
    ("words", "there", "refused"),
    [
        ([], "bikes-a-dog-03.mp4", True),
        ([], "bikes-a-dog-2-03.mp4", False),  # of another query
        ([], "bikes-a-dog-03.mkv", False),
        ([], "cars-a-dog-01.mp4", False),
        (["--overwrite"], "bikes-a-dog-03.mp4", False),
        (["--clip-name", "{start:06.1f} {query} {score}"], "0012.5 a-dog -0.250.mp4", True),
        (["--clip-name", "{start:06.1f} {query} {score}"], "12 a cat -0.250.mp4", False),
        (["--clip-name", "{query:.3}"], "a-d.mp4", True),
        (["--clip-name", "(x)"], "(x).mp4", True),
        (["--clip-mode", "keyframe"], "bikes-a-dog-01.mp4", True),
        (["--clip-mode", "keyframe", "odd.Mov", "odd.gif"], "odd-a-dog-01.mov", True),
        (["--clip-mode", "keyframe", "odd.gif"], "odd-a-dog-01.mkv", True),
    ],
)
@needs_ffmpeg
def test_clips_that_are_there_are_found_before_the_work(
    words: list[str], there: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    videos = [word for word in words if word.startswith("odd")]
    asked = options("--clips", "clips", *(word for word in words if word not in videos))
    asked.videos += videos
    exporting.check(asked)
    assert list(tmp_path.iterdir()) == []  # nor is a folder made
    Path("clips").mkdir()
    Path("clips", there).touch()
    if refused:
        with pytest.raises(InputError, match=f"{re.escape(there)} exists already; .*--overwrite"):
            exporting.check(asked)
    else:
        exporting.check(asked)


def test_the_help_tells_of_equal_names() -> None:
    parser = argparse.ArgumentParser()
    exporting.add_options(parser)
    assert "equal names are numbered" in " ".join(parser.format_help().split())


def test_what_is_missing_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    exporting.check(options("--export", "srt,vtt,edl", "--out", str(tmp_path / "new")))
    with pytest.raises(BackendError, match="apt-get install ffmpeg"):
        exporting.check(options("--clips", str(tmp_path)))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(CacheError, match="no files can be written"):
        exporting.check(options("--export", "srt", "--out", str(tmp_path)))
    assert not (tmp_path / "new").exists()


@needs_ffmpeg
def test_writes_and_says_so(
    plain: Path, make_result: MakeResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results([make_result(plain, "a dog", (0.0, 0.2))])
    out = tmp_path / "out"
    asked = options("--export", "SRT, edl", "--out", str(out), "--clips", str(out / "clips"))
    exporting.check(asked)
    exporting.write(asked, results)
    expected = [out / "plain.srt", out / "plain.edl", out / "clips" / "plain-a-dog-01.mp4"]
    assert all(path.stat().st_size for path in expected)
    said = capsys.readouterr()
    assert said.out == ""
    # A slow machine tells how far it is as well.
    lines = [line for line in said.err.splitlines() if not line.startswith("vmr: clips ")]
    assert lines == [f"vmr: wrote {path}" for path in expected]
