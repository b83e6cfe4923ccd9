"""Results and their conversions."""

from __future__ import annotations

import csv
import io
import json
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from vmr.errors import CacheError
from vmr.files import write_text
from vmr.moments import Moment, clock
from vmr.results import FrameScores, Result, Results


@pytest.fixture
def results() -> Results:
    scores = FrameScores(np.array([0.5, 1.5]), np.array([0.25, 0.75]))
    found = (Moment(1.0, 2.0, 0.7), Moment(0.0, 0.5, 0.2))
    return Results(
        [
            Result("a, b.mp4", 2.0, 'say "hello"', found, scores),
            Result("c.mp4", 2.0, "nothing", (), scores),
        ],
        backends={"captioner": "x"},
        timings={"score": 0.5},
    )


def test_json_fits_its_schema(results: Results) -> None:
    schema = json.loads((resources.files("vmr") / "schemas" / "results-1.json").read_text())
    document = json.loads(results.to_json())
    jsonschema.validate(document, schema)
    assert document["version"] == 1
    assert document["results"][0]["moments"][0] == {"start": 1.0, "end": 2.0, "score": 0.7}
    assert document["results"][0]["frame_scores"] == {"times": [0.5, 1.5], "scores": [0.25, 0.75]}


def test_csv_reads_back(results: Results, tmp_path: Path) -> None:
    text = results.to_csv(tmp_path / "moments.csv")
    assert (tmp_path / "moments.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert rows[0]["video"] == "a, b.mp4"
    assert rows[0]["query"] == 'say "hello"'
    assert float(rows[1]["end"]) == 0.5


def test_pandas(results: Results) -> None:
    frame = results.to_pandas()
    assert list(frame["score"]) == [0.7, 0.2]
    assert list(Results().to_pandas().columns) == list(frame.columns)


def test_prints_well(results: Results) -> None:
    assert str(results[0]).splitlines() == [
        "'say \"hello\"' in a, b.mp4 (0:02.0)",
        "  1. 0:01.0 - 0:02.0  score 0.700",
        "  2. 0:00.0 - 0:00.5  score 0.200",
    ]
    assert "no moment found" in str(results[1])
    assert repr(results[0]) == "<Result 'say \"hello\"': 2 moments, 2 frame scores, 2.0 s>"


@pytest.mark.parametrize(
    ("start", "end"), [(2, 1), (-1, 1), (0, float("inf")), (float("nan"), 1), (0, float("nan"))]
)
def test_a_moment_is_a_span(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= start <= end"):
        Moment(start, end, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (7.46, "0:07.5"), (59.96, "1:00.0"), (3723.0, "1:02:03.0")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_writing_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="could not be written"):
        write_text(tmp_path / "none" / "x.json", "{}")
