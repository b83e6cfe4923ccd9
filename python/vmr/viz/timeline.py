"""A result on the time line of its video: scores, moments, key frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr.files import atomic_path
from vmr.moments import clock
from vmr.results import Result
from vmr.video import stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVE = "#3b6fb6"
_MOMENT = "#e08a1e"
_MAX_KEY_FRAMES = 5


def key_frames(result: Result) -> list[float]:
    """The time in seconds of the best-scoring sampled frame of each moment, best moment first."""
    times, scores = result.frame_scores.times, result.frame_scores.scores
    found = []
    for moment in result.moments:
        inside = np.flatnonzero((times >= moment.start) & (times <= moment.end))
        if len(inside):
            found.append(float(times[inside[np.argmax(scores[inside])]]))
    return found


def timeline(result: Result) -> Figure:
    """A figure of frame scores over time, the moments, and the key frames of the best of them.

    Raises:
        VideoError: Where the video can no longer be read.
    """
    from matplotlib.figure import Figure

    keys = key_frames(result)[:_MAX_KEY_FRAMES]
    pictures = _pictures(result.video, keys)
    figure = Figure(figsize=(10, 4.6 if pictures else 2.8), layout="constrained")
    rows = 2 if pictures else 1
    grid = figure.add_gridspec(rows, max(1, len(pictures)), height_ratios=[1.1, 1][:rows])
    for place, (picture, key) in enumerate(zip(pictures, keys, strict=True)):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(f"#{place + 1}  {clock(key)}", fontsize=9)
    axes = figure.add_subplot(grid[rows - 1, :])
    times, scores = result.frame_scores.times, result.frame_scores.scores
    for rank, moment in enumerate(result.moments, 1):
        # The best moment is the most opaque.
        axes.axvspan(
            moment.start, moment.end, color=_MOMENT, alpha=max(0.12, 0.5 / rank), linewidth=0
        )
        axes.annotate(
            f"#{rank}  {moment.score:.2f}",
            ((moment.start + moment.end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
        )
    axes.plot(times, scores, color=_CURVE, linewidth=1.5, marker="." if len(times) < 100 else "")
    for key in keys:
        axes.axvline(key, color=_CURVE, linewidth=0.8, linestyle=":")
    low, high = float(scores.min()), float(scores.max())
    margin = max(0.02, 0.12 * (high - low))
    axes.set_ylim(low - margin, high + 2 * margin)
    axes.set_xlim(0, max(result.duration, 1e-3))
    axes.set_xlabel("time in s")
    axes.set_ylabel("frame score")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_shortened(result.query), fontsize=11, parse_math=False)
    return figure


def save_timeline(result: Result, path: str | os.PathLike[str]) -> None:
    """Writes :func:`timeline` as a PNG file, atomically.

    Raises:
        CacheError: Where the file cannot be written.
        VideoError: Where the video can no longer be read.
    """
    figure = timeline(result)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _pictures(video: str, times: Sequence[float]) -> list[NDArray[np.uint8]]:
    order = sorted(set(times))
    found = {
        time: picture
        for frames in stream(video, np.array(order), batch=1, short_side=180)
        for time, picture in zip(frames.times.tolist(), frames.pixels, strict=True)
    }
    return [found[time] for time in times]


def _shortened(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
