"""A result on the time line of its video: scores, moments, key frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr.moments import clock
from vmr.results import Result, one_of
from vmr.video import stream
from vmr.viz.figures import BLUE, ORANGE, lettered, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_KEY_FRAMES = 5
_LABEL_ROWS = 3
_PLOT_HEIGHT = 2.8  # inches
_LABEL = 52.0  # points: width of the longest label of a moment with some room
_WIDTH = 640.0  # points: of the axes, about


def key_frames(result: Result) -> list[float]:
    """The time (s) of the best-scoring sampled frame of each moment, best moment first.

    A moment in which no frame was sampled gives its middle.
    """
    times, scores = result.frame_scores.times, result.frame_scores.scores
    found = []
    for moment in result.moments:
        inside = np.flatnonzero((times >= moment.start) & (times <= moment.end))
        best = times[inside[np.argmax(scores[inside])]] if len(inside) else None
        found.append((moment.start + moment.end) / 2 if best is None else float(best))
    return found


def pictures_at(
    video: str | os.PathLike[str], times: Sequence[float], short_side: int
) -> dict[float, NDArray[np.uint8]]:
    """[height, width, 3] RGB of the frames at these times (s), by time.

    Times at which nothing can be decoded any more are left out; :func:`vmr.video.stream` warns of them.

    Raises:
        VideoError: Where the video can no longer be read.
    """
    return {
        time: picture
        for frames in stream(video, np.array(sorted(set(times))), batch=1, short_side=short_side)
        for time, picture in zip(frames.times.tolist(), frames.pixels, strict=True)
    }


def timeline(result: Result, *, pictures: bool = True) -> Figure:
    """A figure of frame scores over time, the moments, and the key frames of the best of them.

    Args:
        result: Of any system.
        pictures: Show key frames, for which the video is read.

    Raises:
        InputError: It is not one result.
        VideoError: Where pictures are asked for and the video can no longer be read.
    """
    from matplotlib.figure import Figure

    result = one_of(result, "timeline")
    keys = key_frames(result)[:_MAX_KEY_FRAMES] if pictures else []
    found = pictures_at(result.video, keys, short_side=180) if keys else {}
    shown = [(rank, key) for rank, key in enumerate(keys, 1) if key in found]
    tall = _row_height(list(found.values()), len(shown))
    figure = Figure(figsize=(10, _PLOT_HEIGHT + tall), layout="constrained")
    rows = 2 if shown else 1
    heights = [tall, _PLOT_HEIGHT][-rows:]
    grid = figure.add_gridspec(rows, max(1, len(shown)), height_ratios=heights)
    for place, (rank, key) in enumerate(shown):
        axes = figure.add_subplot(grid[0, place])
        axes.imshow(found[key])
        axes.set_axis_off()
        axes.set_title(f"#{rank}  {clock(key)}", fontsize=9)
    axes = figure.add_subplot(grid[rows - 1, :])
    for _, key in shown:
        axes.axvline(key, color=BLUE, linewidth=0.8, linestyle=":")
    _draw_scores(axes, result)
    title, families = lettered(shortened(result.query))
    figure.suptitle(title, fontsize=11, fontfamily=families, parse_math=False)
    return figure


def save_timeline(result: Result, path: str | os.PathLike[str]) -> None:
    """Writes :func:`timeline` as a picture of the format that the name ends in.

    Raises:
        InputError: It is not one result, or the ending is none of .png, .svg and .pdf.
        CacheError: Where the file cannot be written.
        VideoError: Where the video can no longer be read.
    """
    save_figure(timeline(result), path)


def _row_height(pictures: Sequence[NDArray[np.uint8]], columns: int) -> float:
    """Inches that pictures side by side and their titles need."""
    if not columns:
        return 0.0
    height, width = pictures[0].shape[:2]
    return min(9.2 / columns * float(height / width), 2.0) + 0.35


def _draw_scores(axes: Axes, result: Result) -> None:
    from matplotlib.patheffects import withStroke

    times, scores = result.frame_scores.times, result.frame_scores.scores
    duration = max(result.duration, 1e-3)
    for rank, moment in enumerate(result.moments, 1):
        # The best moment is the most opaque.
        alpha = max(0.12, 0.5 / rank)
        axes.axvspan(moment.start, moment.end, color=ORANGE, alpha=alpha, linewidth=0)
    labels = _labels(result, duration)
    for row, centre, text in labels:
        axes.annotate(
            text, (centre, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -3 - 11 * row),
            textcoords="offset points", ha="center", va="top", fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    if len(scores):
        axes.plot(times, scores, color=BLUE, linewidth=1.5, marker="." if len(times) < 100 else "")
        low, high = float(scores.min()), float(scores.max())
        margin = max(0.02, 0.12 * (high - low))
        above = 1 + max((row for row, _, _ in labels), default=0)
        axes.set_ylim(low - margin, high + margin + above * 0.12 * (high - low + 2 * margin))
    axes.set_xlim(0, duration)
    axes.set_xlabel("time in s")
    axes.set_ylabel("frame score")
    axes.spines[["top", "right"]].set_visible(False)


def _labels(result: Result, duration: float) -> list[tuple[int, float, str]]:
    """Row, place (s) and text of the moments' labels; none covers another.

    Best first, each goes into the first row that has room for it; where none has, the moment goes
    without.
    """
    width = _LABEL / _WIDTH * duration
    taken: list[list[float]] = [[] for _ in range(_LABEL_ROWS)]
    labels = []
    for rank, moment in enumerate(result.moments, 1):
        middle = (moment.start + moment.end) / 2
        centre = min(max(middle, width / 2), duration - width / 2)
        for row, others in enumerate(taken):
            if all(abs(centre - other) >= width for other in others):
                others.append(centre)
                labels.append((row, centre, f"#{rank}  {moment.score:.2f}"))
                break
    return labels
