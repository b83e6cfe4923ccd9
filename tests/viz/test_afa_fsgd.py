"""Pictures of alignment and of moments as points: what they show, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

import vmr
from tests.pack_layouts import save, unit
from tests.viz.samples import ODD, drawn
from vmr import viz
from vmr.data.dataset import MomentDataset, collate
from vmr.errors import InputError
from vmr.evaluation.separation import Separation
from vmr.models.cosines import query_cosines

TIMES = np.array([0.5, 1.5, 2.5, 3.5])


def named(axes: Axes, label: str) -> Any:
    """What the legend gives this name."""
    marks, labels = axes.get_legend_handles_labels()
    return marks[labels.index(label)]


# ---- before and after alignment ----------------------------------------------------------------------


def test_maps_before_and_after_have_one_scale_and_all_marks() -> None:
    before, after = np.eye(4), 2 * np.eye(4) - 1
    figure = drawn(
        viz.alignment_maps(
            before, after, TIMES,
            anchor=2, segment=(1, 2), moment=(1.0, 4.0), truth=[(0.0, 1.0), (1.0, 3.5)], title=ODD,
        )
    )  # fmt: skip
    left, right = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in (left, right)] == [
        "before alignment", "after alignment",
    ]  # fmt: skip
    for axes, values in ((left, before), (right, after)):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.get_clim() == (-1.0, 1.0)
        assert axes.get_xlim() == (0.0, 4.0)
        assert axes.get_ylim() == (
            4.0,
            0.0,
        )  # the first frame on top: the corner is an upper right one
        anchor = named(axes, "anchor frame")
        assert (anchor.get_xdata()[0], anchor.get_ydata()[0]) == (2.5, 2.5)
        segment = named(axes, "anchor-aware segment")
        assert (segment.get_xy(), segment.get_width()) == ((1.0, 1.0), 2.0)
        assert [(text.get_text(), text.xy) for text in axes.texts] == [
            ("$b^L$", (1.0, 1.0)), ("$b^R$", (3.0, 3.0)),
        ]  # fmt: skip
        point = named(axes, "predicted point")
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (4.0, 1.0)
        squares = [(patch.get_x(), patch.get_width()) for patch in axes.patches]
        assert squares == [(0.0, 1.0), (1.0, 2.5), (1.0, 2.0)]
    (legend,) = figure.legends
    assert len(legend.texts) == 4


def test_maps_without_marks_have_no_legend() -> None:
    figure = drawn(viz.alignment_maps(np.eye(1), np.eye(1), [3.0]))
    assert figure.legends == []
    assert figure.axes[0].get_xlim() == (2.5, 3.5)


def test_pictures_stand_above_the_maps_in_the_order_of_time() -> None:
    times = np.arange(20.0)
    pictures = {float(time): np.full((3, 4, 3), int(time), np.uint8) for time in reversed(times)}
    figure = drawn(viz.alignment_maps(np.eye(20), np.eye(20), times, pictures=pictures))
    for axes in figure.axes[:2]:
        (strip,) = axes.child_axes
        shown = [int(image.get_array()[0, 0, 0]) for image in strip.images]
        assert shown == [0, 4, 8, 11, 15, 19]
        ends = [line.get_xdata()[1] / 6 * 20 - 0.5 for line in strip.lines]
        np.testing.assert_allclose(ends, shown, atol=1e-9)
    few = viz.alignment_maps(np.eye(2), np.eye(2), [0, 1], pictures={0.0: pictures[0.0]})
    assert len(few.axes[0].child_axes[0].images) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": np.eye(3)}, r"before: expected \[F, F\] = \[4, 4\].*got \[3, 3\]"),
        ({"after": np.full((4, 4), np.nan)}, "after: expected finite values"),
        ({"times": [0, 2, 1, 3]}, "times: expected each later"),
        ({"anchor": 4}, "anchor: expected one of 4 frames, got 4"),
        ({"anchor": -1}, "anchor: expected one of 4 frames, got -1"),
        ({"segment": (2, 1)}, r"segment: expected first and last of 4 frames, got \(2, 1\)"),
        ({"segment": (1, 4)}, r"segment: expected first and last of 4 frames, got \(1, 4\)"),
        ({"moment": (2.0, 1.0)}, r"moment: expected windows \(start, end\)"),
        ({"truth": [(-1.0, 1.0)]}, "truth: expected windows"),
    ],
)
def test_maps_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"before": np.eye(4), "after": np.eye(4), "times": TIMES, **changes}
    with pytest.raises(InputError, match=f"alignment_maps: {message}"):
        viz.alignment_maps(**given)


# ---- moments as points -------------------------------------------------------------------------------


def test_moments_lie_at_the_upper_right_corner_of_their_cells() -> None:
    scores = np.arange(16.0).reshape(4, 4)
    scores[3, 0] = np.nan  # no moment ends before it starts
    figure = drawn(
        viz.moment_scores(
            scores, TIMES, moments=[(1.0, 3.0), (0.0, 4.0)], truth=[(1.0, 2.0)], title=ODD
        )
    )
    axes = figure.axes[0]
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array().mask, np.tril(np.ones((4, 4), bool), -1))
    assert image.get_clim() == (0.0, 15.0)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(3, 1), (4, 0)]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    # The moment of frames 1 and 2 is the cell whose upper right corner the point is.
    assert image.get_array()[1, 2] == scores[1, 2]
    truth = named(axes, "ground truth")
    np.testing.assert_array_equal(truth.get_xydata(), [(1, 1), (2, 1), (2, 2)])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("end in s", "start in s")


@pytest.mark.parametrize(
    ("scores", "changes", "message"),
    [
        (np.eye(3), {}, r"scores: expected \[F, F\] = \[4, 4\].*got \[3, 3\]"),
        (np.ones(4), {}, r"scores: expected \[F, F\] = \[4, 4\].*got \[4\]"),
        (np.full((4, 4), np.inf), {}, "scores: expected finite values"),
        (np.eye(4), {"moments": [(2.0, 1.0)]}, r"moments: expected windows \(start, end\)"),
        (np.eye(4), {"truth": [(2.0, 1.0)]}, "truth: expected windows"),
    ],
)
def test_scores_that_do_not_fit(scores: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"moment_scores: {message}"):
        viz.moment_scores(scores, TIMES, **changes)


# ---- distributions -----------------------------------------------------------------------------------


def separation(inside: list[float], outside: list[float]) -> Separation:
    return Separation(np.array(inside), np.array(outside))


def test_what_a_separation_says() -> None:
    apart = separation([0.8, 0.9], [0.1, 0.2, 0.3])
    assert apart.auc == 1.0
    assert apart.overlap == 0.0
    same = separation([0.1, 0.5, 0.5], [0.5, 0.1, 0.5])
    assert same.auc == pytest.approx(0.5)
    assert same.overlap == pytest.approx(1.0)
    mixed = separation([0.2, 0.6], [0.2, 0.4])  # pairs: a tie, a loss, two wins
    assert mixed.auc == pytest.approx(2.5 / 4)
    assert mixed.overlap == pytest.approx(0.5)
    for none in (separation([], [0.1]), separation([0.1], []), separation([], [])):
        assert np.isnan(none.auc)
        assert np.isnan(none.overlap)


def test_distributions_show_medians_and_shares() -> None:
    rows = {
        ODD: separation([0.5, 0.6, 0.7], [0.1, 0.3]),
        "after": separation([0.9] * 4, [-0.5, -0.4]),
    }
    figure = drawn(viz.cosine_distributions(rows))
    above, below = figure.axes
    assert below.get_title(loc="left") == "after"
    assert below.get_title(loc="right") == "AUC 1.00, overlap 0.00"
    assert above.get_xlim() == below.get_xlim() == pytest.approx((-0.5, 0.9), abs=1e-5)
    for axes, outside, inside in ((above, 0.2, 0.6), (below, -0.45, 0.9)):
        assert named(axes, "median outside").get_xdata()[0] == pytest.approx(outside)
        assert named(axes, "median inside").get_xdata()[0] == pytest.approx(inside)
        for part in ("inside", "outside"):
            heights = named(axes, f"{part} the ground truth").get_data().values
            assert heights.sum() == pytest.approx(100)
    (legend,) = figure.legends
    assert len(legend.texts) == 4


def test_distributions_of_nothing() -> None:
    with pytest.raises(InputError, match="expected at least one Separation"):
        viz.cosine_distributions({})
    with pytest.raises(InputError, match=r"'a': expected frames inside and outside.*got 0 and 1"):
        viz.cosine_distributions({"a": separation([], [0.1])})


# ---- of a model and a data set -----------------------------------------------------------------------

PACK = """
columns: [clip]
sources: {clip: {files: "clip/{vid}.npz", dim: 8}}
seconds_per_row: 2
text: {files: "text/{qid}.npz", dim: 8}
"""
ROWS = {"a": 6, "b": 9, "c": 7}
WINDOWS: dict[str, tuple[tuple[float, float], ...]] = {
    "a": ((2.0, 6.0),),
    "b": ((0.0, 4.0), (10.0, 18.0)),
    "c": (),
}


def made(folder: Path, names: str = "abc") -> MomentDataset:
    (folder / "pack.yaml").write_text(PACK)
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    queries = []
    for name in names:
        save(folder / "clip" / f"{name}.npz", unit(rng.normal(size=(ROWS[name], 8))))
        vector = unit(rng.normal(size=8)).astype(np.float32)
        np.savez(
            folder / "text" / f"{name}.npz", last_hidden_state=vector[None], pooler_output=vector
        )
        queries.append(
            vmr.Query(
                qid=name,
                video=name,
                text="a query",
                duration=2.0 * ROWS[name],
                windows=WINDOWS[name],
            )
        )
    return MomentDataset(queries, vmr.load_pack(folder), pooled=True)


def model() -> vmr.A2FAF2SGD:
    torch.manual_seed(0)
    return vmr.A2FAF2SGD(
        vmr.A2FAF2SGDConfig(video_dim=8, text_dim=8, kernel_size=3, channels=2, head_hidden=2)
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_cosines_of_a_data_set(tmp_path: Path, batch_size: int) -> None:
    dataset, one, told = made(tmp_path), model(), []
    found = query_cosines(
        one, dataset, batch_size=batch_size, progress=lambda *said: told.append(said)
    )
    assert one.training
    assert told[-1] == ("comparing", 3, 3)
    assert list(found) == ["before alignment", "after alignment"]
    expected: dict[str, list[np.ndarray]] = {"inside": [], "outside": []}
    after: list[np.ndarray] = []
    inside_rows = {0: [1, 2], 1: [0, 1, 5, 6, 7, 8]}
    for place, rows in inside_rows.items():  # the third query has no window
        item = dataset[place]
        assert item.pooled is not None
        cosines = torch.cosine_similarity(item.video, item.pooled[None]).numpy()
        mask = np.zeros(len(cosines), bool)
        mask[rows] = True
        expected["inside"].append(cosines[mask])
        expected["outside"].append(cosines[~mask])
        batch = collate([item])
        after.append(one(**one.inputs(batch)).after[0].detach().numpy()[mask])
    before = found["before alignment"]
    for part, values in expected.items():
        np.testing.assert_allclose(getattr(before, part), np.concatenate(values), atol=1e-5)
    np.testing.assert_allclose(found["after alignment"].inside, np.concatenate(after), atol=1e-5)
    drawn(viz.cosine_distributions(found))


def test_cosines_without_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="query_cosines: expected queries with ground truth, got 1"
    ):
        query_cosines(model(), made(tmp_path, "c"))
