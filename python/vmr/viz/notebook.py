"""What a notebook shows of results: a picture, which stays when the notebook is kept or published."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr.errors import VideoError, VmrWarning
from vmr.results import Result
from vmr.viz.timeline import timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_RESULTS = 10
_DPI = 90
_WIDTH = 10  # inches of a time line
_GAP = 16  # pixels below each


def shown(results: Sequence[Result]) -> bytes | None:
    """A PNG of the time lines of the first ten results, one below the other; None to show text.

    A result whose video can no longer be read is drawn without key frames. A display never raises: on
    any other failure the notebook is left with the text.
    """
    from matplotlib.figure import Figure
    from matplotlib.image import imsave

    if not results:
        return None
    try:
        pictures = [_pixels(_drawn(result)) for result in results[:_MAX_RESULTS]]
        left = len(results) - _MAX_RESULTS
        if left > 0:
            word = Figure(figsize=(_WIDTH, 0.4))
            word.text(
                0.5, 0.5, f"{left} of {len(results)} results are not shown",
                ha="center", va="center", fontsize=10,
            )  # fmt: skip
            pictures.append(_pixels(word))
        png = io.BytesIO()
        imsave(png, np.concatenate(pictures), format="png")
    except Exception:
        return None
    return png.getvalue()


def _drawn(result: Result) -> Figure:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VmrWarning)  # of a video that was cut off since
            return timeline(result)
    except VideoError:
        return timeline(result, pictures=False)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    """[height, width, 4] of a figure as it is drawn, with some white below."""
    raw = io.BytesIO()
    figure.savefig(raw, format="rgba", dpi=_DPI)
    pixels = np.frombuffer(raw.getvalue(), np.uint8).reshape(-1, _WIDTH * _DPI, 4)
    return np.pad(pixels, ((0, _GAP), (0, 0), (0, 0)), constant_values=255)
