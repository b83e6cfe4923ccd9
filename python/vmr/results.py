"""What a retrieval answers: a Result a query, and a list of them with its conversions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmr.errors import BackendError, InputError
from vmr.moments import Moment, clock

if TYPE_CHECKING:
    import os

    import pandas as pd

JSON_VERSION = 1
"""Version of the JSON written; ``schemas/results-1.json`` describes it."""

_COLUMNS = ("video", "query", "rank", "start", "end", "score", "duration")


@dataclass(frozen=True, slots=True, eq=False)
class FrameScores:
    """A score for every sampled frame: highlight detection.

    Attributes:
        times: [F] seconds from the first frame shown, ascending.
        scores: [F] the higher, the better the frame fits the query.
    """

    times: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one query on one video.

    Attributes:
        video: The video as it was named.
        duration: Its length in seconds.
        query: The sentence.
        moments: Best first; empty where nothing was found.
        frame_scores: A score a sampled frame.
        explanation: What the system did on the way, JSON-able; its keys depend on the system.
    """

    video: str
    duration: float
    query: str
    moments: tuple[Moment, ...]
    frame_scores: FrameScores
    explanation: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict, as in the results of :meth:`Results.to_json`."""
        return {
            "video": self.video,
            "duration": round(self.duration, 3),
            "query": self.query,
            "moments": [moment.to_dict() for moment in self.moments],
            "frame_scores": {
                "times": [round(float(time), 3) for time in self.frame_scores.times],
                "scores": [round(float(score), 6) for score in self.frame_scores.scores],
            },
            "explanation": dict(self.explanation),
        }

    def __str__(self) -> str:
        head = f"{self.query!r} in {self.video} ({clock(self.duration)})"
        if not self.moments:
            return f"{head}\n  no moment found"
        return "\n".join([head, *(f"  {n}. {m}" for n, m in enumerate(self.moments, 1))])

    def __repr__(self) -> str:
        return (
            f"<Result {self.query!r}: {len(self.moments)} moments, "
            f"{len(self.frame_scores.times)} frame scores, {self.duration:.1f} s>"
        )

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the time line with key frames, or without where the video is gone."""
        from vmr.viz.notebook import shown

        return shown([self])


class Results(list[Result]):
    """A list of :class:`Result` with its conversions.

    Attributes:
        backends: Which model played which part, by name.
        timings: Seconds by stage of the run that made them.
    """

    def __init__(
        self,
        results: Sequence[Result] = (),
        *,
        backends: Mapping[str, str] | None = None,
        timings: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(results)
        self.backends = dict(backends or {})
        self.timings = dict(timings or {})

    def __str__(self) -> str:
        return "\n".join(str(result) for result in self)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the time lines of the first results, one below the other."""
        from vmr.viz.notebook import shown

        return shown(self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document as a dict."""
        return {
            "version": JSON_VERSION,
            "backends": self.backends,
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
            "results": [result.to_dict() for result in self],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """The JSON document (version 1): ``{"version", "results": [{"video", ...}]}``."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    def rows(self) -> list[dict[str, str | int | float]]:
        """One dict a moment: video, query, rank (from 1), start, end, score, duration."""
        return [
            {
                "video": result.video,
                "query": result.query,
                "rank": rank,
                "start": moment.start,
                "end": moment.end,
                "score": moment.score,
                "duration": result.duration,
            }
            for result in self
            for rank, moment in enumerate(result.moments, 1)
        ]

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The rows as CSV text; written to ``path`` as well if one is given."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        if path is not None:
            from vmr.files import write_text

            write_text(path, text.getvalue())
        return text.getvalue()

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame.

        Raises:
            BackendError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise BackendError("pandas is not installed: pip install 'vmr[pandas]'") from None

        table: pd.DataFrame = pd.DataFrame(self.rows(), columns=list(_COLUMNS))
        return table


def all_of(results: Result | Sequence[Result], who: str) -> Results:
    """One result, or some of a run, as the results that they are.

    Raises:
        InputError: They are none; ``who`` says to whom they were given.
    """
    if isinstance(results, Results):
        return results
    several = [results] if isinstance(results, Result) else results
    if not isinstance(several, Sequence) or not all(isinstance(one, Result) for one in several):
        raise InputError(
            f"{who}: expected a Result, or several as a retrieval gives them; "
            f"got {type(results).__name__}"
        )
    return Results(several)


def one_of(result: object, who: str) -> Result:
    """The argument of a picture that shows one result.

    Raises:
        InputError: It is something else; ``who`` says to whom it was given.
    """
    if isinstance(result, Result):
        return result
    got = type(result).__name__
    if isinstance(result, Sequence) and not isinstance(result, str):
        got += f" of {len(result)}: give one, as in results[0]"
    raise InputError(f"{who}: expected one Result, got {got}")
