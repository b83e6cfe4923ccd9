"""A moment of a video: what every system answers with."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """A span of a video and how well it fits a query.

    Attributes:
        start: First instant, in seconds from the first frame shown.
        end: Last instant, in seconds; not before ``start``.
        score: The higher, the better; comparable within one query only.

    Raises:
        ValueError: For a span that is reversed, negative or not finite.
    """

    start: float
    end: float
    score: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.start <= self.end < math.inf):
            raise ValueError(
                f"Moment: expected 0 <= start <= end in seconds, got start={self.start}, "
                f"end={self.end}"
            )

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    def to_dict(self) -> dict[str, float]:
        """``{"start", "end", "score"}``, as in the JSON output."""
        return {"start": self.start, "end": self.end, "score": self.score}

    def __str__(self) -> str:
        return f"{clock(self.start)} - {clock(self.end)}  score {self.score:.3f}"


def clock(seconds: float) -> str:
    """Seconds as people read them: ``0:07.5``, ``12:30.0``, ``1:02:03.0``."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"
