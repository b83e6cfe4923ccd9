"""What the pictures share: colours, grid, writing, and fonts that have the letters of a text."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr.errors import InputError
from vmr.files import atomic_path
from vmr.moments import Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b6fb6", "#e08a1e", "#4f9d69", "#a04b8f", "#888888"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)

Window = tuple[float, float]
"""Start and end in seconds."""

_ENDINGS = (".png", ".svg", ".pdf")
_DPI = 130
_NO_GLYPH = "\N{WHITE VERTICAL RECTANGLE}"


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as a picture of the format that the name ends in, atomically.

    Raises:
        InputError: The name ends in none of .png, .svg and .pdf.
        CacheError: The file cannot be written.
    """
    if os.path.splitext(path)[1].lower() not in _ENDINGS:
        raise InputError(f"{os.fspath(path)}: expected a name that ends in .png, .svg or .pdf")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def tidy(axes: Axes) -> None:
    """A light grid behind the data, no frame above and to the right."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def shortened(text: str, limit: int = 100) -> str:
    """The text on one line, cut at ``limit`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def checked_windows(
    who: str, windows: Sequence[Window | Moment], name: str = "truth"
) -> list[Window]:
    """The windows of the argument ``name`` of a picture.

    Raises:
        InputError: One is no span.
    """
    spans = [(one.start, one.end) if isinstance(one, Moment) else one for one in windows]
    for start, end in spans:
        if not 0.0 <= start <= end < math.inf:
            raise InputError(
                f"{who}: {name}: expected windows (start, end) with 0 <= start <= end in seconds, "
                f"got ({start}, {end})"
            )
    return spans


def checked_times(who: str, times: ArrayLike) -> NDArray[np.float64]:
    """[F] seconds of frames.

    Raises:
        InputError: They are none, not finite, or do not ascend.
    """
    at = np.asarray(times, dtype=np.float64)
    if at.ndim != 1 or not len(at) or not np.isfinite(at).all():
        raise InputError(f"{who}: times: expected one row of finite seconds, got shape {at.shape}")
    if (np.diff(at) <= 0).any():
        raise InputError(f"{who}: times: expected each later than the one before")
    return at


def borders(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F + 1]: where frames begin and end, half way between their times."""
    if len(times) == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    between = (times[1:] + times[:-1]) / 2
    first, last = 2 * times[0] - between[0], 2 * times[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def write_title(figure: Figure, title: str) -> None:
    """A line above all panels; none of an empty text."""
    if title:
        text, families = lettered(shortened(title))
        figure.suptitle(text, fontsize=11, fontfamily=families, parse_math=False)


def lettered(text: str) -> tuple[str, list[str]]:
    """A text as matplotlib can draw it without a warning, and the font families that it needs.

    matplotlib looks for a letter in the families that it is told, not in all that are installed. A
    letter that no installed font has becomes a box.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, fontManager

    families = [str(family) for family in rcParams["font.family"]]
    first = str(fontManager.findfont(FontProperties(family=families)))
    missing = {letter for letter in text if not _has(first, letter)}
    for file, family in _installed() if missing else []:
        found = {letter for letter in missing if _has(file, letter)}
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    return "".join(_NO_GLYPH if letter in missing else letter for letter in text), families


def _installed() -> list[tuple[str, str]]:
    """File and family of the upright, regular fonts that matplotlib knows."""
    from matplotlib.font_manager import fontManager

    return sorted(
        (font.fname, font.name)
        for font in fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular")
        and not font.name.startswith("Last Resort")  # it draws what a letter is, not the letter
    )


@functools.cache
def _has(file: str, letter: str) -> bool:
    """Whether a font has a picture of a character; not where its file is gone or broken."""
    from matplotlib.font_manager import get_font

    try:
        return get_font(file).get_char_index(ord(letter)) != 0
    except (OSError, RuntimeError):
        return False
