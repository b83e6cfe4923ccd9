"""`vmr predict --system granalign`: two videos, by a recording and the embedded encoders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import needs_models, one_process, vmr
from vmr.backends.recorded import Recorder

COLOURS = {"red": [0.0, 4.0], "green": [4.0, 8.0], "blue": [8.0, 12.0]}


@pytest.fixture
def benchmark(tmp_path: Path, colour_video: Path) -> Path:
    """val.jsonl, videos/ and what a captioner said."""
    recorder = Recorder()
    lines = []
    for number in range(2):
        video = tmp_path / "videos" / f"video-{number}.mp4"
        video.parent.mkdir(exist_ok=True)
        shutil.copy(colour_video, video)
        times = [second + 0.5 for second in range(12)]
        spoken = [f"a {colour} picture" for colour in COLOURS for _ in range(4)]
        recorder.add_captions(video.name, times, spoken)
        for place, (colour, window) in enumerate(COLOURS.items()):
            lines.append(
                {
                    "qid": 10 * number + place,
                    "query": f"a {colour} picture",
                    "vid": video.stem,
                    "duration": 12,
                    "relevant_windows": [window],
                }
            )
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorder.save(tmp_path / "said.jsonl")
    return tmp_path


def predict(folder: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return vmr(
        "predict", folder / "val.jsonl", "--system", "granalign", "--videos", folder / "videos",
        "--rewriter", "none", "--captioner", f"recorded:{folder / 'said.jsonl'}",
        "-p", "aware_query=none", *more,
    )  # fmt: skip


@needs_models
@one_process
def test_shards_are_scored_by_vmr_evaluate(benchmark: Path) -> None:
    out = benchmark / "answers.jsonl"
    for number in (1, 2):
        run = predict(benchmark, "--out", out, "--shard", f"{number}/2")
        assert run.returncode == 0, run.stderr
        assert run.stdout == ""
        assert "3 predictions (3 of them new)" in run.stderr
    parts = [benchmark / f"answers.{number}-of-2.jsonl" for number in (1, 2)]
    out.write_bytes(b"".join(part.read_bytes() for part in parts))
    scored = vmr("evaluate", out, benchmark / "val.jsonl", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["metrics"]["brief"]["MR-full-R1@0.7"] == 100.0
    again = predict(benchmark, "--out", out, "--shard", "2/2")
    assert again.returncode == 0, again.stderr
    assert "3 predictions (0 of them new)" in again.stderr


@needs_models
@one_process
def test_without_a_file_answers_go_to_stdout(benchmark: Path) -> None:
    (benchmark / "videos" / "video-1.mp4").write_text("no video")
    run = predict(benchmark)
    assert run.returncode == 4
    assert [json.loads(line)["qid"] for line in run.stdout.splitlines()] == [0, 1, 2]
    assert "video-1.mp4" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "granalign"], "--system: expected --videos DIR with it"),
        (["--checkpoint", "x"], "--checkpoint: expected --features DIR with it"),
        (["--system", "granalign", "--videos", ".", "--features", "."], "--features: does not go"),
        (["--system", "granalign", "--videos", "none"], "videos: expected a folder, got 'none'"),
        (
            ["--system", "granalign", "--videos", ".", "--shard", "3"],
            "I/N with I from 1 to N",
        ),
        (["--system", "granalign", "--videos", ".", "--batch-size", "3"], "--batch-size: does not"),
        (["--system", "granalign", "--videos", ".", "--device", "cuda"], "--device: does not go"),
        (["--checkpoint", "x", "--features", ".", "--shard", "1/8"], "--shard: does not go"),
        (["--checkpoint", "x", "--features", ".", "-p", "pairs=2"], "--param: does not go"),
        (["--checkpoint", "x", "--features", ".", "--no-cache"], "--no-cache: does not go"),
        (["--system", "granalign", "--videos", ".", "-k", "0"], "--top-k: expected at least 1"),
        (
            ["--system", "granalign", "--videos", "."],
            "2 of 2 videos are not there: video-0, video-1",
        ),
    ],
)
def test_what_does_not_fit_is_3(
    benchmark: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (benchmark / "empty").mkdir()
    monkeypatch.chdir(benchmark / "empty")
    run = vmr("predict", benchmark / "val.jsonl", *arguments)
    assert run.returncode == 3
    assert words in run.stderr


def test_either_a_checkpoint_or_a_system() -> None:
    for arguments in ([], ["--checkpoint", "c", "--system", "granalign"]):
        run = subprocess.run(
            [sys.executable, "-m", "vmr", "predict", "x", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 2
