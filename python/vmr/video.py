"""Video -> frames: facts about a file, and frames at given times, in bounded memory.

Videos are decoded by FFmpeg through OpenCV, either by the compiled module ``vmr._video`` or, where the
build has none, by the package opencv-python-headless. Both give the same frames and the same times.

All times are seconds of presentation time from the first frame of the video, so that time stamps that
do not start at 0 and variable frame rates give right times. The frame *at* a time t is the one a player
shows then: the last frame whose presentation time is <= t.

When the first video is opened, the environment variables OPENCV_FFMPEG_LOGLEVEL (to silence FFmpeg) and
OPENCV_FFMPEG_THREADS (two a core: decoding threads wait for each other; OpenCV before 4.7 starts one a
core whatever it says) are set for this process unless they are set already.
"""

from __future__ import annotations

import importlib
import math
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError, VideoError, VmrWarning

if TYPE_CHECKING:
    import types

__all__ = ["Frames", "VideoInfo", "probe", "sample_times", "stream"]

Load = Callable[[], tuple[NDArray[np.uint8], NDArray[np.float64]]]

_JUMP = (
    12.0  # s; a gap from which seeking pays (it decodes from a key frame on, often 2 to 10 s back)
)
_PATIENCE = 0.5  # s that a file may end before its header says so without being called cut off
_ROUNDING = 1e-6  # s by which a time asked for may miss a frame's own
_STRIDE = 256  # frames grabbed in one call, so that a stop is heard soon
_TRIES = 64  # grabs that may fail in a row before a file is at its end (as in cpp/video/reader.cpp)

# cv::VideoCaptureProperties
_RATE, _FOURCC, _COUNT, _WIDTH, _HEIGHT, _ROTATION, _PTS = 5, 6, 7, 3, 4, 48, 71

_EBML = b"\x1aE\xdf\xa3"  # how a Matroska file starts

# FFmpeg takes any text file for a "video" of one of these.
_TEXT_ART = {"ansi", "xbin", "idf", "bintext"}


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video file.

    Attributes:
        path: The file as it was asked for.
        duration: Seconds of its video stream, as the file claims.
        frame_rate: Frames a second on average.
        frame_count: Frames as the container claims; 0 if it does not.
        width, height: Pixels as displayed, after rotation.
        rotation: Degrees clockwise (0, 90, 180, 270) by which the stored picture is turned for display.
        codec: Four-character code of the codec as the reader has it; "" where it has none.
        reader: "vmr._video" or "opencv-python-headless".
    """

    path: Path
    duration: float
    frame_rate: float
    frame_count: int
    width: int
    height: int
    rotation: int
    codec: str
    reader: str


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Opens a video, decodes its first frame, and says what it is.

    Raises:
        VideoError: Where the path is missing, is no regular file, is empty, is no video, has no video
            stream, or holds not one frame that can be decoded.
    """
    return _Cursor(Path(path)).info


def sample_times(duration: float, every: float) -> NDArray[np.float64]:
    """Midpoints [s] of the spans [k * every, min((k + 1) * every, duration)), at least one.

    Raises:
        InputError: Where ``duration`` or ``every`` is not a positive number of seconds.
    """
    for name, value in (("duration", duration), ("every", every)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"sample_times: {name} must be a number of seconds > 0, got {value!r}")
    # A last span that is only rounding error is none: 0.3 s at 0.1 s are 3 spans.
    count = max(1, math.ceil(duration / every - 1e-6))
    starts = np.arange(count, dtype=np.float64) * every
    ends: NDArray[np.float64] = np.minimum(starts + every, duration)
    return (starts + ends) / 2


class Frames:
    """A run of sampled frames. Their pixels are decoded when first looked at, and then kept.

    Args:
        times: [n] asked times, s from the first frame of the video.
        load: Gives (pixels [n, H, W, 3] RGB, shown [n] s); called at most once.
        derived: What was computed from these frames before, one row a frame, by name.
        video: Name of the video.

    Attributes:
        times: [n] asked times, s.
        derived: What was computed from the frames, one row a frame, by name. Whoever holds the frames
            may persist it.
        video: Name of the video.
    """

    def __init__(
        self,
        times: ArrayLike,
        load: Load,
        *,
        derived: dict[str, NDArray[Any]] | None = None,
        video: str = "",
    ) -> None:
        self.times: NDArray[np.float64] = np.asarray(times, dtype=np.float64)
        self.derived: dict[str, NDArray[Any]] = {} if derived is None else derived
        self.video = video
        self._load = load
        self._decoded: tuple[NDArray[np.uint8], NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """[n, H, W, 3] RGB, 0 to 255."""
        return self._all()[0]

    @property
    def shown(self) -> NDArray[np.float64]:
        """[n] presentation time (s) of the frame given for each asked time."""
        return self._all()[1]

    def derive(
        self, name: str, compute: Callable[[NDArray[np.uint8]], NDArray[Any]]
    ) -> NDArray[Any]:
        """``derived[name]``, computed from the pixels (and kept) where it is not there yet."""
        if name not in self.derived:
            self.derived[name] = compute(self.pixels)
        return self.derived[name]

    def _all(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        if self._decoded is None:
            self._decoded = self._load()
        return self._decoded


def stream(
    path: str | os.PathLike[str],
    times: ArrayLike,
    *,
    batch: int = 32,
    short_side: int | None = None,
    prefetch: int = 2,
) -> Iterator[Frames]:
    """Frames at given times, in batches, decoded by a thread of its own beside the caller.

    The file is read once, forward; over large gaps it is sought. Memory holds ``prefetch`` batches
    besides the caller's, whatever the length of the video. Closing the iterator stops the thread. Where
    the file ends before the last time asked for, what decodes is given and a :class:`VmrWarning` says
    up to where.

    Args:
        path: The video.
        times: Ascending, s from the first frame.
        batch: Frames given at once.
        short_side: Pixels to which larger frames are scaled down, keeping their aspect; None keeps
            their size.
        prefetch: Batches decoded ahead of the caller, at least 1.

    Raises:
        VideoError: As :func:`probe`.
        InputError: Where an argument is not as above.
    """
    wanted = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if wanted.ndim != 1 or not np.isfinite(wanted).all() or (np.diff(wanted) < 0).any():
        raise InputError("stream: times must be one ascending row of finite seconds")
    sizes = {
        "batch": batch,
        "prefetch": prefetch,
        "short_side": 1 if short_side is None else short_side,
    }
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"stream: {name} must be >= 1, got {value}")
    return _batches(_Cursor(Path(path)), wanted, batch, short_side, prefetch)


# ---- the thread -----------------------------------------------------------------------------------


def _batches(
    cursor: _Cursor, times: NDArray[np.float64], batch: int, short_side: int | None, prefetch: int
) -> Iterator[Frames]:
    out: SimpleQueue[Frames | str | BaseException | None] = SimpleQueue()
    free = threading.Semaphore(prefetch)

    def decode() -> None:
        try:
            for start in range(0, len(times), batch):
                free.acquire()
                if cursor.stopped.is_set():
                    return
                asked = times[start : start + batch]
                frames = cursor.read(asked, short_side)
                if len(frames):
                    out.put(frames)
                if len(frames) < len(asked):
                    left = len(times) - start - len(frames)
                    out.put(
                        f"{cursor.info.path} decodes only up to {cursor.reached:.1f} s of the "
                        f"{cursor.info.duration:.1f} s its header claims; "
                        f"{left} of {len(times)} samples lie after that and are left out"
                    )
                    return
            out.put(None)
        except BaseException as error:  # handed to the caller's thread, which raises it
            out.put(error)

    thread = threading.Thread(target=decode, name="vmr-video", daemon=True)
    thread.start()
    try:
        while (item := out.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, str):
                warnings.warn(item, VmrWarning, stacklevel=2)
                return
            free.release()
            yield item
    finally:
        cursor.stopped.set()
        free.release()
        thread.join()


# ---- the walk through a file ----------------------------------------------------------------------


class _Cursor:
    """Walks forward through a video and gives the frame shown at each of ascending times.

    Whether a grabbed frame is the one shown at t is known only when the next has been grabbed, but only
    the frame grabbed last can be retrieved, and that costs about as much as decoding it. So a frame is
    retrieved where the next may lie after t by the longest gap between frames seen so far. Where a
    longer gap turns up and the frame wanted was passed, a second reader fetches it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stopped = threading.Event()
        for module, opens in _readers():
            self._open = opens
            self._reader = _opened(opens, path)
            self._origin = self._reader.grab_past(-math.inf, 1)[0]  # on the reader's clock
            if math.isnan(self._origin):
                raise VideoError(
                    f"{path}: expected a video, got a file with a video stream of which not one "
                    "frame can be decoded"
                )
            self._now = 0.0  # time of the frame grabbed last; inf at the end
            self._held: tuple[float, NDArray[np.uint8]] | None = None  # the frame before that one
            self._sought = False
            self.info, self._seekable, constant = self._facts(module)
            # Before 4.7 OpenCV does not tell the times of the last frames (opencv#22141), so they are
            # taken to follow at the nominal rate: another reader is better where that may be wrong.
            if constant or getattr(module, "knows_last_times", True):
                break
        self.reached = 0.0  # time of the last frame, once that is known
        self.end = math.inf  # a time from which on nothing is shown any more
        self._gap = 1.05 / self.info.frame_rate  # time stamps may be rounded to milliseconds
        self._steady = self._seekable >= self.info.duration
        if not self._steady:
            self._gap = max(0.25, 4 * self._gap)

    def _facts(self, module: types.ModuleType) -> tuple[VideoInfo, float, bool]:
        """Facts, the time (s) up to which OpenCV can seek, and whether the rate is surely constant."""
        ask = self._reader.property
        rate = ask(_RATE)
        rate = rate if math.isfinite(rate) and rate > 0 else 25.0
        count = max(0, int(ask(_COUNT)))
        claimed = count / rate
        header, constant = _mp4_track(self._path)
        duration = header or claimed - self._start(rate) or self._measured(1 / rate)
        # OpenCV seeks to frame (time x rate), and ends after as many frames as the container counts.
        # With a variable rate the two do not fit together.
        fits = constant or abs(claimed - duration) <= max(0.002 * duration, 2 / rate)
        info = VideoInfo(
            path=self._path,
            duration=duration,
            frame_rate=rate if fits or not header or not count else count / duration,
            frame_count=count,
            width=int(ask(_WIDTH)),
            height=int(ask(_HEIGHT)),
            rotation=int(ask(_ROTATION)) % 360,
            codec=_fourcc(ask(_FOURCC)),
            reader="vmr._video" if module.__name__ == "vmr._video" else "opencv-python-headless",
        )
        return info, math.inf if fits and count else 0.95 * claimed, constant

    def _start(self, rate: float) -> float:
        """What a Matroska file counts as duration before its first frame, s."""
        with self._path.open("rb") as file:
            if file.read(4) != _EBML:
                return 0.0
        return max(0.0, self._reader.property(_PTS) / rate)  # in frames; 0 before OpenCV 4.11

    def _measured(self, interval: float) -> float:
        """Duration of a file that claims none: it is read through once."""
        last, ended = 0.0, False
        while not ended:
            time, _, ended = self._reader.grab_past(math.inf, _STRIDE)
            last = last if math.isnan(time) else time - self._origin
        self._restart()
        return last + interval

    def read(self, times: NDArray[np.float64], short_side: int | None) -> Frames:
        """The frames at these times; fewer where the file ends or a stop was asked for."""
        width, height = self.info.width, self.info.height
        if short_side is not None and min(width, height) > short_side:
            scale = short_side / min(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.empty((len(times), height, width, 3), dtype=np.uint8)
        shown = np.empty(len(times), dtype=np.float64)
        for row, time in enumerate(times.tolist()):
            found = self._read_one(max(time, 0.0) + _ROUNDING, pixels[row])
            if found is None:
                times, pixels, shown = times[:row], pixels[:row].copy(), shown[:row]
                break
            shown[row] = found
        if (
            self._held is not None
        ):  # the next batch may begin with it; a view would keep this one alive
            self._held = (self._held[0], self._held[1].copy())
        return Frames(times, lambda: (pixels, shown), video=self.info.path.name)

    def _read_one(self, t: float, out: NDArray[np.uint8]) -> float | None:
        """Writes the frame at ``t`` into ``out`` and gives its time; None at the end or a stop."""
        if self._steady and t - self._now >= _JUMP:
            self._seek(t)
        while self._now <= t:
            if self.stopped.is_set():
                return None
            if self._now + self._gap > t:
                if not self._reader.retrieve_into(out):
                    raise VideoError(f"{self._path}: the frame at {self._now:.3f} s has no pixels")
                self._held = (self._now, out)
                self._grab(self._now)
            else:
                self._held = None
                self._grab(t - self._gap)
        if t >= self.end:
            return None
        if self._held is None:
            self._held = (self._fetch(t, out), out)
        time, pixels = self._held
        if pixels is not out:
            out[...] = pixels
        return time

    def _grab(self, limit: float) -> None:
        """One frame on, then up to the first that is later than ``limit`` or to the end."""
        time, gap, ended = self._reader.grab_past(limit + self._origin, _STRIDE)
        self._gap = max(self._gap, gap)
        if not math.isnan(time):
            self._now = time - self._origin
        if not ended:
            return
        if self._sought and self._now + _PATIENCE < self.info.duration:
            self._steady = (
                False  # the end may be OpenCV's, not the file's: look again without seeking
            )
            self._restart()
            return
        self.reached = self._now
        self.end = self._now + max(_PATIENCE, 1.5 * self._gap)
        self._now = math.inf

    def _fetch(self, t: float, out: NDArray[np.uint8]) -> float:
        """Reads the frame at ``t``, which the walk has passed, with a reader of its own."""
        other = _Cursor(self._path)
        other.stopped = self.stopped
        other._gap = max(self._gap, 2 * _PATIENCE)
        if other._seekable > t >= _JUMP:
            other._seek(t)
        time = other._read_one(t, out)
        if time is None:
            raise VideoError(f"{self._path}: the frame at {t:.3f} s could be read only once")
        return time

    def _seek(self, t: float) -> None:
        """Goes to some frame at or before ``t``."""
        back = self._gap
        while back < t:
            self._reader.seek(t - back + self._origin)
            self._held, self._sought = None, True
            time = self._reader.grab_past(-math.inf, 1)[0] - self._origin
            if time <= t:
                self._now = time
                return
            back = max(1.0, 4 * back)
        self._restart()

    def _restart(self) -> None:
        self._reader = _opened(self._open, self._path)
        self._reader.grab_past(-math.inf, 1)
        self._now, self._held, self._sought = 0.0, None, False


# ---- the readers ----------------------------------------------------------------------------------


class _Reader(Protocol):
    """What cpp/video/reader.h describes."""

    @property
    def is_open(self) -> bool: ...
    def property(self, id: int, /) -> float: ...
    def grab_past(self, limit: float, most: int, /) -> tuple[float, float, bool]: ...
    def retrieve_into(self, out: NDArray[np.uint8], /) -> bool: ...
    def seek(self, seconds: float, /) -> None: ...


class _PackageReader:
    """cpp/video/reader.cpp on opencv-python-headless."""

    def __init__(self, path: str) -> None:
        cv2: Any = importlib.import_module("cv2")
        self._cv2 = cv2
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)
        self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        cv2.utils.logging.setLogLevel(level)
        rate = self.property(_RATE) if self.is_open else 0.0
        self._rate = rate if rate > 0 else 25.0
        self._last = -1.0

    @property
    def is_open(self) -> bool:
        return bool(self._capture.isOpened())

    def property(self, id: int, /) -> float:
        return float(self._capture.get(id))

    def grab_past(self, limit: float, most: int, /) -> tuple[float, float, bool]:
        longest, time = 0.0, math.nan
        for _ in range(most):
            if not any(self._capture.grab() for _ in range(_TRIES)):
                return time, longest, True
            stamp = max(self._capture.get(0) / 1000.0, 0.0)
            time = self._last + 1.0 / self._rate if 0.0 <= self._last >= stamp else stamp
            if self._last >= 0.0:
                longest = max(longest, time - self._last)
            self._last = time
            if time > limit:
                break
        return time, longest, False

    def retrieve_into(self, out: NDArray[np.uint8], /) -> bool:
        found, frame = self._capture.retrieve()
        if not found or frame is None:
            return False
        if frame.shape != out.shape:
            size = (out.shape[1], out.shape[0])
            frame = self._cv2.resize(frame, size, interpolation=self._cv2.INTER_AREA)
        self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB, dst=out)
        return True

    def seek(self, seconds: float, /) -> None:
        self._capture.set(0, seconds * 1000.0)
        self._last = -1.0


def _compiled(path: str) -> _Reader:
    from vmr._video import Reader

    return Reader(path)


_READERS: dict[str, Callable[[str], _Reader]] = {"vmr._video": _compiled, "cv2": _PackageReader}
"""What opens a file, by the module it needs. The first is preferred."""


def _readers() -> list[tuple[types.ModuleType, Callable[[str], _Reader]]]:
    """The readers that are there."""
    found = []
    for name, opens in _READERS.items():
        with suppress(ImportError):
            found.append((importlib.import_module(name), opens))
    if not found:
        raise VideoError(
            "expected vmr._video or opencv-python-headless to read videos, found neither: "
            "pip install opencv-python-headless"
        )
    return found


# ---- files ----------------------------------------------------------------------------------------


def _opened(opens: Callable[[str], _Reader], path: Path) -> _Reader:
    """A reader of the file, or a :class:`VideoError` that says what is wrong with it."""
    if path.is_dir():
        raise VideoError(f"{path}: expected a video file, got a folder")
    if not path.exists():
        raise VideoError(f"{path}: expected a video file, found nothing there")
    if not path.is_file():
        raise VideoError(f"{path}: expected a video file, got something that is no regular file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise VideoError(
            f"{path}: expected a readable video file, got: {error.strerror}"
        ) from error
    if not head:
        raise VideoError(f"{path}: expected a video file, got an empty one (0 bytes)")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_THREADS", str(min(16, 2 * (os.cpu_count() or 1))))
    # An absolute path: FFmpeg takes "a:b.mp4" for a protocol.
    reader = opens(str(path.absolute()))
    if not reader.is_open:
        raise VideoError(f"{path}: expected a video, got {_instead(path, head)}")
    if _fourcc(reader.property(_FOURCC)).lower() in _TEXT_ART:
        raise VideoError(f"{path}: expected a video, got a text file")
    return reader


def _instead(path: Path, head: bytes) -> str:
    """What a file is that could not be opened as a video."""
    if head[4:8] in _MP4_STARTS and not any(kind == b"moov" for kind, _ in _mp4_top(path)):
        return "an MP4 file without an index (no 'moov' box): it was cut off, or not written to its end"
    media = (
        head[4:8] in _MP4_STARTS
        or head.startswith((_EBML, b"RIFF", b"OggS", b"fLaC", b"ID3", b"FLV"))
        or (head[0] == 0x47 and head[188:189] == b"\x47")
        or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    )
    if media:
        return "a media file without a video stream that can be decoded"
    return "a file that is no video (or of a kind that FFmpeg does not know)"


def _fourcc(value: float) -> str:
    """The four characters of a codec's code; "" where a container has a number instead."""
    code = int(value).to_bytes(8, "little", signed=True)[:4].decode("latin-1").strip("\0 ")
    return code if code.isprintable() else ""


# OpenCV tells how many frames an MP4 file has and at which nominal rate, but neither its duration nor
# its average rate, and for a variable rate the one does not follow from the others. The header does.

_MP4_STARTS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}
_Span = tuple[int, int]  # start and end of the content of a box


def _mp4_top(path: Path) -> list[tuple[bytes, _Span]]:
    with path.open("rb") as file:
        return list(_boxes(file, 0, path.stat().st_size))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, _Span]]:
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            long = file.read(8)
            if len(long) < 8:
                return
            size, head = struct.unpack(">Q", long)[0], 16
        size = size or end - start
        if size < head:
            return
        yield kind, (start + head, min(start + size, end))
        start += size


def _mp4_track(path: Path) -> tuple[float, bool]:
    """Of the first video track of an MP4 or QuickTime file: duration (s), and if its rate is constant.

    Where the header does not say, (0.0, False). ISO/IEC 14496-12: hdlr (8.4.3), mdhd (8.4.2), where an
    edit list (8.6.6) cuts the track the sum of its segments in units of mvhd (8.2.2), and stts (8.6.1).
    """
    with path.open("rb") as file:
        if file.read(8)[4:] not in _MP4_STARTS:
            return 0.0, False

        def inside(box: _Span, *kinds: bytes) -> Iterator[_Span]:
            for name, at in _boxes(file, *box):
                if name == kinds[0]:
                    yield from inside(at, *kinds[1:]) if len(kinds) > 1 else (at,)

        def content(box: _Span, *kinds: bytes) -> bytes:
            start, end = next(inside(box, *kinds))
            file.seek(start)
            return file.read(min(end - start, 1 << 16))

        with suppress(struct.error, IndexError, StopIteration, ZeroDivisionError):
            moov = next(inside((0, path.stat().st_size), b"moov"))
            for trak in inside(moov, b"trak"):
                if content(trak, b"mdia", b"hdlr")[8:12] != b"vide":
                    continue
                scale, ticks = _clock(content(trak, b"mdia", b"mdhd"))
                duration = ticks / scale
                for _ in inside(trak, b"edts", b"elst"):
                    edited = _edited(content(trak, b"edts", b"elst"))
                    movie_scale, _ = _clock(content(moov, b"mvhd"))
                    duration = min(duration, edited / movie_scale or duration)
                stts = content(trak, b"mdia", b"minf", b"stbl", b"stts")
                return duration, _constant(stts)
    return 0.0, False


def _clock(header: bytes) -> tuple[int, int]:
    """Units a second and duration in units, from the content of mvhd or mdhd."""
    layout, at = (">IQ", 20) if header[0] else (">II", 12)
    scale, duration = struct.unpack_from(layout, header, at)
    return scale, duration


def _constant(stts: bytes) -> bool:
    """Whether all frames but the last take equally long, within 2%."""
    runs = list(struct.iter_unpack(">II", stts[8 : 8 + (len(stts) - 8) // 8 * 8]))
    steps = [step for _, step in (runs[:-1] if len(runs) > 1 and runs[-1][0] == 1 else runs)]
    return bool(steps) and max(steps) <= 1.02 * min(steps) + 1


def _edited(elst: bytes) -> int:
    """Sum of the durations of an edit list's segments, without empty ones."""
    entry = ">QqI" if elst[0] else ">IiI"
    count = struct.unpack_from(">I", elst, 4)[0]
    entries = struct.iter_unpack(entry, elst[8 : 8 + count * struct.calcsize(entry)])
    return sum(duration for duration, media_time, _ in entries if media_time != -1)
