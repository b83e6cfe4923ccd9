"""Clips: which frames are in them is read from the pictures, which carry their numbers."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.videos import HEIGHT, MPEG2, WIDTH, ffmpeg, needs_ffmpeg, numbered, numbers, stamps
from vmr.errors import BackendError, CacheError, InputError, VideoError
from vmr.exports import clips as clips_module
from vmr.exports import cut_clips
from vmr.exports import ffmpeg as programs
from vmr.results import Results

from .conftest import KEYS, SHORT, MakeResult

Source = Callable[[str], Path]
pytestmark = needs_ffmpeg

VP8 = ("-c:v", "libvpx", "-g", str(KEYS), "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8")
SPANS = ((2.21, 3.0), (0.0, 0.5), (4.0, 4.0))
FRAMES = ((56, 74), (0, 12), (99, 99))  # of SPANS in 100 frames, 25 a second
BEEP = "aevalsrc='if(between(t,4,4.5),sin(2764*t),0)':s=48000:d=6"


def frames(clip: Path) -> list[int]:
    """The numbers in all frames of a clip."""
    reader = cv2.VideoCapture(str(clip.absolute()), cv2.CAP_FFMPEG)
    held = []
    while (read := reader.read())[0]:
        held += numbers(np.asarray(read[1], np.uint8)[None])
    return held


def key_frames(video: Path) -> list[int]:
    """The numbers in its key frames, of which ffmpeg alone knows."""
    out = subprocess.run(
        ["ffmpeg", "-v", "error", "-skip_frame", "nokey", "-i", str(video), "-vsync", "passthrough",
         "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    return numbers(np.frombuffer(out, np.uint8).reshape(-1, HEIGHT, WIDTH, 3))


def facts(clip: Path, entries: str, streams: str = "v:0") -> list[str]:
    said = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", streams, "-show_entries", entries,
         "-of", "csv=p=0", f"file:{clip}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return said.strip().split(",") if said.strip() else []


def beep(clip: Path) -> float:
    """Seconds from the first frame of a clip to the beep in its sound."""
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(clip), "-vn", "-af", "aresample=async=1:first_pts=0",
         "-f", "f32le", "-ac", "1", "-ar", "48000", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    sound: NDArray[np.float32] = np.abs(np.frombuffer(raw, np.float32))
    return float(np.argmax(sound > 0.3)) / 48000 - float(facts(clip, "stream=start_time")[0])


@pytest.fixture(scope="module", autouse=True)
def asked_once() -> Iterator[None]:
    """Each video is asked about its frames once, whatever the tests that cut it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "read_stream", functools.cache(programs.read_stream))
        yield


@pytest.fixture(scope="module")
def loud(folder: Path, plain: Path) -> Path:
    """With sound, a beep from 4.0 to 4.5 s; the time stamps begin at 3.3 s."""
    made = folder / "loud.mkv"
    ffmpeg("-i", plain, "-f", "lavfi", "-i", BEEP, "-c:v", "copy", "-c:a", "libopus",
           "-output_ts_offset", "3.3", made)  # fmt: skip
    return made


SOURCES = {
    "x.mp4": SHORT,
    "offset.mkv": (*SHORT, "-output_ts_offset", "3.3"),
    "x.ts": SHORT,  # starts at 1.48 s and has no index
    "open.ts": MPEG2,
    "x.avi": ("-c:v", "mpeg4", "-bf", "2", "-g", str(KEYS)),
    "x.webm": VP8,
}


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return functools.cache(lambda name: numbered(folder / name, 100, *SOURCES[name]))


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "x.webm"])
def test_exact_clips_hold_exactly_the_frames_of_their_moments(
    name: str, source: Source, make_result: MakeResult, tmp_path: Path
) -> None:
    video = source(name)
    result = make_result(video, "q", *SPANS)
    seen: list[tuple[str, int, int]] = []
    clips = cut_clips(Results([result]), tmp_path, progress=lambda *at: seen.append(at))
    assert [clip.name for clip in clips] == [f"{video.stem}-q-{n:02d}.mp4" for n in range(1, 4)]
    for clip, (first, last) in zip(clips, FRAMES, strict=True):
        assert frames(clip) == list(range(first, last + 1))
    assert facts(clips[0], "stream=codec_name,pix_fmt,avg_frame_rate,start_time") == [
        "h264", "yuv420p", "25/1", "0.000000",
    ]  # fmt: skip
    data = clips[0].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it can play before it is whole
    assert seen == [("clips", n, 3) for n in range(1, 4)]
    assert sorted(tmp_path.iterdir()) == sorted(clips)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "offset.mkv"])
def test_keyframe_clips_start_at_the_key_frame_before(
    name: str, source: Source, make_result: MakeResult, tmp_path: Path
) -> None:
    video = source(name)
    clips = cut_clips(Results([make_result(video, "q", *SPANS)]), tmp_path, mode="keyframe")
    keys = key_frames(video)
    for clip, (first, last) in zip(clips, FRAMES, strict=True):
        assert clip.suffix == video.suffix
        held = frames(clip)
        assert held[0] == max(key for key in keys if key <= first)
        assert set(range(held[0], last + 1)) <= set(held)
        assert held[-1] <= last + 4
    assert facts(clips[0], "stream=codec_name")[0] == facts(video, "stream=codec_name")[0]


@pytest.mark.parametrize(("mode", "at"), [("exact", 1.0), ("keyframe", 1.0)])
def test_sound_fits_the_picture(
    mode: Any, at: float, loud: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    results = Results([make_result(loud, "q", (3.0, 5.0), (0.0, 5.0))])
    later, whole = cut_clips(results, tmp_path, mode=mode)
    assert beep(later) == pytest.approx(at, abs=0.03)
    assert beep(whole) == pytest.approx(4.0, abs=0.03)
    assert facts(later, "stream=codec_name", "a") == ["aac" if mode == "exact" else "opus"]
    assert frames(later)[0] == 75


def test_a_variable_frame_rate_keeps_its_times(
    folder: Path, plain: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    video = folder / "variable.mp4"
    # 25 frames a second for 2 s, then every fifth.
    ffmpeg("-i", plain, "-vf", "select='lt(n,50)+not(mod(n,5))'", "-vsync", "vfr", *SHORT, video)
    (clip,) = cut_clips(Results([make_result(video, "q", (1.8, 3.1))]), tmp_path)
    assert frames(clip) == [45, 46, 47, 48, 49, 50, 55, 60, 65, 70, 75]
    expected = [0.04 * (n - 45) for n in (45, 46, 47, 48, 49, 50, 55, 60, 65, 70, 75)]
    assert stamps(clip) == pytest.approx(np.array(expected), abs=1e-3)


def test_odd_sizes_and_rotation(
    folder: Path, plain: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    odd, turned = folder / "odd.mkv", folder / "turned.mp4"
    ffmpeg("-i", plain, "-vf", "scale=191:95", "-c:v", "ffv1", "-t", "1", odd)
    ffmpeg("-i", plain, "-c", "copy", "-t", "1", "-metadata:s:v:0", "rotate=90", turned)
    results = Results([make_result(video, "q", (0.2, 0.4)) for video in (odd, turned)])
    of_odd, of_turned = cut_clips(results, tmp_path)
    assert facts(of_odd, "stream=width,height") == ["190", "94"]
    assert frames(of_odd) == [5, 6, 7, 8, 9]
    assert facts(of_turned, "stream=width,height") == [str(HEIGHT), str(WIDTH)]


@pytest.mark.parametrize("mode", ["exact", "keyframe"])
def test_evil_file_names(
    mode: Any, plain: Path, make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["-i 100%d.mp4", "a:b 'q' \"r\" 走る[0].mp4"]
    for name in names:
        Path(name).write_bytes(plain.read_bytes())
    results = Results([make_result(name, "q", (0.0, 0.2)) for name in names])
    clips = cut_clips(results, "", mode=mode)
    assert [clip.name for clip in clips] == [
        "-i 100%d-q-01.mp4", "a b 'q' r 走る[0]-q-01.mp4",
    ]  # fmt: skip
    assert all(frames(clip)[:5] == [0, 1, 2, 3, 4] for clip in clips)


def test_names_and_top(plain: Path, make_result: MakeResult, tmp_path: Path) -> None:
    results = Results(
        [make_result(plain, "a dog", (1.0, 1.2), (2.0, 2.2)), make_result(plain, "A dog?", (0, 0))]
    )
    clips = cut_clips(results, tmp_path, mode="keyframe", name="{query} {start:05.2f}-{end}", top=1)
    assert [clip.name for clip in clips] == ["a-dog 01.00-1.200.mp4", "A-dog 00.00-0.000.mp4"]
    same = cut_clips(results, tmp_path / "same", mode="keyframe", name="{query}", top=1)
    assert [clip.name for clip in same] == ["a-dog.mp4", "A-dog-2.mp4"]
    (one,) = cut_clips(results[1], tmp_path / "one", mode="keyframe")
    assert one.name == "plain-A-dog-01.mp4"
    with pytest.raises(InputError, match=r"cut_clips: expected a Result, or several .* got str"):
        cut_clips("results.json", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top: expected"):
        cut_clips(results, tmp_path, top=0)


def test_an_unfit_suffix_becomes_matroska(
    plain: Path, make_result: MakeResult, tmp_path: Path
) -> None:
    video = tmp_path / "really an mp4.webm"
    video.write_bytes(plain.read_bytes())
    (clip,) = cut_clips(Results([make_result(video, "q", (0, 1))]), tmp_path, mode="keyframe")
    assert clip.suffix == ".mkv"
    assert frames(clip)[:2] == [0, 1]


# ---- what goes wrong ----------------------------------------------------------------------------------


def test_without_ffmpeg(
    plain: Path, make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BackendError, match=r"ffmpeg and ffprobe not found on the PATH; install it .* exports work"
    ):
        cut_clips(Results([make_result(plain, "q", (0, 1))]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(plain: Path, make_result: MakeResult, tmp_path: Path) -> None:
    results = Results([make_result(plain, "q", (0, 1), (1, 2))])
    (tmp_path / "plain-q-02.mp4").write_text("mine")
    with pytest.raises(InputError, match=r"plain-q-02\.mp4 exists already.* overwrite=True"):
        cut_clips(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plain-q-02.mp4"]
    cut_clips(results, tmp_path, mode="keyframe", overwrite=True)
    assert (tmp_path / "plain-q-02.mp4").stat().st_size > 1000
    with pytest.raises(InputError, match="over the video itself"):
        cut_clips(results, plain.parent, name="{video}", overwrite=True)


def test_what_is_no_video(make_result: MakeResult, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    for video, said in (
        (broken, "ffprobe cannot read it: .*Invalid data"),
        ("no.mp4", "there is none"),
    ):
        with pytest.raises(VideoError, match=said):
            cut_clips(Results([make_result(video, "q", (0, 1))]), tmp_path / "out")
    with pytest.raises(InputError, match="mode: expected one of exact, keyframe; got 'fast'"):
        cut_clips(Results(), tmp_path, mode="fast")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_ffmpegs_last_line_is_told(
    plain: Path, make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmr.exports.clips.passthrough_option", lambda: "-no_such_option")
    with pytest.raises(CacheError, match=r"could not cut .*plain\.mp4 .*Option not found"):
        cut_clips(Results([make_result(plain, "q", (0, 1))]), tmp_path)
    assert list(tmp_path.iterdir()) == []


class Stuck(subprocess.Popen[bytes]):
    """An ffmpeg that has begun to write and goes on for ever, until somebody ends it."""

    started: list[Stuck] = []  # noqa: RUF012

    def __init__(self, command: list[str], **how: Any) -> None:
        slow = ["ffmpeg", "-y", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc", command[-1]]
        super().__init__(slow, **how)
        self.started.append(self)
        end = time.monotonic() + 30
        while not Path(command[-1].removeprefix("file:")).exists():
            assert time.monotonic() < end, "ffmpeg never began"
            time.sleep(0.01)


@pytest.mark.parametrize("end", ["kill", "interrupt"])
def test_an_end_in_the_middle_leaves_nothing(
    end: str, plain: Path, make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stuck.started.clear()
    results = Results([make_result(plain, "q", (0, 1))])
    # run(), by which ffprobe is started, is made of Popen as well: what it says is known before.
    stream = programs.read_stream(str(plain))
    monkeypatch.setattr(clips_module, "read_stream", lambda video: stream)
    programs.passthrough_option()
    monkeypatch.setattr("vmr.exports.ffmpeg.subprocess.Popen", Stuck)
    wait = Stuck.communicate
    if end == "kill":

        def killed(self: Stuck) -> tuple[bytes, bytes]:
            self.kill()
            return wait(self)

        monkeypatch.setattr(Stuck, "communicate", killed)
        with pytest.raises(CacheError, match=r"exit status -9"):
            cut_clips(results, tmp_path)
    else:

        def interrupted(self: Stuck, *_: object) -> tuple[bytes, bytes]:
            assert self.poll() is None  # it goes on
            raise KeyboardInterrupt

        monkeypatch.setattr(Stuck, "communicate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut_clips(results, tmp_path)
        assert Stuck.started[0].returncode == -9
    assert len(Stuck.started) == 1
    assert list(tmp_path.iterdir()) == []
