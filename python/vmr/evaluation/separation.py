"""How far the ground truth stands out from the rest of a video by its similarity to the query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 50


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """The cosines of queries and their videos' frames, of all queries together.

    Attributes:
        inside: [I] of frames in a ground-truth window.
        outside: [O] of the other frames.
    """

    inside: NDArray[np.float64]
    outside: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Probability that a frame inside is more similar than one outside; ties count half.

        NaN where there are none inside, or none outside.
        """
        if not len(self.inside) or not len(self.outside):
            return float("nan")
        outside = np.sort(self.outside)
        below = np.searchsorted(outside, self.inside, side="left")
        to = np.searchsorted(outside, self.inside, side="right")
        return float((below + to).mean() / (2 * len(outside)))

    @property
    def overlap(self) -> float:
        """Area that both distributions have in common, from histograms of 50 bins over their range.

        NaN where there are none inside, or none outside.
        """
        if not len(self.inside) or not len(self.outside):
            return float("nan")
        edges = self.edges(_BINS)
        shares = [
            np.histogram(values, edges)[0] / len(values) for values in (self.inside, self.outside)
        ]
        return float(np.minimum(*shares).sum())

    def edges(self, bins: int) -> NDArray[np.float64]:
        """[bins + 1]: borders of bins of one width over all values; from -1 to 1 without any."""
        both = np.concatenate([self.inside, self.outside])
        if not len(both):
            return np.linspace(-1.0, 1.0, bins + 1)
        return np.linspace(both.min() - 1e-6, both.max() + 1e-6, bins + 1)
