"""Video -> frames, through both readers."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.videos import H264, HEIGHT, MPEG2, WIDTH, ffmpeg, needs_ffmpeg, numbered, numbers, stamps
from vmr.errors import InputError, VideoError, VmrWarning
from vmr.video import Frames, cursor, probe, readers, sample_times, stream

pytestmark = needs_ffmpeg

RATE = 25
MODULES = ("vmr._video", "cv2")


@pytest.fixture(params=[*MODULES, "default"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each reader alone, and both with the choice left to the package."""
    if request.param != "default":
        pytest.importorskip(
            request.param, reason=f"this build has no {request.param}", exc_type=ImportError
        )
        monkeypatch.setattr(readers, "READERS", {request.param: readers.READERS[request.param]})
    return str(request.param)


def guesses_last_times(reader: str) -> bool:
    if reader != "vmr._video":
        return False
    from vmr import _video

    return not _video.knows_last_times


GAPS = "select='lt(mod(n,75),25)+not(mod(n,11))*lt(n,600)+gt(n,1000)'"
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mp4": ("mp4", H264),
    "mp4-offset": ("mp4", (*H264, "-output_ts_offset", "1.4")),
    "mp4-fragments": ("mp4", (*H264, "-movflags", "frag_keyframe+empty_moov")),
    "mp4-variable": ("mp4", ("-vf", GAPS, "-fps_mode", "vfr", *H264)),
    "mkv": ("mkv", H264),
    "mkv-offset": ("mkv", (*H264, "-output_ts_offset", "1.4")),
    "mkv-variable": ("mkv", ("-vf", GAPS, "-fps_mode", "vfr", *H264)),
    "ts-mpeg2-open": ("ts", MPEG2),
    "ts-h264": ("ts", H264),
    "avi": ("avi", ("-c:v", "mpeg4", "-q:v", "2", "-bf", "0")),
    "h264-without-times": ("h264", H264),
}
COUNT = 1100  # 44 s


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("made")

    def make(kind: str) -> Path:
        ending, options = KINDS[kind]
        path = folder / f"{kind}.{ending}"
        return path if path.exists() else numbered(path, COUNT, *options)

    return make


def kept(kind: str) -> NDArray[np.int64]:
    """The numbers of the frames in a video of KINDS, in order."""
    n = np.arange(COUNT)
    if not kind.endswith("-variable"):
        return n
    chosen: NDArray[np.int64] = n[(n % 75 < 25) | ((n % 11 == 0) & (n < 600)) | (n > 1000)]
    return chosen


def truth(path: Path, kind: str) -> NDArray[np.float64]:
    return np.arange(COUNT) / RATE if kind == "h264-without-times" else stamps(path)


def read(path: Path, times: NDArray[np.float64] | list[float], **options: int) -> Frames:
    """All frames in one."""
    parts = list(stream(path, times, **options))
    pixels = np.concatenate([part.pixels for part in parts])
    shown = np.concatenate([part.shown for part in parts])
    return Frames(np.concatenate([part.times for part in parts]), lambda: (pixels, shown))


def check(frames: Frames, path: Path, kind: str) -> None:
    stamped = truth(path, kind)
    rows = np.searchsorted(stamped, frames.times + 1e-6, side="right") - 1
    assert numbers(frames.pixels) == kept(kind)[rows].tolist()
    np.testing.assert_allclose(frames.shown, stamped[rows], atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_has_its_time(reader: str, made: Callable[[str], Path], kind: str) -> None:
    path = made(kind)
    stamped = truth(path, kind)
    assert len(stamped) == len(kept(kind))
    last = stamped[-5] if guesses_last_times(reader) and kind.endswith("-variable") else stamped[-1]
    check(read(path, np.arange(0.013, last + 0.03, 0.03)), path, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "times", [[39.99], [0.5, 14.03, 27.5, 27.51, 43.3], [20.0, 20.0, 33.0, 40.61]]
)
def test_a_frame_is_the_same_after_a_jump(
    reader: str, made: Callable[[str], Path], kind: str, times: list[float]
) -> None:
    check(read(made(kind), times), made(kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_duration(reader: str, made: Callable[[str], Path], kind: str) -> None:
    if kind == "mkv-offset" and reader == "vmr._video":
        pytest.skip("OpenCV before 4.11 does not tell where a Matroska file starts")
    path = made(kind)
    assert probe(path).duration == pytest.approx(truth(path, kind)[-1] + 1 / RATE, abs=0.1)


def test_both_readers_give_the_same(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vmr._video", exc_type=ImportError)
    both = dict(readers.READERS)
    found = []
    for name in MODULES:
        monkeypatch.setattr(readers, "READERS", {name: both[name]})
        found.append([read(made(kind), sample_times(40.0, 0.7), short_side=60) for kind in KINDS])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.shown, other.shown)


def test_facts(reader: str, made: Callable[[str], Path]) -> None:
    info = probe(made("mp4"))
    assert (info.width, info.height, info.rotation) == (WIDTH, HEIGHT, 0)
    assert info.frame_count == COUNT
    assert info.frame_rate == pytest.approx(RATE)
    assert info.path == made("mp4")
    expected = {"vmr._video": "vmr._video", "cv2": "opencv-python-headless"}.get(
        reader, info.reader
    )
    assert info.reader == expected


def test_an_edit_list_that_cuts_the_beginning(
    reader: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "edited.mp4"
    ffmpeg("-ss", "7.3", "-i", made("mp4"), "-c", "copy", path)
    left = len(stamps(path))
    assert left < COUNT - 100
    info = probe(path)
    assert info.frame_rate == pytest.approx(RATE)
    assert info.duration == pytest.approx(left / RATE, abs=0.05)
    times = np.array([0.01, 0.05, 20.01, 33.0 + 0.01])
    expected = COUNT - left + (times * RATE).astype(int)
    assert numbers(read(path, times).pixels) == expected.tolist()


def test_average_rate_of_a_variable_one(reader: str, made: Callable[[str], Path]) -> None:
    info = probe(made("mp4-variable"))
    assert info.frame_rate == pytest.approx(len(kept("mp4-variable")) / 44, rel=0.01)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_frames_are_upright(reader: str, tmp_path: Path, degrees: int) -> None:
    plain = numbered(tmp_path / "plain.mp4", 10)
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned)
    upright = tmp_path / "upright.png"
    ffmpeg("-i", turned, "-frames:v", "1", upright)  # ffmpeg turns by itself
    import cv2

    expected = np.asarray(cv2.imread(str(upright)), dtype=np.int16)[..., ::-1]
    if abs(int(expected.shape[0]) - HEIGHT) < 2 and degrees != 180:
        pytest.skip("this ffmpeg does not write rotation from metadata")
    (frames,) = stream(turned, [0.0])
    assert frames.pixels[0].shape == expected.shape
    assert np.abs(frames.pixels[0] - expected).mean() < 6
    info = probe(turned)
    assert (info.height, info.width) == expected.shape[:2]
    assert info.rotation in {degrees, 360 - degrees}


# ---- sampling and batches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "every", "expected"),
    [
        (3.0, 1.0, [0.5, 1.5, 2.5]),
        (2.5, 1.0, [0.5, 1.5, 2.25]),
        (0.4, 1.0, [0.2]),
        (0.3, 0.1, [0.05, 0.15, 0.25]),
        (0.1 + 0.2, 0.1, [0.05, 0.15, 0.25]),
    ],
)
def test_sample_times(duration: float, every: float, expected: list[float]) -> None:
    np.testing.assert_allclose(sample_times(duration, every), expected)


@pytest.mark.parametrize(
    ("duration", "every"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, np.nan), (np.inf, 1)]
)
def test_sample_times_says_what_is_wrong(duration: float, every: float) -> None:
    with pytest.raises(InputError, match="number of seconds > 0"):
        sample_times(duration, every)


def test_batches(reader: str, made: Callable[[str], Path]) -> None:
    parts = list(stream(made("mp4"), sample_times(44.0, 4.0), batch=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert {part.video for part in parts} == {"mp4.mp4"}
    assert list(stream(made("mp4"), [])) == []


def test_times_within_one_frame_and_before_the_first(
    reader: str, made: Callable[[str], Path]
) -> None:
    times = [-1.0, 0.0, 0.01, 0.02, 0.03, 0.05]
    assert numbers(read(made("mp4"), times, batch=2).pixels) == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("short_side", "shape"), [(48, (48, 96)), (500, (HEIGHT, WIDTH)), (None, (HEIGHT, WIDTH))]
)
def test_short_side(
    reader: str, made: Callable[[str], Path], short_side: int | None, shape: tuple[int, int]
) -> None:
    (frames,) = stream(made("mp4"), [7.0], short_side=short_side)
    assert frames.pixels.shape == (1, *shape, 3)
    assert frames.pixels.dtype == np.uint8
    assert numbers(frames.pixels) == [175]


def test_colours_are_rgb(reader: str, colour_video: Path) -> None:
    (frames,) = stream(colour_video, [2.0, 6.0, 10.0])
    assert frames.pixels.mean(axis=(1, 2)).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        ([2.0, 1.0], {}, "ascending"),
        ([np.nan], {}, "ascending"),
        ([[1.0]], {}, "ascending"),
        ([1.0], {"batch": 0}, "batch must be >= 1, got 0"),
        ([1.0], {"prefetch": 0}, "prefetch must be >= 1, got 0"),
        ([1.0], {"short_side": 0}, "short_side must be >= 1, got 0"),
    ],
)
def test_stream_says_what_is_wrong(
    made: Callable[[str], Path], times: list[float], options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stream(made("mp4"), times, **options)


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vmr-video"]


def test_decodes_no_further_ahead_than_asked(
    reader: str, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    original = cursor.Cursor.read

    def counted(self: cursor.Cursor, times: NDArray[np.float64], short_side: int | None) -> Frames:
        begun.append(len(times))
        return original(self, times, short_side)

    monkeypatch.setattr(cursor.Cursor, "read", counted)
    frames: Iterator[Frames] = stream(made("mp4"), sample_times(44.0, 1.0), batch=2, prefetch=3)
    next(frames)
    deadline = time.monotonic() + 20
    while len(begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(begun) == 4  # the one taken, and three ahead
    assert len(decoders()) == 1
    frames.close()  # type: ignore[attr-defined]
    assert not decoders()


def test_stops_in_the_middle_of_a_long_walk(
    reader: str, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "STRIDE", 1)
    monkeypatch.setattr(cursor, "JUMP", np.inf)
    frames = stream(made("mp4"), [0.0, 43.0], batch=1)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert not decoders()


def test_decodes_without_the_gil(made: Callable[[str], Path]) -> None:
    compiled = pytest.importorskip("vmr._video", exc_type=ImportError)
    began, ended = threading.Event(), threading.Event()

    def decode() -> None:
        capture = compiled.Reader(str(made("mp4")))
        began.set()
        capture.grab_past(np.inf, 10 * COUNT)
        ended.set()

    made("mp4")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # a thread that holds the GIL keeps it
    try:
        thread = threading.Thread(target=decode)
        thread.start()
        began.wait()
        beside = not ended.is_set()
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert beside


def test_an_error_in_the_thread_reaches_the_caller(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Frames:
        raise MemoryError("no room")

    monkeypatch.setattr(cursor.Cursor, "read", fails)
    with pytest.raises(MemoryError, match="no room"):
        list(stream(made("mp4"), [1.0]))
    assert not decoders()


def test_frames_decode_once_and_only_if_looked_at() -> None:
    calls = []

    def load() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        calls.append(1)
        return np.full((2, 4, 4, 3), 9, dtype=np.uint8), np.array([0.0, 1.0])

    frames = Frames([0.2, 1.2], load, derived={"known": np.array([1.0, 2.0])})
    assert frames.derive("known", lambda pixels: pixels.sum(axis=(1, 2, 3))).tolist() == [1.0, 2.0]
    assert not calls
    assert frames.derive("sum", lambda pixels: pixels.sum(axis=(1, 2, 3))).tolist() == [432, 432]
    assert frames.derived["sum"].tolist() == [432, 432]
    assert frames.shown.tolist() == [0.0, 1.0]
    assert len(calls) == 1


# ---- bad input ------------------------------------------------------------------------------------


def refused(path: Path, message: str) -> None:
    for open_it in (probe, lambda file: stream(file, [0.0])):
        with pytest.raises(VideoError, match=message) as raised:
            open_it(path)
        assert str(path) in str(raised.value)


def test_missing_file(reader: str, tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", "found nothing there")


def test_folder(reader: str, tmp_path: Path) -> None:
    refused(tmp_path, "got a folder")


def test_named_pipe(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "no regular file")


@pytest.mark.parametrize("ending", ["txt", "mp4", "ts"])
def test_text(reader: str, tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"notes.{ending}"
    path.write_text("This is no video.\n" * 100, encoding="utf-8")
    refused(path, "a text file|no video")
    assert capfd.readouterr() == ("", "")


def test_empty(reader: str, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "0 bytes")


def test_unreadable(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "Permission denied")


@pytest.mark.parametrize("name", ["sound.m4a", "sound.mka", "sound.wav", "sound.mp4", "sound.ts"])
def test_no_video_stream(
    reader: str, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", path)
    refused(path, "without a video stream")
    assert capfd.readouterr() == ("", "")


def test_zero_frames(reader: str, tmp_path: Path) -> None:
    path = numbered(tmp_path / "none.avi", 3, "-c:v", "mpeg4")
    data = path.read_bytes()
    start = data.index(b"movi") + 4
    path.write_bytes(data[:start])
    refused(path, "not one frame|without a video stream")


def test_frames_of_rubbish(reader: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = numbered(tmp_path / "rubbish.mp4", 20)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    refused(path, "not one frame")
    assert capfd.readouterr() == ("", "")


def test_cut_off_before_the_index(reader: str, tmp_path: Path) -> None:
    path = numbered(tmp_path / "cut.mp4", 100)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 8])
    refused(path, "no 'moov' box")


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
def test_cut_off(reader: str, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole = numbered(tmp_path / f"whole-{name}", 500, *H264, "-movflags", "+faststart")
    path = tmp_path / name
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert probe(path).duration == pytest.approx(20.0, abs=0.1)
    with pytest.warns(
        VmrWarning, match=r"cut\.... decodes only up to 1\d\.\d s of the 20\.0 s"
    ) as caught:
        frames = read(path, sample_times(20.0, 0.5), batch=7)
    assert len(caught) == 1
    assert 15 < len(frames.times) < 30
    assert f"{40 - len(frames.times)} of 40 samples" in str(caught[0].message)
    expected = (frames.times * RATE + 1e-6).astype(int)
    # The very last frames of a cut file may be damaged.
    assert numbers(frames.pixels)[:-1] == expected.tolist()[:-1]
    assert capfd.readouterr() == ("", "")
    with pytest.warns(VmrWarning, match="1 of 1 samples"):
        assert list(stream(path, [19.0])) == []


def test_damage_in_the_middle_does_not_end_the_video(reader: str, tmp_path: Path) -> None:
    path = numbered(tmp_path / "hurt.ts", 500, *MPEG2)
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 9000] = bytes(9000)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = read(path, sample_times(20.0, 1.0))
    assert len(frames.times) == 20
    assert numbers(frames.pixels)[-3:] == [437, 462, 487]


def test_shorter_than_one_sample(reader: str, tmp_path: Path) -> None:
    path = numbered(tmp_path / "short.mp4", 5)
    info = probe(path)
    assert info.duration == pytest.approx(0.2)
    assert numbers(read(path, sample_times(info.duration, 1.0)).pixels) == [2]


def test_one_frame(reader: str, tmp_path: Path) -> None:
    path = numbered(tmp_path / "one.mp4", 1)
    assert numbers(read(path, sample_times(probe(path).duration, 1.0)).pixels) == [0]


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "%03d.mp4",
        "-y.mp4",
        "ünï 視頻 🎬.mp4",
        "a:b.mp4",
        "q'\"$[1]*?.mp4",
        "no ending",
    ],
)
def test_odd_names(
    reader: str,
    made: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / name).write_bytes(made("mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    (frames,) = stream(name, [1.0])
    assert numbers(frames.pixels) == [25]
    assert probe(name).path == Path(name)


@pytest.mark.parametrize(("knows", "expected"), [(True, "vmr._video"), (False, "cv2")])
def test_an_old_opencv_is_the_second_choice(
    monkeypatch: pytest.MonkeyPatch, knows: bool, expected: str
) -> None:
    module = pytest.importorskip("vmr._video", exc_type=ImportError)
    monkeypatch.setattr(module, "knows_last_times", knows)
    assert readers.chosen()[0].__name__ == expected


def test_without_any_reader(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "READERS", {"vmr._absent": readers.compiled})
    with pytest.raises(VideoError, match="pip install opencv-python-headless"):
        probe(made("mp4"))
