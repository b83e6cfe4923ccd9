"""Recall over the IoU that counts as found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vmr.evaluation.protocols import RECALL_THRESHOLDS
from vmr.evaluation.scoring import Evaluation
from vmr.viz.figures import COLOURS, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def recall_curve(evaluations: Mapping[str, Evaluation]) -> Figure:
    """A figure of recall at 1 (and, thinner, at 5) over IoU thresholds, a colour an evaluation.

    Args:
        evaluations: By the name that the legend gives them; each with moments scored.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, evaluation) in enumerate(evaluations.items()):
        colour = COLOURS[place % len(COLOURS)]
        for top, style, width in (("1", "-", 2.0), ("5", "--", 1.2)):
            values = [evaluation.mean(f"MR-full-R{top}@{iou}") for iou in RECALL_THRESHOLDS]
            axes.plot(
                RECALL_THRESHOLDS,
                [float("nan") if value is None else 100 * value for value in values],
                style,
                color=colour,
                linewidth=width,
                marker="o" if top == "1" else None,
                markersize=3.5,
                label=f"{name}  R{top}",
            )
    axes.set_xlabel("IoU at least")
    axes.set_ylabel("queries found, %")
    axes.set_xlim(min(RECALL_THRESHOLDS), max(RECALL_THRESHOLDS))
    axes.set_ylim(0, 100)
    tidy(axes)
    axes.legend(frameon=False, fontsize=9)
    return figure


def save_recall_curve(evaluations: Mapping[str, Evaluation], path: str | os.PathLike[str]) -> None:
    """Writes :func:`recall_curve` as a picture of the format that the name ends in (PNG, SVG, PDF).

    Raises:
        InputError: For another ending.
        CacheError: Where the file cannot be written.
    """
    save_figure(recall_curve(evaluations), path)
