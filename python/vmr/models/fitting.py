"""What the yardsticks share: windows relative to the duration, and how well one is hit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vmr.data.records import Query

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

THRESHOLDS = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
"""IoU from which a window is hit; what is fit is the mean over these."""


def relative_to_duration(query: Query) -> Floats:
    """Windows of a query in parts of its duration, cut to it: [M, 2]; without empty ones."""
    windows = np.asarray(query.windows or (), dtype=np.float64).reshape(-1, 2)
    cut = (windows / query.duration).clip(0.0, 1.0)
    found: Floats = cut[cut[:, 1] > cut[:, 0]]
    return found


def reached(overlaps: Floats) -> Integers:
    """How many of the thresholds each IoU reaches."""
    # Bounds that are equal in seconds may differ in the last bit here.
    found: Integers = np.searchsorted(THRESHOLDS - 1e-9, overlaps, side="right")
    return found


def unfitted(kind: str) -> str:
    """What a model says that was asked before it was fit."""
    return f"{kind}: expected it to be fit on training queries or loaded first; call fit"
