"""How much a model looks at each frame, beneath the moments of the truth and of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError
from vmr.moments import Moment
from vmr.viz.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    Window,
    borders,
    checked_times,
    checked_windows,
    tidy,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--", "-.", ":")


def frame_attention(
    attention: ArrayLike,
    times: ArrayLike,
    *,
    moments: Sequence[Window | Moment] = (),
    truth: Sequence[Window] = (),
    probabilities: Mapping[str, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """Frame attention over time, beneath the true and the predicted moments.

    The picture of BM-DETR (Jung et al., WACV 2025, Fig. 4). A dashed line is what every frame would have
    if all had the same.

    Args:
        attention: [F] o of the paper's eq. 7, one a frame, from 0.
        times: [F] seconds of the frames' middles, strictly ascending.
        moments: Those found, windows in seconds or :class:`vmr.Moment`, best first: the best is the
            most opaque.
        truth: Windows in seconds.
        probabilities: [F] each, from 0 to 1, by name: a second panel, such as P(f | Q+), P(f | Q-) and p
            of eqs. 4 and 6.
        title: Over the picture.

    Raises:
        InputError: Shapes that do not fit, values that are not finite or out of range, times that do not
            ascend, or a window that is no span.
    """
    from matplotlib.figure import Figure

    who = "frame_attention"
    at = checked_times(who, times)
    shares = _checked(who, "attention", attention, len(at), np.inf)
    curves = {
        name: _checked(who, f"probabilities: {name!r}", values, len(at), 1.0)
        for name, values in (probabilities or {}).items()
    }
    rows = {
        "truth": (checked_windows(who, truth), GREEN),
        "found": (checked_windows(who, moments, "moments"), ORANGE),
    }
    edges = borders(at)
    heights = [0.5, 1.5, 1.7][: 3 if curves else 2]
    figure = Figure(figsize=(10, 0.9 + 1.1 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _draw_windows(panels[0], rows, float(edges[-1] - edges[0]))
    panels[1].stairs(shares, edges, fill=True, color=BLUE, alpha=0.75)
    panels[1].axhline(float(shares.mean()), color=GREY, linestyle="--", linewidth=1.0)
    panels[1].set_ylim(0, 1.1 * float(shares.max()) or 1.0)
    panels[1].set_ylabel("attention", fontsize=9)
    if curves:
        _draw_curves(panels[2], edges, curves)
    for axes in panels[1:]:
        tidy(axes)
        for start, end in rows["truth"][0]:
            axes.axvspan(start, end, color=GREEN, alpha=0.15, linewidth=0)
    ends = [end for windows, _ in rows.values() for _, end in windows]
    panels[-1].set_xlim(min(0.0, edges[0]), max([edges[-1], *ends]))
    panels[-1].set_xlabel("time in s")
    write_title(figure, title)
    return figure


def _draw_windows(axes: Axes, rows: Mapping[str, tuple[list[Window], str]], length: float) -> None:
    """A row of bars each, the first on top."""
    for place, (windows, colour) in enumerate(rows.values()):
        for rank, (start, end) in enumerate(windows):
            alpha = 1.0 if colour == GREEN else max(0.2, 1 / (rank + 1))
            bar = [(start, max(end - start, 0.002 * length))]
            axes.broken_barh(bar, (-place - 0.4, 0.8), color=colour, alpha=alpha, linewidth=0)
    axes.set_yticks([-place for place in range(len(rows))], list(rows), fontsize=9)
    axes.set_ylim(-len(rows) + 0.5, 0.5)
    axes.tick_params(left=False, bottom=False)
    axes.spines[:].set_visible(False)


def _draw_curves(
    axes: Axes, edges: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]]
) -> None:
    for place, (name, values) in enumerate(curves.items()):
        axes.stairs(
            values, edges, baseline=None, color=COLOURS[place % len(COLOURS)], linewidth=1.8,
            linestyle=_STYLES[place % len(_STYLES)], label=name,
        )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("probability", fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _checked(
    who: str, name: str, values: ArrayLike, count: int, most: float
) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (count,):
        raise InputError(
            f"{who}: {name}: expected [F] = [{count}] as there are times, got {list(found.shape)}"
        )
    if not ((found >= 0) & (found <= most) & np.isfinite(found)).all():
        rule = "0 to 1" if most == 1 else "finite values from 0"
        raise InputError(f"{who}: {name}: expected {rule}, got {found.min():g} to {found.max():g}")
    return found
