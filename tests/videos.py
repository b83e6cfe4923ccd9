"""Small videos made by ffmpeg; every frame carries its number as a row of black and white fields."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

FIELDS = 12
WIDTH, HEIGHT = 192, 96

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="ffmpeg and ffprobe are not installed (Debian: apt-get install ffmpeg)",
)

H264 = (
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-x264-params",
    "bframes=3:b-adapt=0:keyint=250:scenecut=0",
)
"""Long groups of pictures with B-frames."""
MPEG2 = ("-c:v", "mpeg2video", "-bf", "2", "-g", "24", "-q:v", "2")
"""Open groups of pictures: the B-frames before a key frame need the group before."""


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> None:
    """Runs ffmpeg; a failure shows what it said."""
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


def picture(number: int) -> NDArray[np.uint8]:
    """[HEIGHT, WIDTH, 3]: the number in FIELDS fields at the top, something that moves below."""
    frame = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    bits = (number >> np.arange(FIELDS)) & 1
    frame[: HEIGHT // 2] = np.repeat(bits * 255, WIDTH // FIELDS)[None, :, None]
    ramp = (np.arange(WIDTH) * 2 + number * 5) % 256
    frame[HEIGHT // 2 :] = ramp[None, :, None]
    return frame


def numbers(pixels: NDArray[np.uint8]) -> list[int]:
    """What is painted into frames [n, H, W, 3] of any size."""
    fields = pixels[:, : pixels.shape[1] // 2].mean(axis=(1, 3))
    centres = (np.arange(FIELDS) + 0.5) * pixels.shape[2] / FIELDS
    bits = fields[:, centres.astype(int)] > 127
    return [int(row @ (1 << np.arange(FIELDS))) for row in bits]


def numbered(path: Path, count: int, *options: str, rate: int = 25) -> Path:
    """A video of the pictures 0, 1, ..., encoded with ffmpeg's output options."""
    raw = b"".join(picture(number).tobytes() for number in range(count))
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(rate))
    encode: Sequence[str] = options or H264
    ffmpeg(*source, "-i", "-", *encode, "-pix_fmt", "yuv420p", path, stdin=raw)
    return path


@functools.cache
def stamps(path: Path) -> NDArray[np.float64]:
    """ffprobe's presentation times (s) of the frames of the video stream, from the first frame."""
    show = ("-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time")
    said = subprocess.run(
        ["ffprobe", "-v", "error", *show, "-of", "csv=p=0", str(path)],
        capture_output=True,
        check=True,
    ).stdout.decode()
    times = np.array([float(line.strip(",")) for line in said.split() if line.strip(",")])
    relative: NDArray[np.float64] = times - times[0]
    return relative
