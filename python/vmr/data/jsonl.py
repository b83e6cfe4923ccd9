"""Annotations of one JSON object a line: QVHighlights, TVSum and YouTube Highlights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from vmr.data.layouts import (
    NOT_DECODED,
    Kind,
    RecordError,
    UnknownLayoutError,
    Windows,
    check_video,
    refuse_nonfinite,
)
from vmr.data.lines import decode_json, read_lines, refuse_repeated_keys
from vmr.data.records import Query, Saliency
from vmr.errors import InputError

# Both QVHighlights and TVSum score clips of this length.
CLIP_SECONDS = 2.0


class Row(msgspec.Struct):
    """A line in the QVHighlights layout; what a file of one's own data has, too."""

    qid: int | str
    query: str
    vid: str
    duration: float
    relevant_windows: Windows | UnsetType | None = UNSET
    relevant_clip_ids: tuple[int, ...] | None = None
    saliency_scores: tuple[tuple[float, ...], ...] | None = None
    domain: str | None = None
    neg_query_ids: tuple[int | str, ...] | None = None
    label: Any = UNSET

    def keys(self) -> int:
        """How many of the keys that it is read for a line had, those that are null left out."""
        return (
            4
            + (self.relevant_windows is not UNSET)
            + (self.relevant_clip_ids is not None)
            + (self.saliency_scores is not None)
            + (self.domain is not None)
            + (self.neg_query_ids is not None)
        )


class _TvsumRow(msgspec.Struct):
    qid: int | str
    query: str
    vid: str
    duration: int
    label: tuple[tuple[float, ...], ...]
    domain: str | None = None
    clip: Any = UNSET

    def keys(self) -> int:
        """As :meth:`Row.keys`."""
        return 5 + (self.domain is not None)


class _YoutubeRow(msgspec.Struct):
    qid: int | str
    query: str
    vid: str
    label: tuple[tuple[float, ...], ...]
    match: tuple[int, ...]
    clip: tuple[tuple[float, float], ...]
    frames: float
    fps: float
    domain: str | None = None

    def keys(self) -> int:
        """As :meth:`Row.keys`."""
        return 8 + (self.domain is not None)


RowT = TypeVar("RowT", Row, _TvsumRow, _YoutubeRow)

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])
ROW = msgspec.json.Decoder(Row)
_TVSUM = msgspec.json.Decoder(_TvsumRow)
_YOUTUBE = msgspec.json.Decoder(_YoutubeRow)


def read_jsonl(path: str | os.PathLike[str]) -> tuple[Kind, list[Query]]:
    """A file in the QVHighlights, TVSum or YouTube Highlights layout, told by its first line."""
    number, first = next(read_lines(path))
    where = f"{path}, line {number}"
    try:
        row = decode_json(first, _OBJECT, where)
    except InputError as error:
        if b'"qid"' in first:
            raise
        raise UnknownLayoutError(str(error)) from None
    kind = _kind_of_line(row, where)
    if kind == "tvsum":
        return kind, _read_rows(path, kind, _TVSUM, _tvsum_query)
    if kind == "youtube-highlights":
        return kind, _read_rows(path, kind, _YOUTUBE, _youtube_query)
    queries = _read_rows(path, kind, ROW, query_of_row)
    _check_windows_are_everywhere(path, queries)
    return kind, queries


def _read_rows(
    path: str | os.PathLike[str],
    kind: Kind,
    decoder: msgspec.json.Decoder[RowT],
    build: Callable[[RowT, int], Query],
) -> list[Query]:
    queries = []
    decode = decoder.decode
    number = 0
    try:
        for number, raw in read_lines(path):
            try:
                row = decode(raw)
            except NOT_DECODED:
                row = _decode_row_slowly(raw, decoder, kind, f"{path}, line {number}")
            # A key has a colon. Where there are more, some are in texts or keys that are not read.
            colons = raw.count(b":")
            if colons != row.keys() and colons != _count_keys(raw):
                refuse_repeated_keys(raw, f"{path}, line {number}")
            queries.append(build(row, number))
    except RecordError as error:
        raise InputError(f"{path}, line {number}: {error}") from None
    key = "saliency_scores" if kind == "qvhighlights" else "label"
    check_annotators(path, queries, lambda query: f"line {query.line}", key)
    return queries


def _count_keys(raw: bytes) -> int | None:
    """How many different keys a line has; None where only the slow way reads it."""
    try:
        return len(_KEYS.decode(raw))
    except NOT_DECODED:
        return None


def check_annotators(
    path: str | os.PathLike[str],
    queries: Iterable[Query],
    place: Callable[[Query], str],
    key: str = "saliency_scores",
) -> None:
    """All clips of a file have as many scores: annotators are compared over the whole of it.

    Raises:
        InputError: For the first query that has another number than the first one with scores.
    """
    first: Query | None = None
    expected = 0
    for query in queries:
        if query.saliency is None or not query.saliency.scores:
            continue
        got = len(query.saliency.scores[0])
        if first is None:
            first, expected = query, got
        elif got != expected:
            raise InputError(
                f"{path}, {place(query)}: {key}: expected {expected} numbers in each row, as in "
                f"{place(first)}, got {got}"
            )


def _decode_row_slowly(
    raw: bytes, decoder: msgspec.json.Decoder[RowT], kind: Kind, where: str
) -> RowT:
    """A line that the quick way refused: says why, or finds that it is right after all."""
    found = _kind_of_line(decode_json(raw, _OBJECT, where), where)
    if found != kind:
        raise InputError(f"{where}: is in the layout of {found}, the first line in that of {kind}")
    row = decode_json(raw, decoder, where)
    refuse_nonfinite(row)
    return row


def _kind_of_line(row: dict[str, Any], where: str) -> Kind:
    if "pred_relevant_windows" in row or "pred_saliency_scores" in row:
        raise UnknownLayoutError(f"{where}: is a prediction; expected annotations (ground truth)")
    missing = [key for key in ("qid", "query", "vid", "duration") if key not in row]
    if missing:
        raise UnknownLayoutError(
            f"{where}: expected the keys qid, query, vid and duration; {', '.join(missing)} "
            f"missing, there are {_some(row)}"
        )
    if "label" not in row:
        return "qvhighlights"
    return "youtube-highlights" if "clip" in row else "tvsum"


def query_of_row(row: Row, line: int) -> Query:
    """A line in the QVHighlights layout as a query.

    Raises:
        RecordError: For values that no file may have.
    """
    if row.label is not UNSET:
        raise RecordError("has a label (TVSum, YouTube Highlights), which the first line has not")
    duration = row.duration
    check_video(row.vid, duration)
    windows = row.relevant_windows
    saliency = None
    if row.relevant_clip_ids is not None or row.saliency_scores is not None:
        saliency = _saliency_of_row(row)
    return Query(
        qid=row.qid,
        video=row.vid,
        text=row.query.strip(),
        duration=duration,
        # A missing key is told from null until the whole file was seen.
        windows=windows,  # type: ignore[arg-type]
        saliency=saliency,
        domain=row.domain,
        neg_query_ids=row.neg_query_ids,
        line=line,
    )


def count_clips(duration: float) -> int:
    """Clips of 2 s that a video has, the last one cut short."""
    return math.ceil(duration / CLIP_SECONDS)


def _saliency_of_row(row: Row) -> Saliency | None:
    clip_ids, scores = row.relevant_clip_ids, row.saliency_scores
    if clip_ids is None:
        raise RecordError("saliency_scores: expected relevant_clip_ids beside them")
    clips = count_clips(row.duration)
    if clip_ids and not 0 <= min(clip_ids) <= max(clip_ids) < clips:
        wrong = next(clip for clip in clip_ids if not 0 <= clip < clips)
        raise RecordError(
            f"relevant_clip_ids: expected 0 to {clips - 1} (clips of 2 s in {row.duration:g} s), "
            f"got {wrong}"
        )
    if scores is None:
        return None
    if len(scores) != len(clip_ids):
        raise RecordError(
            "saliency_scores: expected a row for each of the "
            f"{len(clip_ids)} relevant_clip_ids, got {len(scores)}"
        )
    _require_table("saliency_scores", scores)
    return Saliency(clip_ids, scores, clips, CLIP_SECONDS)


def _check_windows_are_everywhere(path: str | os.PathLike[str], queries: list[Query]) -> None:
    """All lines have relevant_windows (null counts) or none has: a misspelt key loses no windows."""
    absent = [query.windows is UNSET for query in queries]  # type: ignore[comparison-overlap]
    if True not in absent:
        return
    if False in absent:
        line = queries[absent.index(True)].line
        raise InputError(
            f"{path}, line {line}: has no relevant_windows, line {queries[absent.index(False)].line} "
            "has; expected them on all lines (null where there are none) or on none"
        )
    for place, query in enumerate(queries):
        queries[place] = msgspec.structs.replace(query, windows=None)


def _tvsum_query(row: _TvsumRow, line: int) -> Query:
    if row.clip is not UNSET:
        raise RecordError("has clip (YouTube Highlights), which the first line (TVSum) has not")
    if row.duration != len(row.label):
        raise RecordError(
            f"label: expected a row for each of the {row.duration} clips (duration), "
            f"got {len(row.label)}"
        )
    _require_table("label", row.label)
    clips = row.duration
    check_video(row.vid, clips)
    return Query(
        qid=row.qid,
        video=row.vid,
        text=row.query.strip(),
        duration=clips * CLIP_SECONDS,
        saliency=Saliency(tuple(range(clips)), row.label, clips, CLIP_SECONDS),
        domain=row.domain,
        line=line,
    )


def _youtube_query(row: _YoutubeRow, line: int) -> Query:
    clips = len(row.clip)
    if not clips or not len(row.match) == len(row.label) == clips:
        raise RecordError(
            "clip, match and label: expected as many rows in each, "
            f"got {clips}, {len(row.match)} and {len(row.label)}"
        )
    if not (row.frames > 0 and row.fps > 0):
        raise RecordError(f"frames and fps: expected above 0, got {row.frames:g} and {row.fps:g}")
    scores = tuple((1.0 if match == 1 else 0.0,) for match in row.match)
    if scores != row.label:
        raise RecordError("label: expected [1] where match is 1 and [0] elsewhere")
    duration = row.frames / row.fps
    check_video(row.vid, duration)
    # Clips begin at cuts of the video where these are near: the stride is the usual one.
    steps = sorted(later[0] - clip[0] for clip, later in zip(row.clip, row.clip[1:], strict=False))
    stride = steps[len(steps) // 2] if steps else row.clip[0][1] - row.clip[0][0]
    if not stride > 0:
        raise RecordError("clip: expected [first frame, last frame] of clips in their order")
    return Query(
        qid=row.qid,
        video=row.vid,
        text=row.query.strip(),
        duration=duration,
        saliency=Saliency(tuple(range(clips)), scores, clips, stride / row.fps),
        domain=row.domain,
        line=line,
    )


def _require_table(name: str, scores: tuple[tuple[float, ...], ...]) -> None:
    lengths = set(map(len, scores))
    if len(lengths) > 1 or 0 in lengths:
        got = " and ".join(map(str, sorted(lengths)[:3]))
        raise RecordError(f"{name}: expected as many numbers in each row, at least one, got {got}")


def _some(row: dict[str, Any]) -> str:
    keys = ", ".join(key[:30] for key in list(row)[:6])
    return (keys or "none") + (", ..." if len(row) > 6 else "")
