"""Results made up for pictures and pages, and how the pictures are drawn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vmr.moments import Moment
from vmr.results import FrameScores, Result

ODD = "costs $\\foo$ 5\n한국어"


def drawn(figure: Figure) -> Figure:
    """The figure, which draws without a warning."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return figure


def result(
    video: str | os.PathLike[str] = "gone.mp4",
    query: str = "a field turns white",
    spans: Sequence[tuple[float, float]] = ((1.0, 1.5), (2.5, 3.5)),
    *,
    duration: float = 4.0,
    every: float = 0.25,
    explanation: Mapping[str, Any] | None = None,
) -> Result:
    """A result whose scores are highest at 2.75 s and whose moments score 0.9, 0.8, ..."""
    times = np.arange(every / 2, duration, every)
    scores = 1 / (1 + np.abs(times - 2.75))
    moments = tuple(Moment(*span, 0.9 - 0.1 * place) for place, span in enumerate(spans))
    return Result(
        os.fspath(video), duration, query, moments, FrameScores(times, scores), explanation or {}
    )
