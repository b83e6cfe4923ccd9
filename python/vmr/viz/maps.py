"""Similarity matrices of frames and of queries, before and after alignment; moments as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError
from vmr.viz.figures import (
    ORANGE,
    Window,
    borders,
    checked_times,
    checked_windows,
    lettered,
    shortened,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

_MAX_LABELS = 40
_PINK = "#ff8fd0"
_MAX_PICTURES = 6  # above a map


def similarity_map(
    matrix: ArrayLike,
    times: ArrayLike,
    *,
    queries: Sequence[str] | None = None,
    truth: Sequence[Window] = (),
    points: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """A heat map of similarities between frames, or between queries and frames.

    Args:
        matrix: [F, F] frames against frames, or with ``queries`` [Q, F] queries against frames.
        times: [F] seconds of the frames, strictly ascending.
        queries: The Q sentences of the rows.
        truth: Windows in seconds: squares on the diagonal of frames, upright lines over queries.
        points: Seconds marked by a dashed line (annotated points, key frames).
        title: Over the map.

    Raises:
        InputError: Shapes that do not fit, values that are not finite, times that do not ascend, or
            a window that is no span.
    """
    from matplotlib.figure import Figure

    values = np.asarray(matrix, dtype=np.float64)
    at = checked_times("similarity_map", times)
    _check_map("similarity_map", values, at, queries)
    windows = checked_windows("similarity_map", truth)
    across = borders(at)
    down = across if queries is None else np.arange(len(queries) + 1) - 0.5
    height = 5.6 if queries is None else min(12.0, 1.4 + 0.32 * len(queries))
    figure = Figure(figsize=(6.8 if queries is None else 10, height), layout="constrained")
    axes = figure.add_subplot()
    if queries is None:
        image = _draw_frames(axes, across, values)
        _draw_squares(axes, windows)
    else:
        image = axes.pcolorfast(across, down, values, cmap="viridis")
        axes.invert_yaxis()
        axes.set_xlabel("time in s")
        _name_rows(axes, queries)
        for edge in (edge for window in windows for edge in window):
            axes.axvline(edge, **_mark(1.4))
    for point in points:
        axes.axvline(point, linestyle="--", **_mark(1.0))
    figure.colorbar(image, ax=axes, label="similarity", pad=0.02)
    text, families = lettered(shortened(title))
    axes.set_title(text, fontsize=11, fontfamily=families, parse_math=False)
    return figure


def alignment_maps(
    before: ArrayLike,
    after: ArrayLike,
    times: ArrayLike,
    *,
    anchor: int | None = None,
    segment: tuple[int, int] | None = None,
    moment: Window | None = None,
    truth: Sequence[Window] = (),
    pictures: Mapping[float, NDArray[np.uint8]] | None = None,
    title: str = "",
) -> Figure:
    """Similarities of frames before and after alignment with a query, in one scale of colours.

    A block of similar frames from second s to second e has its upper right corner at (e, s): the point
    that F2SGD looks for (Tan et al., CVPR 2025, Fig. 2).

    Args:
        before: [F, F] cosines of the frames.
        after: [F, F] cosines of the aligned frames.
        times: [F] seconds of the frames, strictly ascending.
        anchor: The frame that the alignment starts from.
        segment: First and last frame of the anchor-aware segment, the transition points.
        moment: The predicted one in seconds: the point (end, start), and lines that lead to it
            from the diagonal.
        truth: Windows in seconds: squares on the diagonal.
        pictures: [height, width, 3] RGB of some frames by their time in seconds, shown above the maps;
            of too many, some.
        title: Over the maps.

    Raises:
        InputError: Shapes that do not fit, values that are not finite, times that do not ascend, a
            frame that is not there, or a window that is no span.
    """
    from matplotlib.figure import Figure

    who = "alignment_maps"
    at = checked_times(who, times)
    values = [np.asarray(matrix, dtype=np.float64) for matrix in (before, after)]
    for name, matrix in zip(("before", "after"), values, strict=True):
        _check_map(who, matrix, at, name=name)
    windows = checked_windows(who, truth)
    found = checked_windows(who, [] if moment is None else [moment], "moment")
    _check_frames(who, len(at), anchor, segment)
    edges = borders(at)
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    scale = min(map(np.min, values)), max(map(np.max, values))
    for axes, matrix, name in zip(
        panels, values, ("before alignment", "after alignment"), strict=True
    ):
        image = _draw_frames(axes, edges, matrix, scale)
        _draw_squares(axes, windows, "ground truth")
        if segment is not None:
            _draw_segment(axes, float(edges[segment[0]]), float(edges[segment[1] + 1]))
        if anchor is not None:
            axes.plot(
                [at[anchor]], [at[anchor]], "D", label="anchor frame",
                color="white", markersize=7, markeredgecolor="black",
            )  # fmt: skip
        for window in found:
            start, end = window
            edge = {**_mark(1.8), "color": ORANGE}
            axes.plot([start, end, end], [start, start, end], zorder=3, **edge)
            _draw_corner(axes, window, "predicted point", size=11)
        above = _draw_pictures(axes, edges, pictures or {})
        (above or axes).set_title(name, fontsize=10, loc="left")
    panels[1].set_ylabel("")
    figure.colorbar(image, ax=list(panels), label="cosine of two frames", pad=0.01, shrink=0.8)
    _write_legend(figure, panels[0])
    write_title(figure, title)
    return figure


def moment_scores(
    scores: ArrayLike,
    times: ArrayLike,
    *,
    moments: Sequence[Window] = (),
    truth: Sequence[Window] = (),
    title: str = "",
) -> Figure:
    """A heat map of the score of every moment, as F2SGD gives them (P of Tan et al., CVPR 2025, eq. 13).

    The cell of row i and column j is the moment from the beginning of frame i to the end of frame j. It
    lies at the cell's upper right corner, where its point is drawn.

    Args:
        scores: [F, F]; what it holds where i > j is not shown.
        times: [F] seconds of the frames, strictly ascending.
        moments: Those found, in seconds, best first: numbered points.
        truth: Windows in seconds: dotted lines lead from the diagonal to their points.
        title: Over the map.

    Raises:
        InputError: Shapes that do not fit, a score of a moment that is not finite, times that do not
            ascend, or a window that is no span.
    """
    from matplotlib.figure import Figure

    who = "moment_scores"
    at = checked_times(who, times)
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim == 2:
        values = np.triu(values)
    _check_map(who, values, at, name="scores")
    windows = checked_windows(who, truth)
    found = checked_windows(who, moments, "moments")
    here = np.triu(np.ones_like(values, dtype=bool))
    figure = Figure(figsize=(6.8, 5.9), layout="constrained")
    axes = figure.add_subplot()
    scale = float(values[here].min()), float(values[here].max())
    image = _draw_frames(axes, borders(at), np.ma.masked_array(values, ~here), scale)
    axes.set_xlabel("end in s")
    axes.set_ylabel("start in s")
    ends = [at[0], at[-1]]
    axes.plot(ends, ends, color="#888888", linewidth=0.8)
    for number, (start, end) in enumerate(windows):
        label = "ground truth" if number == 0 else "_"
        axes.plot([start, end, end], [start, start, end], linestyle=":", label=label, **_mark(1.4))
    for rank, window in enumerate(found, 1):
        label = "moments found, by rank" if rank == 1 else "_"
        _draw_corner(axes, window, label, size=11 if rank == 1 else 7)
        axes.annotate(
            f"{rank}", (window[1], window[0]), xytext=(7, 4), textcoords="offset points",
            fontsize=9, path_effects=[_outline(2.0, "white")], annotation_clip=False,
        )  # fmt: skip
    figure.colorbar(image, ax=axes, label="score of the moment", pad=0.02)
    _write_legend(figure, axes)
    write_title(figure, title)
    return figure


def _draw_frames(
    axes: Axes, edges: NDArray[np.float64], values: NDArray[np.float64], scale: Any = (None, None)
) -> Any:
    """A map of frames against frames, whose first row is on top."""
    image = axes.pcolorfast(edges, edges, values, cmap="viridis", vmin=scale[0], vmax=scale[1])
    axes.set(xlim=(edges[0], edges[-1]), ylim=(edges[-1], edges[0]), aspect="equal")
    axes.set_xlabel("time in s")
    axes.set_ylabel("time in s")
    return image


def _draw_squares(axes: Axes, windows: Sequence[Window], label: str = "_") -> None:
    from matplotlib.patches import Rectangle

    for number, (start, end) in enumerate(windows):
        side = end - start
        name = "_" if number else label
        axes.add_patch(Rectangle((start, start), side, side, fill=False, label=name, **_mark(1.6)))


def _draw_segment(axes: Axes, start: float, end: float) -> None:
    """The anchor-aware segment, and its two transition points on the diagonal."""
    from matplotlib.patches import Rectangle

    side = end - start
    axes.add_patch(
        Rectangle(
            (start, start), side, side, fill=False, linestyle=(0, (4, 4)),
            label="anchor-aware segment", linewidth=2.0, color=_PINK, zorder=4,
        )
    )  # fmt: skip
    for place, name, offset in ((start, "$b^L$", (5, -15)), (end, "$b^R$", (-21, 6))):
        axes.annotate(
            name, (place, place), xytext=offset, textcoords="offset points", color="white",
            fontsize=11, path_effects=[_outline(2.5, "black")],
        )  # fmt: skip


def _draw_corner(axes: Axes, window: Window, label: str, size: float) -> None:
    """The upper right corner of a moment's square."""
    axes.plot(
        [window[1]], [window[0]], "o", label=label, color=ORANGE, markersize=size,
        markeredgecolor="black", clip_on=False, zorder=5,
    )  # fmt: skip


def _draw_pictures(
    axes: Axes, edges: NDArray[np.float64], pictures: Mapping[float, NDArray[np.uint8]]
) -> Axes | None:
    """A strip of pictures above a map, in the order of time; a tick is where each is from."""
    times = sorted(pictures)
    if not times:
        return None
    count = min(len(times), _MAX_PICTURES)
    times = [times[place] for place in np.linspace(0, len(times) - 1, count).round().astype(int)]
    wide = max(picture.shape[1] / picture.shape[0] for picture in pictures.values())
    strip = axes.inset_axes((0.0, 1.035, 1.0, 1 / (count * wide)))
    for place, time in enumerate(times):
        picture = pictures[time]
        half = 0.48 * picture.shape[1] / picture.shape[0] / wide
        middle = place + 0.5
        strip.imshow(picture, extent=(middle - half, middle + half, 0, 1), aspect="auto")
        share = (time - edges[0]) / (edges[-1] - edges[0])
        strip.plot(
            [middle, share * count], [-0.02, -0.035 * count * wide],
            color="#888888", linewidth=0.7, clip_on=False,
        )  # fmt: skip
    strip.set(xlim=(0, count), ylim=(0, 1))
    strip.set_axis_off()
    return strip


def _write_legend(figure: Figure, axes: Axes) -> None:
    marks, names = axes.get_legend_handles_labels()
    if names:
        figure.legend(
            marks, names, loc="outside lower center", ncols=4, fontsize=9,
            labelcolor="black", facecolor="#cfcfcf", edgecolor="none",
        )  # fmt: skip


def _outline(width: float, colour: str) -> withStroke:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=width, foreground=colour)


def _mark(width: float) -> dict[str, Any]:
    """The look of a line that stands out from every colour of the map."""
    edge = _outline(width + 1.6, "black")
    return {"color": "white", "linewidth": width, "path_effects": [edge]}


def _name_rows(axes: Axes, queries: Sequence[str]) -> None:
    step = -(-len(queries) // _MAX_LABELS)  # every so many rows have room for a name
    axes.set_yticks(range(0, len(queries), step))
    texts = [lettered(shortened(query, 48)) for query in queries[::step]]
    names = axes.set_yticklabels([text for text, _ in texts], fontsize=8, parse_math=False)
    for name, (_, families) in zip(names, texts, strict=True):
        name.set_fontfamily(families)


def _check_map(
    who: str,
    values: NDArray[np.float64],
    times: NDArray[np.float64],
    queries: Sequence[str] | None = None,
    name: str = "matrix",
) -> None:
    rows, what = (len(times), "[F, F]") if queries is None else (len(queries), "[Q, F]")
    if values.shape != (rows, len(times)) or not rows:
        raise InputError(
            f"{who}: {name}: expected {what} = [{rows}, {len(times)}] "
            f"as there are times and queries, got {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{who}: {name}: expected finite values, got NaN or infinity")


def _check_frames(
    who: str, count: int, anchor: int | None, segment: tuple[int, int] | None
) -> None:
    if anchor is not None and not 0 <= anchor < count:
        raise InputError(f"{who}: anchor: expected one of {count} frames, got {anchor}")
    if segment is not None and not 0 <= segment[0] <= segment[1] < count:
        raise InputError(
            f"{who}: segment: expected first and last of {count} frames, got {tuple(segment)}"
        )
