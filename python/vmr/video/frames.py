"""What a video is known by, and frames sampled from it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError

_JPEG_QUALITY = 95

Load = Callable[[], tuple[NDArray[np.uint8], NDArray[np.float64]]]


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
        encoded: What :meth:`jpegs` gave, None where nobody asked; to be persisted and given back
            likewise.
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
        self.encoded: list[bytes] | None = None
        self.video = video
        self._load = load
        # Encoder and captioner may look at the same frames at once: what one computes, the other finds.
        self._lock = threading.RLock()
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
        with self._lock:
            if name not in self.derived:
                self.derived[name] = compute(self.pixels)
            return self.derived[name]

    def scaled(self, short_side: int) -> Frames:
        """The frames with at most so many pixels on their short side.

        What is derived from either is known to both.
        """

        def load() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
            return _shrunk(self.pixels, short_side), self.shown

        frames = Frames(self.times, load, derived=self.derived, video=self.video)
        frames._lock = self._lock
        return frames

    def jpegs(self) -> list[bytes]:
        """The frames as JPEG pictures, encoded from the pixels (and kept) where they are not yet.

        A model that sees frames only in this way sees the same whether they were decoded just now or
        encoded pictures were kept.
        """
        with self._lock:
            if self.encoded is None:
                self.encoded = [jpeg(picture, _JPEG_QUALITY) for picture in self.pixels]
            return self.encoded

    def _all(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        with self._lock:
            if self._decoded is None:
                self._decoded = self._load()
            return self._decoded


def jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    """A picture [H, W, 3] RGB as JPEG; ``quality`` is a percentage."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return bytes(encoded)


def _shrunk(pixels: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[1:3]
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels
    import cv2

    size = (round(width * scale), round(height * scale))
    shrunk = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pixels]
    return np.array(shrunk, np.uint8).reshape(-1, size[1], size[0], 3)
