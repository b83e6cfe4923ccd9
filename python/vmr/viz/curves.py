"""How a training run went."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmr.viz.figures import BLUE, GREY, ORANGE, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOSS, _METRIC, _RATE = BLUE, ORANGE, GREY


def training_curves(lines: Sequence[Mapping[str, Any]], metric: str, title: str = "") -> Figure:
    """A figure of loss, learning rate and the chosen metric over the steps of a run.

    Args:
        lines: Of its metrics.jsonl.
        metric: Official key of what chose the best weights.
        title: Over the figure.
    """
    from matplotlib.figure import Figure

    steps = [line for line in lines if line.get("loss") is not None]
    evaluations = [line for line in lines if line.get("val", {}).get(metric) is not None]
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
    at, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    above.plot(at, losses, color=_LOSS, linewidth=1.5)
    above.set_ylabel("loss", color=_LOSS)
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        above.set_yscale("log")
    rates = above.twinx()
    rates.plot(at, [line["rate"] for line in steps], color=_RATE, linewidth=1.0, linestyle="--")
    rates.set_ylabel("learning rate", color=_RATE)
    rates.set_ylim(bottom=0)
    values = [line["val"][metric] for line in evaluations]
    below.plot(
        [line["step"] for line in evaluations], values,
        color=_METRIC, linewidth=1.5, marker="o", markersize=3,
    )  # fmt: skip
    if values:
        best = max(range(len(values)), key=values.__getitem__)
        step = evaluations[best]["step"]
        below.plot([step], [values[best]], "o", color=_METRIC, markersize=8, fillstyle="none")
        below.set_title(
            f"best: {values[best]:.2f} at step {step:,}, epoch {evaluations[best]['epoch']}",
            fontsize=9, loc="right",
        )  # fmt: skip
    below.set_ylim(bottom=0)
    below.set_ylabel(f"val {metric}", color=_METRIC)
    below.set_xlabel("step")
    for axes in (above, below):
        tidy(axes)
    figure.suptitle(title, fontsize=11)
    return figure


def save_curves(
    lines: Sequence[Mapping[str, Any]],
    metric: str,
    path: str | os.PathLike[str],
    title: str = "",
) -> None:
    """Writes :func:`training_curves` as a picture of the format that the name ends in.

    Raises:
        InputError: For an ending other than .png, .svg and .pdf.
        CacheError: It cannot be written.
    """
    save_figure(training_curves(lines, metric, title), path)
