"""What decodes: the compiled module, or opencv-python-headless behind the same interface."""

from __future__ import annotations

import importlib
import math
import os
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr.errors import VideoError
from vmr.video.containers import instead

TRIES = 64  # grabs that may fail in a row before a file is at its end (as in cpp/video/reader.cpp)

# cv::VideoCaptureProperties
RATE, FOURCC, COUNT, WIDTH, HEIGHT, ROTATION, PTS = 5, 6, 7, 3, 4, 48, 71

# FFmpeg takes any text file for a "video" of one of these.
TEXT_ART = {"ansi", "xbin", "idf", "bintext"}


class Reader(Protocol):
    """What cpp/video/reader.h describes."""

    @property
    def is_open(self) -> bool: ...
    def property(self, id: int, /) -> float: ...
    def grab_past(self, limit: float, most: int, /) -> tuple[float, float, bool]: ...
    def retrieve_into(self, out: NDArray[np.uint8], /) -> bool: ...
    def seek(self, seconds: float, /) -> None: ...


class PackageReader:
    """cpp/video/reader.cpp on opencv-python-headless."""

    def __init__(self, path: str) -> None:
        cv2: Any = importlib.import_module("cv2")
        self._cv2 = cv2
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)
        self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        cv2.utils.logging.setLogLevel(level)
        rate = self.property(RATE) if self.is_open else 0.0
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
            if not any(self._capture.grab() for _ in range(TRIES)):
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


def compiled(path: str) -> Reader:
    from vmr._video import Reader

    return Reader(path)


READERS: dict[str, Callable[[str], Reader]] = {"vmr._video": compiled, "cv2": PackageReader}
"""What opens a file, by the module it needs."""


def chosen() -> tuple[types.ModuleType, Callable[[str], Reader]]:
    """The reader to use: the compiled one, unless it stands on an old OpenCV and the package is there.

    Before 4.7 OpenCV does not tell the times of the last frames (opencv#22141; they are taken to follow
    at the nominal rate), nor can its decoding threads be set: then the package is better and quicker
    (benchmarks/results/sampling.md).
    """
    found = []
    for name, opens in READERS.items():
        with suppress(ImportError):
            found.append((importlib.import_module(name), opens))
    if not found:
        raise VideoError(
            "expected vmr._video or opencv-python-headless to read videos, found neither: "
            "pip install opencv-python-headless"
        )
    return max(found, key=lambda reader: bool(getattr(reader[0], "knows_last_times", True)))


def opened(opens: Callable[[str], Reader], path: Path) -> Reader:
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
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise VideoError(f"{path!a}: expected a file name in UTF-8; rename the file") from None
    # An absolute path: FFmpeg takes "a:b.mp4" for a protocol.
    reader = opens(str(path.absolute()))
    if not reader.is_open:
        raise VideoError(f"{path}: expected a video, got {instead(path, head)}")
    if fourcc(reader.property(FOURCC)).lower() in TEXT_ART:
        raise VideoError(f"{path}: expected a video, got a text file")
    return reader


def fourcc(value: float) -> str:
    """The four characters of a codec's code; "" where a container has a number instead."""
    code = int(value).to_bytes(8, "little", signed=True)[:4].decode("latin-1").strip("\0 ")
    return code if code.isprintable() else ""
