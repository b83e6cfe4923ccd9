"""How similar frames inside and outside of the ground truth are to their queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vmr.errors import InputError
from vmr.evaluation.separation import Separation
from vmr.viz.figures import BLUE, ORANGE, lettered, shortened, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 60
_PARTS = (("outside", ORANGE, "--"), ("inside", BLUE, "-"))


def cosine_distributions(separations: Mapping[str, Separation]) -> Figure:
    """A figure of the cosines of queries with frames inside and outside of the ground truth.

    A row each, on one axis of cosines, with medians, AUC and overlap: the more the two distributions lie
    apart, the better (Tan et al., CVPR 2025, Fig. 5).

    Args:
        separations: By the name of their row, as ``{"before alignment": ..., "after alignment": ...}``;
            :func:`vmr.models.cosines.query_cosines` gives them of a model and a data set.

    Raises:
        InputError: There is none, or one without a frame inside or outside.
    """
    from matplotlib.figure import Figure

    if not separations:
        raise InputError("cosine_distributions: expected at least one Separation, got none")
    for name, one in separations.items():
        if not len(one.inside) or not len(one.outside):
            raise InputError(
                f"cosine_distributions: {name!r}: expected frames inside and outside of the ground "
                f"truth, got {len(one.inside)} and {len(one.outside)}"
            )
    every = [values for one in separations.values() for values in (one.inside, one.outside)]
    edges = Separation(np.concatenate(every), np.empty(0)).edges(_BINS)
    figure = Figure(figsize=(8.4, 0.7 + 2.0 * len(separations)), layout="constrained")
    rows = figure.subplots(len(separations), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, one) in zip(rows, separations.items(), strict=True):
        for part, colour, style in _PARTS:
            values = getattr(one, part)
            shares = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(
                shares, edges, fill=True, color=colour, alpha=0.5, label=f"{part} the ground truth"
            )
            axes.axvline(
                float(np.median(values)), color=colour, linestyle=style, linewidth=1.6,
                label=f"median {part}",
            )  # fmt: skip
        text, families = lettered(shortened(name, 60))
        axes.set_title(text, fontsize=10, loc="left", fontfamily=families, parse_math=False)
        axes.set_title(f"AUC {one.auc:.2f}, overlap {one.overlap:.2f}", fontsize=9, loc="right")
        axes.set_ylabel("frames, %")
        axes.set_xlim(edges[0], edges[-1])
        tidy(axes)
    rows[-1].set_xlabel("cosine of query and frame")
    figure.legend(
        *rows[0].get_legend_handles_labels(),
        loc="outside lower center", ncols=4, frameon=False, fontsize=9,
    )  # fmt: skip
    return figure
