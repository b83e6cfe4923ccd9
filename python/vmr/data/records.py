"""What an annotation file says, in one type whatever the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# Records hold no references back, so the garbage collector need not look into them (gc=False).
class Saliency(msgspec.Struct, frozen=True, gc=False):
    """How well clips of a video fit a query, as annotators said.

    Attributes:
        clip_ids: Annotated clips, counted from 0; every other clip has the score 0.
        scores: One row a clip of ``clip_ids``, one column an annotator (QVHighlights: 3, from 0 to 4;
            TVSum: 20, from 1 to 5; YouTube Highlights: 1, 0 or 1).
        clips: Number of clips of the video.
        clip_seconds: Seconds from the start of one clip to the start of the next.
    """

    clip_ids: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    clips: int
    clip_seconds: float

    def dense(self) -> npt.NDArray[np.float64]:
        """All clips: [clips, annotators], zero where nothing was annotated."""
        import numpy as np

        annotators = len(self.scores[0]) if self.scores else 1
        table = np.zeros((self.clips, annotators))
        if self.clip_ids:
            table[list(self.clip_ids)] = self.scores
        return table


class Query(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sentence about one video, and where it happens.

    Attributes:
        qid: The query's name within its file; unique there.
        video: The video's name, without folder and extension.
        text: The sentence, as annotated but for blanks around it.
        duration: The video's length in seconds.
        windows: Ground truth (start s, end s), as annotated (reversed and late ones too); None where
            the file holds none (a test split, highlights alone).
        saliency: Scores of clips, where the file holds them.
        domain: The topic that the video belongs to (TVSum, YouTube Highlights).
        neg_query_ids: The qids of its negative queries (:class:`vmr.data.negatives.NegativeQueries`),
            where the file names them.
        line: Line of the file that the query was read from, counted from 1; for a file that is one
            JSON object, its place among the queries.
    """

    qid: int | str
    video: str
    text: str
    duration: float
    windows: tuple[tuple[float, float], ...] | None = None
    saliency: Saliency | None = None
    domain: str | None = None
    neg_query_ids: tuple[int | str, ...] | None = None
    line: int = 0


class Place(msgspec.Struct, frozen=True):
    """Where something was found in a file.

    Attributes:
        line: Counted from 1, as :attr:`Query.line`; 0 where there is none.
        qid: The query's.
    """

    line: int
    qid: int | str

    def __str__(self) -> str:
        return f"line {self.line} (qid {self.qid!r})" if self.line else f"qid {self.qid!r}"


def clipped(
    windows: Iterable[tuple[float, float]], duration: float
) -> tuple[tuple[float, float], ...]:
    """Windows in order and within the video; those of no length, or outside, are left out."""
    found = ((max(min(window), 0.0), min(max(window), duration)) for window in windows)
    return tuple((start, end) for start, end in found if start < end)
