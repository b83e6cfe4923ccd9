"""What was computed against what is true: score curves, similarity matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError
from vmr.results import Result, one_of
from vmr.viz.figures import COLOURS, GREEN, lettered, shortened, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Window = tuple[float, float]
"""Start and end in seconds."""

_MAX_LABELS = 40


def score_curves(
    results: Result | Mapping[str, Result],
    truth: Sequence[Window] | None = None,
    *,
    share_y: bool = True,
) -> Figure:
    """A figure of frame scores over time and the moments found, against the true windows.

    Each result has a panel; the moments are bars beneath its curve, the best the most opaque.

    Args:
        results: One result, or several to compare by the name that their panel gives them: of one
            query on one video.
        truth: Windows in seconds, shaded in every panel; None where they are not known.
        share_y: One scale for all panels, as for variants of a system. False gives each its own: the
            scores of different systems cannot be compared.

    Raises:
        InputError: No result, results of different queries or videos, or a window that is no span.
    """
    from matplotlib.figure import Figure

    several = _by_name(results)
    windows = _checked("score_curves", truth or ())
    figure = Figure(figsize=(10, 1.0 + 1.7 * len(several)), layout="constrained")
    panels = figure.subplots(len(several), 1, sharex=True, squeeze=False)[:, 0]
    ranges = [_range([result]) for result in several.values()]
    if share_y:
        ranges = [_range(several.values())] * len(several)
    for place, (axes, (name, result)) in enumerate(zip(panels, several.items(), strict=True)):
        for number, (start, end) in enumerate(windows):
            label = "truth" if place == number == 0 else None
            axes.axvspan(start, end, color=GREEN, alpha=0.25, linewidth=0, label=label)
        _draw_panel(axes, result, ranges[place], COLOURS[place % 2], first=place == 0)
        text, families = lettered(shortened(name, 60))
        axes.set_title(text, fontsize=9, loc="left", fontfamily=families, parse_math=False)
    ends = [result.duration for result in several.values()] + [end for _, end in windows]
    panels[-1].set_xlim(0, max(*ends, 1e-3))
    panels[-1].set_xlabel("time in s")
    text, families = lettered(shortened(next(iter(several.values())).query))
    figure.suptitle(text, fontsize=11, fontfamily=families, parse_math=False)
    if panels[0].get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper right", frameon=False, fontsize=8, ncols=3)
    return figure


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
    at = np.asarray(times, dtype=np.float64)
    _check_map(values, at, queries)
    windows = _checked("similarity_map", truth)
    across = _edges(at)
    down = across if queries is None else np.arange(len(queries) + 1) - 0.5
    height = 5.6 if queries is None else min(12.0, 1.4 + 0.32 * len(queries))
    figure = Figure(figsize=(6.8 if queries is None else 10, height), layout="constrained")
    axes = figure.add_subplot()
    image = axes.pcolorfast(across, down, values, cmap="viridis")
    axes.invert_yaxis()
    axes.set_xlabel("time in s")
    if queries is None:
        axes.set_aspect("equal")
        axes.set_ylabel("time in s")
        _draw_squares(axes, windows)
    else:
        _name_rows(axes, queries)
        for edge in (edge for window in windows for edge in window):
            axes.axvline(edge, **_mark(1.4))
    for point in points:
        axes.axvline(point, linestyle="--", **_mark(1.0))
    figure.colorbar(image, ax=axes, label="similarity", pad=0.02)
    text, families = lettered(shortened(title))
    axes.set_title(text, fontsize=11, fontfamily=families, parse_math=False)
    return figure


def _by_name(results: object) -> dict[str, Result]:
    """Results on one query and video by the name of their panel."""
    if not isinstance(results, Mapping):
        return {"": one_of(results, "score_curves")}
    if not results:
        raise InputError("score_curves: expected at least one result, got none")
    several = {name: one_of(result, f"score_curves: {name!r}") for name, result in results.items()}
    first = next(iter(several.values()))
    for result in several.values():
        for what, mine, other in (
            ("query", first.query, result.query),
            ("video", first.video, result.video),
        ):
            if other != mine:
                raise InputError(
                    f"score_curves: expected results of one {what}, got {mine!r} and {other!r}"
                )
    return several


def _range(results: Iterable[Result]) -> tuple[float, float]:
    """The lowest and the highest score; 0 and 1 where there is none."""
    scores = np.concatenate([result.frame_scores.scores for result in results])
    return (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)


def _draw_panel(
    axes: Axes, result: Result, span: tuple[float, float], colour: str, *, first: bool
) -> None:
    times, scores = result.frame_scores.times, result.frame_scores.scores
    low, high = span
    height = max(0.02, high - low)
    marker = "." if len(times) < 100 else ""
    axes.plot(times, scores, color=colour, linewidth=1.5, marker=marker)
    for rank, moment in enumerate(result.moments, 1):
        bar = [(moment.start, max(moment.duration, 0.002 * result.duration))]
        label = "moments found" if first and rank == 1 else None
        axes.broken_barh(
            bar, (low - 0.26 * height, 0.14 * height),
            color=colour, alpha=max(0.25, 1 / rank), linewidth=0, label=label,
        )  # fmt: skip
    axes.set_ylim(low - 0.34 * height, high + 0.14 * height)
    axes.set_ylabel("frame score", fontsize=9)
    tidy(axes)


def _draw_squares(axes: Axes, windows: Sequence[Window]) -> None:
    from matplotlib.patches import Rectangle

    for start, end in windows:
        side = end - start
        axes.add_patch(Rectangle((start, start), side, side, fill=False, **_mark(1.6)))


def _mark(width: float) -> dict[str, Any]:
    """The look of a line that stands out from every colour of the map."""
    from matplotlib.patheffects import withStroke

    edge = withStroke(linewidth=width + 1.6, foreground="black")
    return {"color": "white", "linewidth": width, "path_effects": [edge]}


def _name_rows(axes: Axes, queries: Sequence[str]) -> None:
    step = -(-len(queries) // _MAX_LABELS)  # every so many rows have room for a name
    axes.set_yticks(range(0, len(queries), step))
    texts = [lettered(shortened(query, 48)) for query in queries[::step]]
    names = axes.set_yticklabels([text for text, _ in texts], fontsize=8, parse_math=False)
    for name, (_, families) in zip(names, texts, strict=True):
        name.set_fontfamily(families)


def _edges(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F + 1]: borders of the cells, half way between frames."""
    if len(times) == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    between = (times[1:] + times[:-1]) / 2
    first, last = 2 * times[0] - between[0], 2 * times[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def _checked(who: str, windows: Sequence[Window]) -> list[Window]:
    for start, end in windows:
        if not 0.0 <= start <= end < np.inf:
            raise InputError(
                f"{who}: truth: expected windows (start, end) with 0 <= start <= end in seconds, "
                f"got ({start}, {end})"
            )
    return list(windows)


def _check_map(
    values: NDArray[np.float64], times: NDArray[np.float64], queries: Sequence[str] | None
) -> None:
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise InputError(
            f"similarity_map: times: expected one row of finite seconds, got shape {times.shape}"
        )
    if (np.diff(times) <= 0).any():
        raise InputError("similarity_map: times: expected each later than the one before")
    rows, what = (len(times), "[F, F]") if queries is None else (len(queries), "[Q, F]")
    if values.shape != (rows, len(times)) or not rows:
        raise InputError(
            f"similarity_map: matrix: expected {what} = [{rows}, {len(times)}] "
            f"as there are times and queries, got {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise InputError("similarity_map: matrix: expected finite values, got NaN or infinity")
