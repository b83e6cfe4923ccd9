"""What a simulated corpus is like, as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vmr.viz.figures import BLUE, ORANGE, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INSIDE, _OUTSIDE = BLUE, ORANGE


def report_figure(report: Mapping[str, Any]) -> Figure:
    """A row a split: similarity inside and outside of moments, its statistics, and boundaries.

    Args:
        report: What report.json of a simulated corpus holds.
    """
    from matplotlib.figure import Figure

    splits: Mapping[str, Any] = report["splits"]
    figure = Figure(figsize=(11.0, 2.7 * len(splits) + 0.4), layout="constrained")
    grid = figure.subplots(len(splits), 3, squeeze=False)
    for (name, split), (left, middle, right) in zip(splits.items(), grid, strict=True):
        _draw_similarity(left, name, split)
        _draw_shares(middle, split, report["parameters"]["hit"])
        _draw_boundary(right, split, report["parameters"]["row_seconds"])
    return figure


def save_report(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes :func:`report_figure` as a picture of the format that the name ends in.

    Raises:
        InputError: For an ending other than .png, .svg and .pdf.
        CacheError: Where the file cannot be written.
    """
    save_figure(report_figure(report), path)


def _draw_similarity(axes: Axes, name: str, split: Mapping[str, Any]) -> None:
    for key, colour in (("outside", _OUTSIDE), ("inside", _INSIDE)):
        axes.stairs(
            [100 * share for share in split[key]],
            split["bins"],
            fill=True,
            color=colour,
            alpha=0.55,
            label=f"{key} the moments",
        )
    axes.set_title(f"{name}: {split['queries']:,} queries, {split['videos']:,} videos", fontsize=10)
    axes.set_xlabel("cosine of query and frame")
    axes.set_ylabel("frames, %")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2, columnspacing=1.0)
    tidy(axes)


def _draw_shares(axes: Axes, split: Mapping[str, Any], asked: float) -> None:
    names = {
        "hit": "most similar frame is inside",
        "chance": "a random frame is inside",
        "overlap": "overlap of the distributions",
        "auc": "inside above outside (AUC)",
        "within": "neighbours within moments (cosine)",
        "across": "neighbours across boundaries (cosine)",
    }
    known = {label: split[key] for key, label in names.items() if split[key] is not None}
    places = list(range(len(known)))[::-1]
    axes.barh(places, list(known.values()), color="#8fa9c9", height=0.6)
    for place, value in zip(places, known.values(), strict=True):
        axes.text(max(value, 0) + 0.02, place, f"{value:.2f}", va="center", fontsize=8)
    axes.axvline(asked, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_yticks(places, list(known), fontsize=8)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel(f"dashed: hit asked for, {asked:g}")
    tidy(axes)


def _draw_boundary(axes: Axes, split: Mapping[str, Any], row_seconds: float) -> None:
    around = len(split["curve"]) // 2
    seconds = [place * row_seconds for place in range(-around, around + 1)]
    values = [float("nan") if value is None else value for value in split["curve"]]
    axes.plot(seconds, values, color=_INSIDE, marker="o", markersize=3.5)
    axes.set_xlabel("seconds from a boundary")
    axes.set_ylabel("cosine of neighbouring frames")
    offset = split["boundary_offset"]
    if offset is not None:
        axes.set_title(f"sharpest change {offset:.2f} s off", fontsize=9)
    tidy(axes)
