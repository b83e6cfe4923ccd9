"""What a person does with the page of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

NOT_FOUND = "net::ERR_FILE_NOT_FOUND"
"""What Chromium's console says of a video that is not there."""
Show = Callable[..., Any]


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
