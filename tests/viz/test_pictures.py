"""Figures of results: what they show, and that they never fail on odd texts or videos."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.viz.samples import result
from vmr import viz
from vmr.errors import CacheError, InputError, VideoError
from vmr.results import Results
from vmr.viz import curves, figures, notebook, recall, simulation


def drawn(figure: Figure) -> FigureCanvasAgg:
    """The figure drawn; a warning is an error."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return canvas


# ---- writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_the_name_says_the_format(tmp_path: Path, name: str, head: bytes) -> None:
    viz.save_figure(Figure(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(head)


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.png, \.svg or \.pdf"):
        viz.save_figure(Figure(), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CacheError, match="could not be written"):
        viz.save_figure(Figure(), tmp_path / "none" / "a.png")


def test_every_picture_is_written_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, figure, save in (
        (curves, "training_curves", lambda path: curves.save_curves([], "MR", path)),
        (recall, "recall_curve", lambda path: recall.save_recall_curve({}, path)),
        (simulation, "report_figure", lambda path: simulation.save_report({}, path)),
    ):
        monkeypatch.setattr(module, figure, lambda *arguments: Figure())
        save(tmp_path / f"{figure}.svg")
        assert (tmp_path / f"{figure}.svg").read_bytes().startswith(b"<?xml")
        with pytest.raises(InputError, match="expected a name"):
            save(tmp_path / "a.txt")


# ---- letters ----------------------------------------------------------------------------------------

LETTER = "\N{CJK UNIFIED IDEOGRAPH-51FA}"


def test_a_text_that_the_font_has_stays() -> None:
    assert figures.lettered("A café, такси") == (
        "A café, такси",
        matplotlib.rcParams["font.family"],
    )


def test_a_letter_that_no_font_has_becomes_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_installed", list)
    text, _ = figures.lettered(f"a {LETTER}")
    assert text == "a \N{WHITE VERTICAL RECTANGLE}"
    drawn(viz.timeline(result(query=f"a {LETTER}"), pictures=False))


def test_a_font_that_has_the_letters_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 900))
    pen.lineTo((900, 900))
    pen.closePath()
    glyphs = {".notdef": pen.glyph(), "out": pen.glyph()}
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(LETTER): "out"})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2(usWeightClass=400)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    known = font_manager.fontManager.ttflist
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(known))
    font_manager.fontManager.addfont(tmp_path / "one.ttf")
    # Fonts of this machine may have the letter too.
    monkeypatch.setattr(figures, "_installed", lambda: [(str(tmp_path / "one.ttf"), "One Letter")])
    text, families = figures.lettered(f"a {LETTER}")
    assert text == f"a {LETTER}"
    assert families[-1] == "One Letter"
    drawn(viz.timeline(result(query=f"a {LETTER}"), pictures=False))


@pytest.mark.parametrize("query", ["costs $\\foo$ 5\n한국어 हिन्दी\tאדם 😀", " "])
def test_any_text_is_drawn_without_a_warning(query: str) -> None:
    one = result(query=query)
    drawn(viz.timeline(one, pictures=False))
    drawn(viz.score_curves({query: one, "other": one}, [(1.0, 2.0)]))
    drawn(viz.similarity_map(np.eye(2, 3), [0, 1, 2], queries=[query, "b"], title=query))


# ---- time line --------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [0.0, 0.01, 0.1, 0.3])
def test_labels_of_moments_leave_each_other_room(apart: float) -> None:
    spans = [(1 + place * apart, 1.4 + place * apart) for place in range(8)]
    figure = viz.timeline(result(spans=[*spans, (0.0, 0.1), (3.9, 4.0)]), pictures=False)
    renderer = drawn(figure).get_renderer()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert axes.texts[0].get_text() == "#1  0.90"
    assert len(boxes) >= 5  # the edges, and one a row
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])
        assert axes.bbox.x0 - 1 <= box.x0 < box.x1 <= axes.bbox.x1 + 1
    # Nor do they lie on the curve.
    line = axes.lines[0]
    top = axes.transData.transform((0, line.get_ydata().max()))[1]
    assert min(box.y0 for box in boxes) > top


def test_a_hundred_moments(colour_video: Path) -> None:
    spans = [(0.1 * place, 0.1 * place + 0.5) for place in range(100)]
    figure = viz.timeline(result(colour_video, spans=spans, duration=12.0))
    drawn(figure)
    assert len(figure.axes) == 6  # five key frames
    assert [axes.get_title()[:2] for axes in figure.axes[:2]] == ["#1", "#2"]


def test_key_frames_are_the_best_inside_or_the_middle() -> None:
    assert viz.key_frames(result(spans=[(2.0, 4.0), (0.0, 1.0), (1.0, 1.1)])) == [
        2.625, 0.875, pytest.approx(1.05),
    ]  # fmt: skip


def test_no_scores_and_no_moments() -> None:
    empty = result(spans=(), duration=0.0)
    assert len(empty.frame_scores.times) == 0
    drawn(viz.timeline(empty))
    drawn(viz.score_curves(empty))


def test_a_video_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(VideoError):
        viz.save_timeline(result(tmp_path / "gone.mp4"), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


# ---- notebooks --------------------------------------------------------------------------------------


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found


def reddish(picture: np.ndarray) -> int:
    blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
    return int(((red > 150) & (green < 60) & (blue < 60)).sum())


def test_a_notebook_shows_the_time_line_with_key_frames(colour_video: Path) -> None:
    red = result(colour_video, spans=[(0.0, 2.0)], duration=12.0)
    gone = result("gone.mp4", spans=[(0.0, 2.0)], duration=12.0)
    with_picture, without = pixels(red._repr_png_()), pixels(gone._repr_png_())
    assert reddish(with_picture) > 5000
    assert reddish(without) == 0
    assert with_picture.shape[0] > without.shape[0]
    both = pixels(Results([red, gone])._repr_png_())
    assert both.shape[0] == with_picture.shape[0] + without.shape[0]
    assert both.shape[1] == with_picture.shape[1]


def test_a_notebook_shows_the_first_results(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notebook._MAX_RESULTS == 10
    monkeypatch.setattr(notebook, "_MAX_RESULTS", 2)
    two, four = (pixels(Results([result()] * count)._repr_png_()) for count in (2, 4))
    word = four[two.shape[0] :]
    assert 20 < len(word) < 80
    assert word.min() < 100  # it says how many are left


def test_a_display_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Results()._repr_png_() is None
    monkeypatch.setattr("vmr.viz.notebook.timeline", lambda *a, **k: 1 / 0)
    assert result()._repr_png_() is None


# ---- curves and maps --------------------------------------------------------------------------------


def test_score_curves_against_the_truth() -> None:
    several = {"ours": result(), "theirs": result(spans=())}
    figure = viz.score_curves(several, [(1.0, 2.0), (3.0, 5.0)])
    drawn(figure)
    above, below = figure.axes
    assert [axes.get_title(loc="left") for axes in (above, below)] == ["ours", "theirs"]
    for axes in (above, below):
        assert [patch.get_x() for patch in axes.patches] == [1.0, 3.0]
        assert [patch.get_width() for patch in axes.patches] == [1.0, 2.0]
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), result().frame_scores.scores)
        assert axes.get_xlim() == (0.0, 5.0)  # the truth is not cut off
    assert len(above.collections) == 2
    assert len(below.collections) == 0
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["truth", "moments found"]


def test_score_curves_of_one_result() -> None:
    (axes,) = viz.score_curves(result()).axes
    assert list(axes.patches) == []


@pytest.mark.parametrize("window", [(2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_windows_are_spans(window: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"score_curves: truth: expected windows \(start, end\)"):
        viz.score_curves(result(), [window])
    with pytest.raises(InputError, match="similarity_map: truth"):
        viz.similarity_map(np.eye(2), [0, 1], truth=[window])


def heights(figure: Figure) -> list[tuple[float, float]]:
    return [axes.get_ylim() for axes in figure.axes]


def test_panels_have_one_scale_unless_told_otherwise() -> None:
    big, small, none = result(), result(), result(duration=0.0)
    small.frame_scores.scores[:] *= 0.1
    several = {"big": big, "small": small, "none": none}
    first, *others = heights(viz.score_curves(several))
    assert others == [first, first]
    assert first[0] < small.frame_scores.scores.min() < big.frame_scores.scores.max() < first[1]
    own = heights(viz.score_curves(several, share_y=False))
    assert own[0] == heights(viz.score_curves(big))[0]
    assert own[1] == heights(viz.score_curves(small))[0] != own[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (result(query="a dog"), "results of one query, got 'a field turns white' and 'a dog'"),
        (result("b.mp4"), r"results of one video, got 'gone\.mp4' and 'b\.mp4'"),
        (Results([result()]), "score_curves: 'b': expected one Result, got Results of 1"),
    ],
)
def test_what_cannot_be_compared(other: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        viz.score_curves({"a": result(), "b": other})


def test_pictures_of_one_result_refuse_several(tmp_path: Path) -> None:
    said = r"expected one Result, got Results of 2: give one, as in results\[0\]"
    several: Any = Results([result(), result()])
    for who, draw in (
        ("timeline", viz.timeline),
        ("timeline", lambda given: viz.save_timeline(given, tmp_path / "a.png")),
        ("score_curves", viz.score_curves),
    ):
        with pytest.raises(InputError, match=f"{who}: {said}"):
            draw(several)
    with pytest.raises(InputError, match="timeline: expected one Result, got str"):
        viz.timeline("results.json")  # type: ignore[arg-type]


def test_score_curves_of_nothing() -> None:
    with pytest.raises(InputError, match="expected at least one result"):
        viz.score_curves({})


def test_a_map_of_frames_lies_where_the_frames_are() -> None:
    times = np.array([0.5, 1.5, 3.5])  # not even
    figure = viz.similarity_map(np.arange(9).reshape(3, 3), times, truth=[(1.0, 2.5)], points=[2])
    drawn(figure)
    axes = figure.axes[0]
    (image,) = axes.images
    assert image.get_extent() == [0.0, 4.5, 0.0, 4.5]
    assert axes.yaxis_inverted()
    (square,) = [patch for patch in axes.patches if patch.get_width() == 1.5]
    assert square.get_xy() == (1.0, 1.0)
    assert axes.lines[0].get_xdata()[0] == 2


def test_a_map_of_queries_names_them() -> None:
    figure = viz.similarity_map(
        [[0.0, 0.5], [1.0, 0.2]], [1, 2], queries=["first", "second"], truth=[(1, 2)]
    )
    drawn(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert [line.get_xdata()[0] for line in axes.lines] == [1, 2]
    many = viz.similarity_map(np.ones((200, 5)), range(5), queries=["q"] * 200)
    assert len(many.axes[0].get_yticklabels()) == 40


@pytest.mark.parametrize(
    ("matrix", "times", "queries", "message"),
    [
        (np.eye(3), [0, 1], None, r"expected \[F, F\] = \[2, 2\].*got \[3, 3\]"),
        (np.eye(2), [0, 1], ["a"], r"expected \[Q, F\] = \[1, 2\].*got \[2, 2\]"),
        (np.eye(2), [1, 1], None, "times: expected each later"),
        (np.eye(2), [0, float("nan")], None, "times: expected one row of finite seconds"),
        (np.eye(0), [], None, r"times: expected one row.*got shape \(0,\)"),
        (np.ones((0, 2)), [0, 1], [], r"expected \[Q, F\]"),
        ([[0, 1], [1, float("nan")]], [0, 1], None, "expected finite values"),
    ],
)
def test_maps_that_do_not_fit(
    matrix: object, times: object, queries: list[str] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        viz.similarity_map(matrix, times, queries=queries)  # type: ignore[arg-type]
