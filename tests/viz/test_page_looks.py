"""The page of a run in a real browser: how it looks, and what it shows."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.videos import ffmpeg, needs_ffmpeg, numbers
from tests.viz.browsing import (
    NOT_FOUND,
    Show,
    click,
    look,
    press,
    script,
    text,
    until,
)
from tests.viz.samples import result
from vmr.errors import InputError
from vmr.results import Results
from vmr.viz import save_page

pytestmark = pytest.mark.xdist_group("browser")


# ---- looks ------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG's relative luminance of rgb(r, g, b)."""
    values = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


CONTRAST = """const of = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const ground = getComputedStyle(at).backgroundColor;
      if (!ground.startsWith("rgba(0, 0, 0, 0")) return ground;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility())
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((one) => [one.id || one.className || one.tagName, getComputedStyle(one).color, of(one)]);"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_looks_can_be_read(show: Show, browser: Any, theme: str) -> None:
    look(browser, theme)
    told = {"simplified": ["a"], "query_aware_captions": [{"time": 1.0, "caption": "b"}]}
    show(result(explanation=told), result(spans=()), allowed=NOT_FOUND)
    until(browser, "!trouble.hidden")
    browser.execute_script("how.open = true; models.open = true")
    pairs = browser.execute_script(CONTRAST)
    assert len(pairs) > 25
    for name, ink, ground in pairs:
        dark, light = sorted([luminance(ink), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ink, ground)


def test_the_look_follows_the_system_until_it_is_chosen(show: Show, browser: Any) -> None:
    theme = "document.documentElement.dataset.theme"
    ground = "getComputedStyle(document.body).backgroundColor"
    show(result(), allowed=NOT_FOUND)
    assert script(browser, theme) == "light"
    light = script(browser, ground)
    look(browser, "dark")
    until(browser, f"{theme} === 'dark'")
    assert luminance(script(browser, ground)) < 0.05 < luminance(light)
    click(browser, "#theme")
    assert script(browser, ground) == light
    browser.refresh()
    assert script(browser, theme) == "light"  # remembered against the system


@pytest.fixture
def widen(browser: Any) -> Iterator[Callable[[int], None]]:
    """Makes the window so many pixels wide."""

    def widen(width: int) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        until(browser, f"innerWidth === {width}")

    yield widen
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_runs_over_the_side(show: Show, widen: Callable[[int], None]) -> None:
    long = "one_very_long_word_without_a_space_" * 8
    browser = show(result(f"{long[:200]}.mp4", long, [(0, 1)] * 9), allowed=NOT_FOUND)
    until(browser, "!trouble.hidden")
    for width in (1280, 800, 390, 320):
        widen(width)
        assert script(browser, "document.documentElement.scrollWidth") <= width


# ---- what it shows ----------------------------------------------------------------------------------


def test_forty_queries_in_three_videos(show: Show) -> None:
    many = [result(f"v{place % 3}.mp4", f"query number {place}") for place in range(40)]
    browser = show(*many, allowed=NOT_FOUND)
    assert text(browser, "#summary") == "40 queries in 3 videos"
    assert script(browser, "document.querySelectorAll('#list h2').length") == 3
    click(browser, "#filter")
    press(browser, "number V1 3")
    left = "[...document.querySelectorAll('#list button')].filter((one) => one.checkVisibility())"
    found = script(browser, f"{left}.map((one) => one.firstChild.textContent)")
    assert found == [f"query number {place}" for place in (13, 31, 34, 37)]
    assert text(browser, "#count") == "4 of 40 queries"
    press(browser, "\ue007")  # enter leaves the field
    press(browser, "jj")  # among those found
    assert text(browser, "#query") == "query number 31"
    assert script(browser, "document.querySelectorAll('#list [aria-current]').length") == 1


def test_a_query_without_moments(show: Show) -> None:
    browser = show(result(spans=()), allowed=NOT_FOUND)
    assert "No moment was found" in text(browser, "#none")
    assert script(browser, "none.checkVisibility() && !moments.childElementCount")
    assert script(browser, "document.querySelector('#plot .line').getTotalLength() > 0")


def test_no_results(show: Show) -> None:
    assert "no results" in text(show(), "main")


def test_an_hour(show: Show) -> None:
    spans = [(40.0 * place, 40.0 * place + 30) for place in range(30)]
    browser = show(result(duration=3600.0, every=1.0, spans=spans), allowed=NOT_FOUND)
    path = script(browser, "document.querySelector('#plot .line').getAttribute('d')")
    assert path.count("L") == 3599
    assert script(browser, "document.querySelectorAll('#moments button').length") == 30
    labels = script(browser, "[...axis.children].map((one) => one.textContent)")
    assert labels[0] == "0:00"
    assert labels[-1] == "1:00:00"


def test_overlapping_moments_lie_in_lanes(show: Show) -> None:
    spans = [(1.0, 2.0), (1.5, 2.5), (2.0, 3.0), (1.2, 1.4)]
    browser = show(result(spans=spans), allowed=NOT_FOUND)
    boxes = script(
        browser,
        "[...lanes.children].map((one) => one.getBoundingClientRect())"
        ".map((box) => [box.left, box.right, box.top])",
    )
    for place, (left, right, top) in enumerate(boxes):
        for other, (start, end, lane) in enumerate(boxes[:place]):
            assert lane != top or start >= right - 0.5 or left >= end - 0.5, (place, other)


def test_how_it_was_found(show: Show) -> None:
    told = {
        "simplified": ["a field", "a field turns white", "a field turns white"],
        "detailed": ["a field that turns white at once"],
        "dropped_rewrites": [{"text": "a sea", "reason": "similarity 0.1"}],
        "query_aware_captions": [{"time": 1.25, "caption": "black and white fields"}],
        "of another system": {"temperature": 0.5},
    }
    browser = show(result(explanation=told), result(), allowed=NOT_FOUND)
    click(browser, "#how summary")
    shown = text(browser, "#how-body")
    for word in ("a field that", "a sea", "similarity 0.1", "0:01.3", "black and", "temperature"):
        assert word in shown
    # What stands in for a rewrite that was not used is not taken for one.
    lines = script(
        browser, "[...document.querySelectorAll('#how ul')[0].children].map((one) => one.innerText)"
    )
    assert lines == ["a field", *["a field turns white the query"] * 2]
    click(browser, "#how-body th button")
    assert script(browser, "parseFloat(playhead.style.left)") == 31.25
    press(browser, "j")
    assert script(browser, "how.hidden")


def test_one_result_and_some_of_a_run(tmp_path: Path) -> None:
    run = Results([result(query=query) for query in "abc"], backends={"captioner": "x"})
    for given, queries in ((run[0], "a"), (run[1:], "bc")):
        (tmp_path / "page.html").write_text("a page before")
        save_page(given, tmp_path / "page.html")
        source = (tmp_path / "page.html").read_text(encoding="utf-8")
        (held,) = re.findall(r'id="results">(.*?)</script>', source)
        assert [one["query"] for one in json.loads(held)["results"]] == list(queries)
    for wrong in ("results.json", [run], {"a": run[0]}):
        with pytest.raises(InputError, match="save_page: expected a Result, or several"):
            save_page(wrong, tmp_path / "page.html")  # type: ignore[arg-type]


def test_models_and_times(browser: Any, tmp_path: Path) -> None:
    run = Results([result()], backends={"captioner": "tags 1"}, timings={"score": 0.5})
    save_page(run, tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert "captionertags 1" in text(browser, "#models-body")
    assert "score0.50 s" in text(browser, "#models-body")


def test_the_axes_have_room_for_their_labels(show: Show, widen: Callable[[int], None]) -> None:
    browser = show(result(duration=10.0), allowed=NOT_FOUND)
    for width in (1280, 420):
        widen(width)
        box = "((one) => (({left, right}) => [left, right])(one.getBoundingClientRect()))"
        left, right = script(browser, f"{box}(plot)")
        labels = script(browser, "[...axis.children].map((one) => one.textContent)")
        assert (labels[0], labels[-1]) == ("0:00", "0:10")
        ends = script(browser, f"[axis.firstChild, axis.lastChild].map({box})")
        centres = [(start + end) / 2 for start, end in ends]
        assert centres == pytest.approx([left, right], abs=0.6)
        inner, outer = script(browser, f"{box}(timeline)")
        for start, end in [*ends, *script(browser, f"[high, low].map({box})")]:
            assert inner < start < end < outer
        # The scale of the scores stands beside the curve, not on it.
        assert max(end for _, end in script(browser, f"[high, low].map({box})")) <= left


@needs_ffmpeg
def test_cards_have_the_shape_of_the_pictures(show: Show, video: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    ffmpeg("-i", video, "-vf", "scale=24:96", "-t", "1", "-pix_fmt", "yuv420p", long)
    for file, shape in ((video, 2.0), (long, 9 / 16), (None, 16 / 9)):
        browser = show(result(file or "gone.mp4", spans=[(0.2, 0.6)]), allowed=NOT_FOUND)
        across = script(
            browser,
            "((box) => box.width / box.height)"
            "(document.querySelector('.thumb').getBoundingClientRect())",
        )
        assert across == pytest.approx(shape, rel=0.01)


@needs_ffmpeg
def test_key_frames_are_those_of_the_moments(video: Path, tmp_path: Path) -> None:
    found = result(video, spans=[(1.0, 1.5), (2.5, 3.5), (3.9, 3.9)])
    save_page(Results([found, result("gone.mp4")]), tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    (held,) = re.findall(r'id="page">(.*?)</script>', source)
    mine, gone = json.loads(held)["keys"]
    assert [key["time"] for key in mine] == [1.375, 2.625, 3.9]  # best inside, or the middle
    pictures = []
    for key in mine:
        _, _, code = key["picture"].partition("data:image/jpeg;base64,")
        jpeg = np.frombuffer(base64.b64decode(code), np.uint8)
        pictures.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    assert numbers(np.stack(pictures)) == [34, 65, 97]
    assert [key["picture"] for key in gone] == [None, None]
