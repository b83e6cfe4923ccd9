"""The picture of frame attention: what it shows, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from tests.viz.samples import ODD, drawn
from vmr import viz
from vmr.errors import InputError
from vmr.viz.figures import GREEN, ORANGE

TIMES = np.array([1.0, 3.0, 5.0, 7.0])
SHARES = np.array([0.1, 0.4, 0.3, 0.2])


def test_attention_lies_beneath_truth_and_answer() -> None:
    figure = drawn(
        viz.frame_attention(
            SHARES, TIMES, moments=[(2.0, 5.5), (0.0, 1.0)], truth=[(2.0, 6.0)], title=ODD
        )
    )
    above, below = figure.axes
    bars = list(above.collections)
    spans = [(box.x0, box.x1) for box in (bar.get_paths()[0].get_extents() for bar in bars)]
    assert spans == [(2.0, 6.0), (2.0, 5.5), (0.0, 1.0)]
    assert [to_hex(bar.get_facecolor()[0]) for bar in bars] == [GREEN, ORANGE, ORANGE]
    opaque = [bar.get_facecolor()[0][3] for bar in bars]
    assert opaque[1] > opaque[2]
    assert [tick.get_text() for tick in above.get_yticklabels()] == ["truth", "found"]
    stairs = next(patch for patch in below.patches if hasattr(patch, "get_data"))
    np.testing.assert_array_equal(stairs.get_data().values, SHARES)
    np.testing.assert_array_equal(stairs.get_data().edges, [0, 2, 4, 6, 8])
    assert below.lines[0].get_ydata()[0] == pytest.approx(0.25)
    assert below.get_xlim() == above.get_xlim() == (0.0, 8.0)


def test_probabilities_have_a_panel_of_their_own() -> None:
    joint = torch.tensor([0.5, 0.5, 0.1, 0.0])
    curves: dict[str, Any] = {"P(f | Q+)": [0.9, 0.8, 0.7, 0.1], "joint": joint}
    figure = drawn(viz.frame_attention(SHARES, TIMES, probabilities=curves, truth=[(2.0, 9.0)]))
    assert len(figure.axes) == 3
    axes = figure.axes[2]
    assert [text.get_text() for text in axes.get_legend().texts] == list(curves)
    lines = [patch for patch in axes.patches if hasattr(patch, "get_data")]
    for line, values in zip(lines, curves.values(), strict=True):
        np.testing.assert_allclose(line.get_data().values, np.asarray(values))
    assert axes.get_xlim() == (0.0, 9.0)
    assert axes.get_ylim()[0] == 0.0


def test_one_frame_without_attention_is_drawn() -> None:
    assert len(drawn(viz.frame_attention([0.0], [3.0])).axes) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": SHARES[:3]}, r"attention: expected \[F\] = \[4\].*got \[3\]"),
        ({"attention": -SHARES}, "attention: expected finite values from 0, got -0.4 to -0.1"),
        ({"attention": [np.nan] * 4}, "attention: expected finite values from 0, got nan to nan"),
        ({"times": [0, 2, 1, 3]}, "times: expected each later"),
        ({"times": TIMES[None]}, "times: expected one row of finite seconds"),
        ({"probabilities": {"p": [0, 0, 0, 2]}}, "probabilities: 'p': expected 0 to 1, got 0 to 2"),
        ({"moments": [(2.0, 1.0)]}, r"moments: expected windows \(start, end\)"),
        ({"truth": [(-1.0, 1.0)]}, "truth: expected windows"),
    ],
)
def test_attention_that_does_not_fit(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"attention": SHARES, "times": TIMES, **changes}
    with pytest.raises(InputError, match=f"frame_attention: {message}"):
        viz.frame_attention(**given)
