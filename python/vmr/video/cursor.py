"""The walk through a file: which frame is shown at each of ascending times."""

from __future__ import annotations

import math
import threading
import types
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr.errors import VideoError
from vmr.video import readers
from vmr.video.containers import EBML, mp4_track
from vmr.video.frames import Frames, VideoInfo
from vmr.video.readers import COUNT, FOURCC, HEIGHT, PTS, RATE, ROTATION, WIDTH

JUMP = (
    12.0  # s; a gap from which seeking pays (it decodes from a key frame on, often 2 to 10 s back)
)
PATIENCE = 0.5  # s that a file may end before its header says so without being called cut off
ROUNDING = 1e-6  # s by which a time asked for may miss a frame's own
STRIDE = 256  # frames grabbed in one call, so that a stop is heard soon


class Cursor:
    """Walks forward through a video and gives the frame shown at each of ascending times.

    Whether a grabbed frame is the one shown at t is known only when the next has been grabbed, but only
    the frame grabbed last can be retrieved, and that costs about as much as decoding it. So a frame is
    retrieved where the next may lie after t by the longest gap between frames seen so far. Where a
    longer gap turns up and the frame wanted was passed, a second reader fetches it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stopped = threading.Event()
        module, self._open = readers.chosen()
        self._reader = readers.opened(self._open, path)
        self._origin = self._reader.grab_past(-math.inf, 1)[0]  # on the reader's clock
        if math.isnan(self._origin):
            raise VideoError(
                f"{path}: expected a video, got a file with a video stream of which not one frame "
                "can be decoded"
            )
        self._now = 0.0  # time of the frame grabbed last; inf at the end
        self._held: tuple[float, NDArray[np.uint8]] | None = None  # the frame before that one
        self._sought = False
        self.info, self._seekable = self._facts(module)
        self.reached = 0.0  # time of the last frame, once that is known
        self.end = math.inf  # a time from which on nothing is shown any more
        self._gap = 1.05 / self.info.frame_rate  # time stamps may be rounded to milliseconds
        self._steady = self._seekable >= self.info.duration
        if not self._steady:
            self._gap = max(0.25, 4 * self._gap)

    def _facts(self, module: types.ModuleType) -> tuple[VideoInfo, float]:
        """What is known of the file, and the time (s) up to which OpenCV can seek in it."""
        ask = self._reader.property
        rate = ask(RATE)
        rate = rate if math.isfinite(rate) and rate > 0 else 25.0
        count = max(0, int(ask(COUNT)))
        claimed = count / rate
        header, constant = mp4_track(self._path)
        duration = header or claimed - self._start(rate) or self._measured(1 / rate)
        # OpenCV seeks to frame (time x rate), and ends after as many frames as the container counts.
        # With a variable rate the two do not fit together.
        fits = constant or abs(claimed - duration) <= max(0.002 * duration, 2 / rate)
        info = VideoInfo(
            path=self._path,
            duration=duration,
            frame_rate=rate if fits or not header or not count else count / duration,
            frame_count=count,
            width=int(ask(WIDTH)),
            height=int(ask(HEIGHT)),
            rotation=int(ask(ROTATION)) % 360,
            codec=readers.fourcc(ask(FOURCC)),
            reader="vmr._video" if module.__name__ == "vmr._video" else "opencv-python-headless",
        )
        return info, math.inf if fits and count else 0.95 * claimed

    def _start(self, rate: float) -> float:
        """What a Matroska file counts as duration before its first frame, s."""
        with self._path.open("rb") as file:
            if file.read(4) != EBML:
                return 0.0
        return max(0.0, self._reader.property(PTS) / rate)  # in frames; 0 before OpenCV 4.11

    def _measured(self, interval: float) -> float:
        """Duration of a file that claims none: it is read through once."""
        last, ended = 0.0, False
        while not ended:
            time, _, ended = self._reader.grab_past(math.inf, STRIDE)
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
            found = self._read_one(max(time, 0.0) + ROUNDING, pixels[row])
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
        if self._steady and t - self._now >= JUMP:
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
        time, gap, ended = self._reader.grab_past(limit + self._origin, STRIDE)
        self._gap = max(self._gap, gap)
        if not math.isnan(time):
            self._now = time - self._origin
        if not ended:
            return
        if self._sought and self._now + PATIENCE < self.info.duration:
            self._steady = (
                False  # the end may be OpenCV's, not the file's: look again without seeking
            )
            self._restart()
            return
        self.reached = self._now
        self.end = self._now + max(PATIENCE, 1.5 * self._gap)
        self._now = math.inf

    def _fetch(self, t: float, out: NDArray[np.uint8]) -> float:
        """Reads the frame at ``t``, which the walk has passed, with a reader of its own."""
        other = Cursor(self._path)
        other.stopped = self.stopped
        other._gap = max(self._gap, 2 * PATIENCE)
        if other._seekable > t >= JUMP:
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
        self._reader = readers.opened(self._open, self._path)
        self._reader.grab_past(-math.inf, 1)
        self._now, self._held, self._sought = 0.0, None, False
