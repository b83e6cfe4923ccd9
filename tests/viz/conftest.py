"""A real browser, and the page of results in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.videos import H264, numbered
from tests.viz.browsing import Show, look
from vmr.results import Result, Results
from vmr.viz import save_page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 25 frames a second, as browsers play it."""
    return numbered(tmp_path_factory.mktemp("videos") / "plain.mp4", 100, *H264)
