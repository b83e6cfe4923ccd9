"""The moments of one video in the order of time, with what an editor is told of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmr.moments import Moment
from vmr.results import Result


@dataclass(frozen=True, slots=True)
class Item:
    """A moment and where it comes from.

    Attributes:
        query: The sentence, on one line.
        number: Which of the results it belongs to, from 1.
        rank: Its place among the moments of the query, from 1.
        moment: The moment.
    """

    query: str
    number: int
    rank: int
    moment: Moment

    def label(self) -> str:
        """Rank and score as people read them."""
        return f"rank {self.rank}, score {self.moment.score:.3f}"


def in_time(results: Sequence[Result]) -> list[Item]:
    """All moments by start, then end; where both are the same, as they came."""
    items = [
        Item(one_line(result.query), number, rank, moment)
        for number, result in enumerate(results, 1)
        for rank, moment in enumerate(result.moments, 1)
    ]
    return sorted(items, key=lambda item: (item.moment.start, item.moment.end))


def one_line(text: str) -> str:
    """A text without line breaks and other control characters, which would end a cue or a comment."""
    kept = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return " ".join(kept.split())
