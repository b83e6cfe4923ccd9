"""The page of a run, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.videos import H264, MPEG2, ffmpeg, needs_ffmpeg, numbered
from tests.viz.samples import result
from vmr.errors import CacheError
from vmr.results import Result, Results
from vmr.viz import save_page

pytestmark = pytest.mark.xdist_group("browser")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NOT_FOUND = "net::ERR_FILE_NOT_FOUND"
Show = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window and without a network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium or chromedriver (Debian: apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    yield driver
    driver.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Writes the page of results and opens it; in the end the browser must not have complained."""
    complaints: list[str] = []

    def show(*results: Result, page: Path | None = None, allowed: str | None = None) -> Any:
        page = page or tmp_path / "page.html"
        save_page(Results(results), page)
        browser.get(page.as_uri())
        if allowed is not None:
            complaints.append(allowed)
        return browser

    look(browser, "light")
    browser.get_log("browser")
    yield show
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in said if not any(ok in text for ok in complaints)] == []
    browser.execute_script("localStorage.clear()")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 25 frames a second, as browsers play it."""
    return numbered(tmp_path_factory.mktemp("videos") / "plain.mp4", 100, *H264)


def look(browser: Any, theme: str) -> None:
    """What the system prefers."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def until(browser: Any, condition: str, seconds: float = 8.0) -> None:
    """Waits until a JavaScript expression is true."""
    end = time.monotonic() + seconds
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < end, f"never true: {condition}"
        time.sleep(0.02)


def script(browser: Any, expression: str) -> Any:
    return browser.execute_script(f"return {expression}")


def text(browser: Any, selector: str) -> str:
    """What stands there, shown or folded away."""
    found = script(browser, f"document.querySelector({selector!r}).textContent")
    assert isinstance(found, str)
    return found


def click(browser: Any, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, selector).click()


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(keys).perform()


def ready(browser: Any) -> None:
    until(browser, "video.readyState >= 2 && !video.seeking")


def play_to_its_end(browser: Any, act: Callable[[], None]) -> tuple[float, float]:
    """The first and the last time shown between an act that starts playing and the pause."""
    ready(browser)
    browser.execute_script(
        """window.shown = [];
        const watch = () => {
          if (!video.paused && !video.seeking) shown.push(video.currentTime);
          requestAnimationFrame(watch);
        };
        watch();"""
    )
    act()
    until(browser, "shown.length > 3 && video.paused && !video.seeking")
    first, last = script(browser, "[shown[0], video.currentTime]")
    return float(first), float(last)


# ---- playing ----------------------------------------------------------------------------------------


@needs_ffmpeg
@pytest.mark.parametrize("selector", ["#moments li:nth-child(2) button", "#lanes :nth-child(2)"])
def test_a_click_plays_a_moment_to_its_end(show: Show, video: Path, selector: str) -> None:
    browser = show(result(video, spans=[(2.0, 3.0), (0.5, 1.1)]))
    first, last = play_to_its_end(browser, lambda: click(browser, selector))
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


@pytest.mark.parametrize("query", EVIL)
def test_a_query_cannot_break_the_page(show: Show, query: str) -> None:
    told: dict[str, Any] = {
        "simplified": [query],
        "dropped_rewrites": [{"text": query, "reason": query}],
        "query_aware_captions": [{"time": 1.25, "caption": query}],
        query: query,
    }
    name = query.replace("/", "").replace("\0", "")
    browser = show(result(f"{name}.mp4", query, explanation=told), allowed=NOT_FOUND)
    until(browser, "!trouble.hidden")
    assert name in json.loads(script(browser, "JSON.stringify(trouble.textContent)"))
    # As JSON, since the driver cannot carry a lone surrogate.
    shown = script(browser, "JSON.stringify(document.getElementById('query').textContent)")
    assert json.loads(shown) == query
    assert script(browser, "window.evil === undefined")
    assert script(browser, "document.querySelectorAll('script').length") == 3
    assert script(browser, "document.images.length") == 1  # the one of the page itself
    assert script(browser, "document.querySelectorAll('#how-body li').length") == 2


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


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_runs_over_the_side(show: Show, browser: Any, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        long = "one_very_long_word_without_a_space_" * 8
        show(result(f"{long[:200]}.mp4", long, [(0, 1)] * 9), allowed=NOT_FOUND)
        until(browser, "!trouble.hidden")
        assert script(browser, "document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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
    assert labels[-1] in ("50:00", "45:00", "55:00")


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
        "simplified": ["a field"],
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
    click(browser, "#how-body th button")
    assert script(browser, "parseFloat(playhead.style.left)") == 31.25
    press(browser, "j")
    assert script(browser, "how.hidden")


def test_models_and_times(browser: Any, tmp_path: Path) -> None:
    run = Results([result()], backends={"captioner": "tags 1"}, timings={"score": 0.5})
    save_page(run, tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert "captionertags 1" in text(browser, "#models-body")
    assert "score0.50 s" in text(browser, "#models-body")


@needs_ffmpeg
def test_key_frames_are_those_of_the_moments(video: Path, tmp_path: Path) -> None:
    import base64

    import cv2

    from tests.videos import numbers

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
