"""Differences of models that were trained with several seeds: closed forms, and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vmr.data.records import Query
from vmr.errors import InputError
from vmr.evaluation import Evaluation, Prediction, evaluate
from vmr.evaluation.statistics import SeedDifference, seed_differences

TRUTH = [
    Query(qid=number, video=f"v{number // 2}", text="x", duration=100.0, windows=((0.0, 50.0),))
    for number in range(60)
]


def answered(overlaps: Sequence[float]) -> Evaluation:
    """An evaluation whose answers overlap the truth by given IoUs."""
    records = [
        Prediction(qid=query.qid, pred_relevant_windows=[(0.0, 50 * overlap, 1.0)])
        for query, overlap in zip(TRUTH, overlaps, strict=True)
    ]
    return evaluate(records, TRUTH)


def difference(gains: np.ndarray[Any, Any], videos: Sequence[int]) -> SeedDifference:
    """Of two sides that are ``gains`` [seeds, queries] apart."""
    queries = [SimpleNamespace(qid=number, video=video) for number, video in enumerate(videos)]

    def side(values: np.ndarray[Any, Any]) -> Any:
        return SimpleNamespace(
            protocol="p", queries=queries, headline={"key": "m"}, measures={"m": values}, unit=1.0
        )

    (found,) = seed_differences([side(0 * row) for row in gains], [side(row) for row in gains])
    return found


def test_the_same_answers_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    runs = [answered(rng.uniform(0.1, 1, len(TRUTH)).tolist()) for _ in range(3)]
    for found in seed_differences(runs, runs):
        assert found.first == found.second
        assert found.by_seed == (0, 0, 0)
        assert (found.interval.low, found.interval.high) == (0, 0)


def test_what_only_seeds_change() -> None:
    # mAP of each query: 0, and 20, 50 or 90%.
    nothing = [answered([0.1] * len(TRUTH))] * 3
    runs = [answered([overlap] * len(TRUTH)) for overlap in (0.57, 0.72, 0.92)]
    (found,) = (one for one in seed_differences(nothing, runs) if one.key == "MR-full-mAP")
    assert found.by_seed == pytest.approx((20, 50, 90))
    assert (found.first, found.second) == pytest.approx((0, 160 / 3))
    # Student's t of two degrees of freedom, as tables have it.
    half = 4.302653 * np.std((20, 50, 90), ddof=1) / np.sqrt(3)
    ends = (160 / 3 - half, 160 / 3 + half)
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, rel=1e-6)


def test_what_only_videos_change() -> None:
    # Both queries of a video are right or wrong together: a share of 30 videos.
    rng = np.random.default_rng(3)
    right = np.repeat(rng.permutation(30) < 15, 2)
    runs = [answered(np.where(right, 1.0, 0.1).tolist())] * 4
    found = seed_differences([answered([0.1] * len(TRUTH))] * 4, runs)
    (one,) = (one for one in found if one.key == "MR-full-R1@0.5")
    half = 2.045230 * 100 * np.sqrt(0.25 / 29)
    assert (one.interval.low, one.interval.high) == pytest.approx((50 - half, 50 + half), rel=1e-6)


def test_videos_of_several_sizes_are_a_ratio() -> None:
    # Two videos, of one query and of three: the mean 0.25 leaves 0.75 and -0.75.
    found = difference(np.array([[1.0, 0, 0, 0]] * 3), [0, 1, 1, 1])
    half = 12.706205 * np.sqrt(2 * 2 * 0.75**2 / 4**2)
    assert found.second - found.first == 0.25
    assert (found.interval.low, found.interval.high) == pytest.approx((0.25 - half, 0.25 + half))


@pytest.mark.parametrize(
    ("of_videos", "of_seeds", "of_queries"),
    [(1, 0, 0), (1, 0, 1), (0, 1, 0), (0.3, 1, 1), (1, 0.3, 0.5)],
)
def test_the_intervals_cover_the_truth(
    of_videos: float, of_seeds: float, of_queries: float
) -> None:
    """Where videos, where seeds, and where both make the difference."""
    rng = np.random.default_rng(5)
    trials, seeds, videos = 400, 3, 25
    covered = 0
    for _ in range(trials):
        place = np.repeat(np.arange(videos), rng.integers(1, 5, videos))
        gains = (
            of_videos * rng.normal(size=videos)[place]
            + of_seeds * rng.normal(size=(seeds, 1))
            + of_queries * rng.normal(size=(seeds, len(place)))
        )
        interval = difference(gains, place.tolist()).interval
        covered += interval.low <= 0 <= interval.high
    assert 0.9 <= covered / trials <= 0.99


def test_a_shift_is_found_beneath_noise() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.7, len(TRUTH))
    noise = rng.normal(0, 0.03, (2, 3, len(TRUTH)))
    first, second = (
        [answered(np.clip(base + shift + row, 0.01, 1).tolist()) for row in rows]
        for shift, rows in zip((0.0, 0.2), noise, strict=True)
    )
    (found,) = (one for one in seed_differences(first, second) if one.key == "MR-full-mAP")
    assert found.interval.low > 0
    assert found.interval.low < found.second - found.first < found.interval.high


def test_one_video_has_no_interval() -> None:
    one = evaluate([Prediction(qid=0, pred_relevant_windows=[(0.0, 1.0, 1.0)])], TRUTH[:1])
    assert seed_differences([one] * 3, [one] * 3) == []


def test_other_queries_or_seeds_are_refused() -> None:
    runs = [answered([0.5] * len(TRUTH))] * 3
    with pytest.raises(
        InputError, match="as many seeds on both sides, and two or more, got 3 and 2"
    ):
        seed_differences(runs, runs[:2])
    with pytest.raises(InputError, match="got 1 and 1"):
        seed_differences(runs[:1], runs[:1])
    fewer = evaluate([Prediction(qid=0, pred_relevant_windows=[(0.0, 1.0, 1.0)])], TRUTH[:1])
    with pytest.raises(InputError, match="on the same queries"):
        seed_differences([*runs[:2], fewer], [*runs[:2], fewer])
