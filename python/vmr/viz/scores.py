"""Frame scores over time against what is true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vmr.errors import InputError
from vmr.results import Result, one_of
from vmr.viz.figures import COLOURS, GREEN, Window, checked_windows, lettered, shortened, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    windows = checked_windows("score_curves", truth or ())
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
