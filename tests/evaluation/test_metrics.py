"""The C++ metrics against the NumPy reference, on anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmr import _core
from vmr.reference import metrics as reference

Floats = npt.NDArray[np.float64]

# Few values: equal scores, equal overlaps and windows of no length come up often.
BOUNDS = st.sampled_from([0.0, 1.0, 2.0, 2.5, 4.0, 6.0, 10.0, 30.0])
ODD_BOUNDS = st.one_of(BOUNDS, st.sampled_from([np.nan, np.inf, -np.inf, -3.0]))
SCORES = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0])
THRESHOLDS = np.array([0.3, 0.5, 0.55, 0.7, 0.95])
TOPS = np.array([1, 5, 0])


def window(bounds: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(bounds, bounds)


def moments(bounds: st.SearchStrategy[float]) -> st.SearchStrategy[list[Any]]:
    predictions = st.lists(st.tuples(bounds, bounds, SCORES), max_size=13)
    return st.lists(st.tuples(predictions, st.lists(window(bounds), max_size=5)), max_size=4)


def rows(lists: list[Any], columns: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    flat = [number for rows in lists for row in rows for number in row]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return np.array(flat, dtype=np.float64).reshape(-1, columns), offsets


RANGES = [None, (0.0, 10.0), (2.0, 4.0)]


@settings(max_examples=150, deadline=None)
@given(
    queries=st.one_of(moments(BOUNDS), moments(ODD_BOUNDS)),
    length_range=st.sampled_from(RANGES),
    as_published=st.booleans(),
    most=st.sampled_from([0, 1, 10]),
)
def test_moments_equal_the_reference(
    queries: list[Any], length_range: tuple[float, float] | None, as_published: bool, most: int
) -> None:
    predictions, offsets = rows([prediction for prediction, _ in queries], 3)
    truths, truth_offsets = rows([truth for _, truth in queries], 2)
    packed = (predictions, offsets, truths, truth_offsets)
    areas = _core.average_precisions(
        *packed,
        THRESHOLDS,
        most_predictions=most,
        length_range=length_range,
        as_published=as_published,
        threads=1,
    )
    overlaps = _core.best_overlaps(
        *packed, TOPS, length_range=length_range, as_published=as_published, threads=1
    )
    for query in range(len(queries)):
        own = predictions[offsets[query] : offsets[query + 1]]
        with np.errstate(all="ignore"):
            truth = reference.in_range(
                truths[truth_offsets[query] : truth_offsets[query + 1]], length_range
            )
            expected = reference.average_precision(own, truth, THRESHOLDS, most, as_published)
            best = [reference.best_overlap(own, truth, int(top), as_published) for top in TOPS]
        np.testing.assert_allclose(areas[query], expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(overlaps[query], best)


@settings(max_examples=150, deadline=None)
@given(
    videos=st.lists(
        st.tuples(
            st.lists(SCORES, max_size=14),
            st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=12),
        ),
        max_size=4,
    ),
    top=st.sampled_from([0, 5]),
    above_median=st.booleans(),
)
def test_highlights_equal_the_reference(videos: list[Any], top: int, above_median: bool) -> None:
    scores, offsets = rows([[(score,) for score in scores] for scores, _ in videos], 1)
    labels, label_offsets = rows([labels for _, labels in videos], 3)
    packed = (scores[:, 0].copy(), offsets, labels, label_offsets)
    levels = np.array([2.0, 3.0, 4.0])
    areas, hits = _core.highlight_precisions(*packed, levels, threads=1)
    ranked = _core.ranked_precisions(*packed, top=top, above_median=above_median, threads=1)
    for video in range(len(videos)):
        own = packed[0][offsets[video] : offsets[video + 1]]
        truth = labels[label_offsets[video] : label_offsets[video + 1]]
        expected = [reference.highlight_precision(own, truth, level) for level in levels]
        np.testing.assert_allclose(areas[video], [area for area, _ in expected], atol=1e-12)
        np.testing.assert_array_equal(hits[video], [hit for _, hit in expected])
        np.testing.assert_allclose(
            ranked[video], reference.ranked_precision(own, truth, top, above_median), atol=1e-12
        )


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    queries = 1000
    counts = rng.integers(0, 12, queries)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = rng.uniform(0, 50, offsets[-1])
    predictions = np.stack(
        [starts, starts + rng.uniform(0, 20, offsets[-1]), rng.uniform(size=offsets[-1])], axis=1
    )
    truth_starts = rng.uniform(0, 50, queries)
    truths = np.stack([truth_starts, truth_starts + 10], axis=1)
    packed = (predictions, offsets, truths, np.arange(queries + 1))
    how: dict[str, Any] = {"length_range": None, "as_published": False}
    labels = rng.integers(0, 5, (offsets[-1], 3)).astype(np.float64)
    highlights = (predictions[:, 2].copy(), offsets, labels, offsets)

    def scored(threads: int) -> list[Floats]:
        return [
            _core.average_precisions(
                *packed, THRESHOLDS, most_predictions=10, **how, threads=threads
            ),
            _core.best_overlaps(*packed, TOPS, **how, threads=threads),
            *_core.highlight_precisions(*highlights, np.array([2.0]), threads=threads),
            _core.ranked_precisions(*highlights, top=5, above_median=True, threads=threads),
        ]

    for one, many in zip(scored(1), scored(5), strict=True):
        np.testing.assert_array_equal(one, many)


GOOD: dict[str, Any] = {
    "predictions": np.zeros((2, 3)),
    "prediction_offsets": np.array([0, 2]),
    "truths": np.zeros((1, 2)),
    "truth_offsets": np.array([0, 1]),
    "tops": np.array([1]),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"predictions": np.zeros((2, 2))}, r"predictions must be \[N, 3\], got \[2, 2\]"),
        ({"truths": np.zeros(2)}, r"truths must be \[N, 2\], got \[2\]"),
        ({"prediction_offsets": np.array([0, 3])}, "must run from 0 to 2 without going back"),
        ({"prediction_offsets": np.array([0, 1, 2])}, r"predictions' offsets must be \[2\], got"),
        ({"prediction_offsets": np.array([-1, 2])}, "must run from 0 to 2"),
        ({"truth_offsets": np.zeros((0,), dtype=np.int64)}, r"offsets must be \[Q \+ 1\], got"),
        ({"tops": np.array([-1])}, "tops must not be negative"),
    ],
)
def test_bad_arrays_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^best_overlaps: .*{message}"):
        _core.best_overlaps(**{**GOOD, **wrong}, length_range=None, as_published=False, threads=1)


def test_offsets_that_go_back_are_refused() -> None:
    with pytest.raises(ValueError, match="without going back"):
        _core.ranked_precisions(
            np.zeros(2),
            np.array([0, 2, 1, 2]),
            np.zeros((2, 1)),
            np.array([0, 1, 1, 2]),
            top=0,
            above_median=True,
            threads=1,
        )


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.best_overlaps(
            **{**GOOD, "truths": np.zeros((1, 2), dtype=np.float32)},
            length_range=None,
            as_published=False,
            threads=1,
        )
