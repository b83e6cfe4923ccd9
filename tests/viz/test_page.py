"""The page of a run in a real browser: playing, and what may go wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.videos import MPEG2, ffmpeg, needs_ffmpeg, numbered
from tests.viz.browsing import (
    NOT_FOUND,
    Show,
    click,
    play_to_its_end,
    press,
    ready,
    script,
    text,
    until,
)
from tests.viz.samples import result
from vmr.errors import CacheError
from vmr.results import Results
from vmr.viz import save_page

pytestmark = pytest.mark.xdist_group("browser")


# ---- playing ----------------------------------------------------------------------------------------


@needs_ffmpeg
def test_a_click_plays_a_moment_to_its_end(show: Show, video: Path) -> None:
    browser = show(result(video, spans=[(2.0, 3.0), (0.5, 1.1)]))
    for selector in ("#moments li:nth-child(2) button", "#lanes :nth-child(2)"):
        first, last = play_to_its_end(browser, lambda it=selector: click(browser, it))  # type: ignore[misc]
        assert first == pytest.approx(0.5, abs=0.2)
        assert last == pytest.approx(1.1, abs=0.001)
        assert script(browser, "document.querySelectorAll('#moments [aria-current]').length") == 1
    # What is played on from there is not stopped again.
    press(browser, " ")
    until(browser, "video.currentTime > 1.4")


@needs_ffmpeg
def test_keys(show: Show, video: Path) -> None:
    others = [result(video, f"query {number}", [(0.0, 0.4)]) for number in (2, 3)]
    browser = show(result(video, "query 1", [(2.0, 3.0), (0.5, 0.9)]), *others)
    ready(browser)
    assert script(browser, "video.currentTime") == 2.0  # where the best moment starts
    first, last = play_to_its_end(browser, lambda: press(browser, "2"))
    assert (first, last) == pytest.approx((0.5, 0.9), abs=0.2)
    press(browser, "9")  # there is no ninth
    assert script(browser, "video.paused")
    press(browser, " ")
    until(browser, "!video.paused")
    press(browser, " ")
    until(browser, "video.paused")
    press(browser, "k")  # the first has none before it
    press(browser, "jj")
    assert text(browser, "#query") == "query 3"
    press(browser, "k")
    assert text(browser, "#query") == "query 2"
    ready(browser)
    press(browser, "\ue014")  # arrow to the right
    until(browser, "video.currentTime === 1")
    press(browser, "\ue012")  # and to the left
    until(browser, "video.currentTime === 0")
    press(browser, "/")
    press(browser, "1 jk")  # typed, not obeyed
    assert script(browser, "document.getElementById('filter').value") == "1 jk"
    assert text(browser, "#query") == "query 2"
    assert script(browser, "video.paused")
    for key in ("1", "9", "space", "j", "k", "/"):
        assert f"<kbd>{key}</kbd>" in script(browser, "document.getElementById('keys').innerHTML")


@needs_ffmpeg
def test_the_time_line_seeks_and_the_playhead_follows(show: Show, video: Path) -> None:
    browser = show(result(video, spans=[(1.0, 2.5)]))
    ready(browser)
    browser.execute_script(
        """const plot = document.getElementById("plot"), box = plot.getBoundingClientRect();
        const at = {clientX: box.left + box.width * 0.75, clientY: box.top + 5, pointerId: 1};
        plot.setPointerCapture = () => {};
        plot.dispatchEvent(new PointerEvent("pointerdown", {...at, bubbles: true}));"""
    )
    until(browser, "Math.abs(video.currentTime - 3) < 0.01 && !video.seeking")
    head = "document.getElementById('playhead').style.left"
    assert script(browser, head) == "75%"
    assert text(browser, "#now") == "0:03.0 of 0:04.0"
    slider = "document.getElementById('plot')"
    assert script(browser, f"{slider}.getAttribute('aria-valuenow')") == "3.0"
    press(browser, " ")
    until(browser, f"parseFloat({head}) > 80")
    press(browser, " ")
    # A step of one's own ends the moment's hold: it is played past its end.
    press(browser, "1")
    until(browser, "!video.paused && video.currentTime >= 1")
    press(browser, "\ue014")
    until(browser, "video.currentTime > 2.7")


@needs_ffmpeg
def test_the_playhead_moves_once_a_displayed_frame(show: Show, video: Path) -> None:
    browser = show(result(video))
    ready(browser)
    browser.execute_script(
        """window.calls = {};  // of a frame, by its time
        window.updates = 0;
        const ask = window.requestAnimationFrame;
        window.requestAnimationFrame = (act) => ask((time) => {
          calls[time] = (calls[time] ?? 0) + 1;
          act(time);
        });
        video.addEventListener("timeupdate", () => updates++);
        video.play();"""
    )
    until(browser, "updates >= 5 && Object.keys(calls).length > 8")
    assert script(browser, "Math.max(...Object.values(calls))") <= 2


def test_a_click_on_the_plot_by_the_mouse(show: Show) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser = show(result(), allowed=NOT_FOUND)
    until(browser, "video.hidden")
    plot = browser.find_element(By.ID, "plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(browser).move_to_element(plot).click().perform()
    assert script(browser, "parseFloat(playhead.style.left)") == pytest.approx(50, abs=0.3)


# ---- what may go wrong ------------------------------------------------------------------------------


@needs_ffmpeg
def test_odd_names_and_another_folder(show: Show, video: Path, tmp_path: Path) -> None:
    odd = tmp_path / "here: 1" / "a b#c%20é?'\"&.mp4"
    odd.parent.mkdir()
    shutil.copy(video, odd)
    (tmp_path / "pages" / "of mine").mkdir(parents=True)
    browser = show(result(odd), page=tmp_path / "pages" / "of mine" / "page #1?.html")
    ready(browser)
    assert script(browser, "video.videoWidth") == 192
    browser = show(result(odd), page=odd.parent / "page.html")
    ready(browser)
    assert odd.name in text(browser, "#where")


def test_a_missing_video_is_told(show: Show, tmp_path: Path) -> None:
    browser = show(result(tmp_path / "not here.mp4"), allowed=NOT_FOUND)
    until(browser, "video.hidden && !trouble.hidden")
    assert text(browser, "#trouble-title") == "not here.mp4 was not found"
    assert "./not here.mp4" in text(browser, "#trouble-text")
    assert script(browser, "document.getElementById('command').hidden")
    click(browser, "#moments li:nth-child(2) button")  # it still shows where it lies
    assert script(browser, "parseFloat(playhead.style.left)") == pytest.approx(2.625 / 4 * 100)
    assert "no picture" in text(browser, "#moments")


@needs_ffmpeg
def test_a_video_that_browsers_do_not_play(show: Show, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    odd = tmp_path / "it's $HOME.avi"
    numbered(odd, 100, "-c:v", "mpeg4")
    browser = show(result(odd))
    until(browser, "video.hidden && !trouble.hidden")
    assert text(browser, "#trouble-title") == f"This browser cannot play {odd.name}"
    assert "H.264 in MP4" in text(browser, "#trouble-text")
    until(browser, "still.naturalWidth > 0")  # its key frame stands in for it
    click(browser, "#moments li:nth-child(2) button")
    assert script(browser, "parseFloat(playhead.style.left)") == pytest.approx(2.625 / 4 * 100)
    second = "document.querySelector('#moments li:nth-child(2) img').src"
    assert script(browser, f"still.src === {second}")
    # What the page advises works.
    command = text(browser, "#command")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "it's $HOME.h264.mp4"))
    ready(browser)
    assert script(browser, "trouble.hidden && !video.hidden && video.videoWidth === 192")
    _, last = play_to_its_end(browser, lambda: press(browser, "1"))
    assert last == pytest.approx(1.5, abs=0.001)


@needs_ffmpeg
def test_sound_without_pictures_is_no_video(show: Show, tmp_path: Path) -> None:
    plain = numbered(tmp_path / "plain.mpg", 50, *MPEG2)
    tone = ("-f", "lavfi", "-i", "sine=d=2", "-c:v", "copy", "-c:a", "aac")
    ffmpeg("-i", plain, *tone, tmp_path / "sound.mp4")
    browser = show(result(tmp_path / "sound.mp4", duration=2.0, spans=[(0.5, 1.0)]))
    until(browser, "video.hidden && !trouble.hidden")
    assert text(browser, "#trouble-title") == "This browser cannot play sound.mp4"


EVIL = [
    "</script><script>window.evil = 1</script>",
    "<!-- <script> a comment that never ends",
    "<img src=x onerror='window.evil = 2'>\"'`${evil}",
    "line\u2028separator\u2029and \u0000\u0007 controls & &amp; \\u003c \\",
    "אדם פותח דלת 出租车 😀 \udce9",
]


def test_a_query_cannot_break_the_page(show: Show) -> None:
    names = [query.replace("/", "").replace("\0", "") for query in EVIL]
    results = []
    for name, query in zip(names, EVIL, strict=True):
        told: dict[str, Any] = {
            "simplified": [query],
            "dropped_rewrites": [{"text": query, "reason": query}],
            "query_aware_captions": [{"time": 1.25, "caption": query}],
            query: query,
        }
        results.append(result(f"{name}.mp4", query, explanation=told))
    browser = show(*results, allowed=NOT_FOUND)
    for name, query in zip(names, EVIL, strict=True):
        until(browser, "!trouble.hidden")
        assert name in json.loads(script(browser, "JSON.stringify(trouble.textContent)"))
        # As JSON, since the driver cannot carry a lone surrogate.
        shown = script(browser, "JSON.stringify(document.getElementById('query').textContent)")
        assert json.loads(shown) == query
        assert script(browser, "window.evil === undefined")
        assert script(browser, "document.querySelectorAll('script').length") == 3
        assert script(browser, "document.images.length") == 1  # the one of the page itself
        assert script(browser, "document.querySelectorAll('#how-body li').length") == 2
        press(browser, "j")


def test_the_page_holds_the_results(tmp_path: Path) -> None:
    results = Results(
        [result(query=query) for query in EVIL], backends={"captioner": "<x>"}, timings={"a": 0.5}
    )
    save_page(results, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    (held,) = re.findall(r'<script type="application/json" id="results">(.*?)</script>', source)
    assert json.loads(held) == results.to_dict()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="could not be written"):
        save_page(Results(), tmp_path / "none" / "page.html")
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(ValueError, match="Out of range"):
        save_page(Results([result(explanation={"x": np.nan})]), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "before"


# ---- no network -------------------------------------------------------------------------------------


@needs_ffmpeg
def test_nothing_is_asked_of_a_network(show: Show, browser: Any, video: Path) -> None:
    browser.get_log("performance")  # of the pages before
    show(result(video))
    ready(browser)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.endswith("plain.mp4") for url in asked)
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_the_policy_forbids_the_network(show: Show) -> None:
    browser = show(result(), allowed="")
    blocked = browser.execute_async_script(
        """const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", (event) => {
          seen.push(event.effectiveDirective);
          if (seen.length === 3) done(seen.sort());
        });
        document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/x.png"}));
        fetch("http://127.0.0.1:9/").catch(() => {});
        document.body.append(Object.assign(document.createElement("script"), {text: "evil = 1"}));
        setTimeout(() => done(seen), 3000);"""
    )
    assert blocked == ["connect-src", "img-src", "script-src-elem"]
