"""Results to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.videos import numbered
from vmr.moments import Moment
from vmr.results import FrameScores, Result, Results

MakeResult = Callable[..., Result]

KEYS = 25  # frames from one key frame to the next
SHORT = (
    "-c:v", "libx264", "-preset", "ultrafast", "-x264-params",
    f"bframes=3:b-adapt=0:keyint={KEYS}:scenecut=0",
)  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the videos are."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def plain(folder: Path) -> Path:
    """6 s at 25 frames a second, nothing odd about it."""
    return numbered(folder / "plain.mp4", 150, *SHORT)


@pytest.fixture(scope="session")
def make_result() -> MakeResult:
    """A result of a video, a query and (start, end) pairs, best first; scores fall from 0.9."""

    def make(video: str | Path, query: str, *spans: tuple[float, float]) -> Result:
        moments = tuple(Moment(*span, 0.9 - 0.1 * n) for n, span in enumerate(spans))
        scores = FrameScores(np.array([0.5]), np.array([0.25]))
        return Result(str(video), 12.0, query, moments, scores)

    return make


@pytest.fixture
def results(make_result: MakeResult) -> Results:
    """Two queries on one video and one on another; neither is there."""
    return Results(
        [
            make_result("in/bikes.mp4", "a dog", (5.2, 7.0), (1.0, 2.0)),
            make_result("in/bikes.mp4", "a cat", (5.2, 6.0)),
            make_result("in/cars.mkv", "a dog", (0.0, 0.5)),
        ],
        backends={"captioner": "x"},
    )
