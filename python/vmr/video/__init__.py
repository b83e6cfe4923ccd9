"""Video -> frames: facts about a file, and frames at given times, in bounded memory.

Videos are decoded by FFmpeg through OpenCV, either by the compiled module ``vmr._video`` or, where the
build has none or one on an OpenCV before 4.7, by the package opencv-python-headless. Both give the same
frames and the same times.

All times are seconds of presentation time from the first frame of the video, so that time stamps that
do not start at 0 and variable frame rates give right times. The frame *at* a time t is the one a player
shows then: the last frame whose presentation time is <= t.

When the first video is opened, the environment variables OPENCV_FFMPEG_LOGLEVEL (to silence FFmpeg) and
OPENCV_FFMPEG_THREADS (two a core: decoding threads wait for each other; OpenCV before 4.7 starts one a
core whatever it says) are set for this process unless they are set already.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Generator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError, VmrWarning
from vmr.video.cursor import Cursor
from vmr.video.frames import Frames, VideoInfo, sample_times

__all__ = ["Frames", "VideoInfo", "probe", "sample_times", "stream"]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Opens a video, decodes its first frame, and says what it is.

    Raises:
        VideoError: Where the path is missing, is no regular file, is empty, is no video, has no video
            stream, or holds not one frame that can be decoded.
    """
    return Cursor(Path(path)).info


def stream(
    path: str | os.PathLike[str],
    times: ArrayLike,
    *,
    batch: int = 32,
    short_side: int | None = None,
    prefetch: int = 2,
) -> Generator[Frames, None, None]:
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
    return _batches(Cursor(Path(path)), wanted, batch, short_side, prefetch)


def _batches(
    cursor: Cursor, times: NDArray[np.float64], batch: int, short_side: int | None, prefetch: int
) -> Generator[Frames, None, None]:
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
