"""The programs ffmpeg and ffprobe: found, asked about a video, run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr.errors import BackendError, CacheError, VideoError

_READ = ("-v", "error", "-fflags", "+genpts")  # AVI files give no presentation times


@dataclass(frozen=True, slots=True)
class Packet:
    """A coded frame of the video stream, on the file's own clock (s)."""

    shown: float
    decoded: float
    key: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """The video stream of a file, on the file's own clock.

    Attributes:
        video: The file.
        container: ffmpeg's name of its kind, e.g. ``matroska,webm``.
        sound: If it has a sound stream.
        start: First time in the file, of any stream (s).
        packets: In the order of decoding.
        times: [F] s at which its frames are shown, ascending; the first is what vmr counts from.
    """

    video: str
    container: str
    sound: bool
    start: float
    packets: tuple[Packet, ...]
    times: NDArray[np.float64]


def need_ffmpeg() -> None:
    """Says early that clips cannot be cut.

    Raises:
        BackendError: ffmpeg or ffprobe is not on the PATH.
    """
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        raise BackendError(
            f"clips are cut by ffmpeg: {' and '.join(missing)} not found on the PATH; install it "
            "(Debian: apt-get install ffmpeg; macOS: brew install ffmpeg); "
            "all other exports work without it"
        )


@functools.cache
def passthrough_option() -> str:
    """How this ffmpeg calls the option that keeps the times of frames: another name since 5.1."""
    known = subprocess.run(
        ["ffmpeg", "-hide_banner", "-h", "long"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return "-fps_mode" if b"-fps_mode" in known.stdout else "-vsync"


def read_stream(video: str) -> Stream:
    """Asks ffprobe when each frame of a video is shown; the file is read through, not decoded.

    Raises:
        VideoError: It is no video that ffprobe can read.
    """
    if not Path(video).is_file():
        raise VideoError(f"{video}: expected a video file to cut clips from, there is none")
    facts = _asked(video, "-show_entries", "stream=codec_type:format=format_name,start_time")
    *kinds, about = [line.split("|") for line in facts.splitlines()]
    frame = _asked(
        video, "-select_streams", "V:0", "-read_intervals", "%+#1", "-show_entries",
        "frame=best_effort_timestamp_time",
    )  # fmt: skip
    listed = _asked(
        video, "-select_streams", "V:0", "-show_entries", "packet=pts_time,dts_time,flags"
    )
    packets = []
    for line in listed.splitlines():
        words = [*line.split("|"), "", ""]
        shown, decoded, flags = _number(words[0]), _number(words[1]), words[2]
        if shown is not None and "D" not in flags:  # D: outside of what an edit list shows
            packets.append(Packet(shown, shown if decoded is None else decoded, "K" in flags))
    origin = _number(frame.split("|")[0].strip())
    if origin is None or not packets:
        raise VideoError(f"{video}: ffprobe finds no frame in it that is shown at a known time")
    # What is shown before the first frame that can be decoded is not shown.
    times = np.unique([packet.shown for packet in packets if packet.shown > origin - 1e-4])
    return Stream(
        video=video,
        container=about[0],
        sound=any(kind[0] == "audio" for kind in kinds),
        start=_number(about[1]) or 0.0,
        packets=tuple(packets),
        times=times,
    )


def run_ffmpeg(stream: Stream, seek: float | None, arguments: list[str], out: Path) -> None:
    """Runs ffmpeg on a video, from ``seek`` (s on the file's clock) or its start on, into ``out``.

    Whatever ends the wait for it, Ctrl-C too, ends ffmpeg.

    Raises:
        CacheError: It failed; with the last line that it said.
    """
    before = [] if seek is None else ["-seek_timestamp", "1", "-ss", f"{seek:.6f}"]
    command = [
        "ffmpeg", "-nostdin", "-y", *_READ, "-noaccurate_seek", *before,
        "-i", f"file:{stream.video}", *arguments, f"file:{out}",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            said = process.communicate()[1]
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise CacheError(
            f"ffmpeg could not cut {stream.video} (exit status {process.returncode}): "
            f"{_last_line(said)}"
        )


def _asked(video: str, *question: str) -> str:
    done = subprocess.run(
        ["ffprobe", *_READ, *question, "-of", "csv=p=0:s=|", f"file:{video}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise VideoError(f"{video}: ffprobe cannot read it: {_last_line(done.stderr)}")
    return "\n".join(filter(None, os.fsdecode(done.stdout).splitlines()))


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
