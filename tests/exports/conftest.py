"""Results to export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vmr.moments import Moment
from vmr.results import FrameScores, Result, Results

MakeResult = Callable[..., Result]


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
