"""Annotation files of the field, whatever their layout, as queries; and back as QVHighlights jsonl."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import msgspec

from vmr.data.by_video import read_lengths, read_txt, read_videos
from vmr.data.jsonl import (
    CLIP_SECONDS,
    ROW,
    check_annotators,
    count_clips,
    query_of_row,
    read_jsonl,
)
from vmr.data.layouts import BY_VIDEO, NOT_DECODED, Kind, RecordError, UnknownLayoutError
from vmr.data.lines import LONGEST_LINE, collector_paused, read_document, read_start
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning
from vmr.files import atomic_path

# An object whose first value is an object (or that is empty) holds videos, if it is no record by itself.
_VIDEOS = re.compile(rb'\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:\s*\{)')
_TXT = re.compile(rb"[^\s#][^\n]*##")
_START = 2**16
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_LAYOUTS = (
    "expected JSON lines with qid, query, vid and duration; a JSON object of videos with timestamps "
    "and sentences; or Charades-STA's VIDEO START END##SENTENCE"
)


class Queries(Sequence[Query]):
    """The queries of one file, in its order; immutable."""

    __slots__ = ("_by_qid", "_kind", "_path", "_queries")

    def __init__(self, path: str | os.PathLike[str], kind: Kind, queries: Iterable[Query]) -> None:
        """Takes the queries.

        Raises:
            InputError: Where two have the same qid.
        """
        self._path = Path(path)
        self._kind = kind
        self._queries = tuple(queries)
        place = "query" if kind in BY_VIDEO else "line"
        self._by_qid = MappingProxyType(_by_qid(self._queries, self._path, place))

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def kind(self) -> Kind:
        """Name of the layout that the file was recognised to have."""
        return self._kind

    @property
    def by_qid(self) -> Mapping[int | str, Query]:
        """The queries by their qid."""
        return self._by_qid

    @overload
    def __getitem__(self, place: int) -> Query: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Query, ...]: ...
    def __getitem__(self, place: int | slice) -> Query | tuple[Query, ...]:
        return self._queries[place]

    def __len__(self) -> int:
        return len(self._queries)

    def __iter__(self) -> Iterator[Query]:
        return iter(self._queries)

    def __reduce__(self) -> tuple[type[Queries], tuple[Path, Kind, tuple[Query, ...]]]:
        return Queries, (self._path, self._kind, self._queries)

    def __repr__(self) -> str:
        return f"Queries({str(self.path)!r}, {self.kind}, {len(self)} queries)"


def read_queries(
    path: str | os.PathLike[str],
    *,
    durations: str | os.PathLike[str] | Mapping[str, float] | None = None,
) -> Queries:
    """Reads an annotation file of any known layout, which its content tells.

    ==================== ==================================================================
    kind                 what
    ==================== ==================================================================
    qvhighlights         JSON lines: qid, query, vid, duration (s); where known
                         relevant_windows (s), relevant_clip_ids (clips of 2 s) and
                         saliency_scores, neg_query_ids. Also BM-DETR's and lighthouse's files,
                         and own data
    tvsum                JSON lines with label; duration counts clips of 2 s
    youtube-highlights   JSON lines with label, match, clip, frames and fps
    activitynet          one object: video to duration, timestamps, sentences. ActivityNet
                         Captions, -CD and -CG, Charades-CG
    charades-cd          one object: video to video_duration, timestamps, sentences
    tacos                one object: video to num_frames, fps, timestamps (frames), sentences
    charades-sta         lines of ``VIDEO START END##SENTENCE``; no durations
    ==================== ==================================================================

    Windows stay as annotated. Where the file has no qids, they are ``VIDEO_0``, ``VIDEO_1``, ... in the
    order of a video's sentences.

    Args:
        path: The file.
        durations: For a Charades-STA txt: seconds by video, or the file that gives them
            (:func:`read_durations`); by default ``charades.json`` beside the txt. Not used for other
            layouts, which have their own.

    Raises:
        InputError: For a file that cannot be read, with its line or video and what was expected.
    """
    start = read_start(path, _START)
    with collector_paused():
        if start.startswith(b"{"):
            kind, queries = read_videos(path) if _holds_videos(path, start) else read_jsonl(path)
            return Queries(path, kind, queries)
        if _TXT.match(start):
            return Queries(path, "charades-sta", read_txt(path, *_durations_for(path, durations)))
    got = start[:20].split(b"\n", 1)[0].decode(errors="replace")
    what = "a JSON list" if start.startswith(b"[") else repr(got)
    raise UnknownLayoutError(f"{path}: {_LAYOUTS}; the file begins with {what}")


def _holds_videos(path: str | os.PathLike[str], start: bytes) -> bool:
    """Whether a file that begins with "{" is one object of videos, and not records line by line.

    Raises:
        UnknownLayoutError: It is one object, over several lines, of something else.
    """
    line, ended, _ = start.partition(b"\n")
    whole = bool(ended) or len(start) < _START
    record: dict[str, Any] = {}
    if whole:
        with suppress(*NOT_DECODED):
            record = _OBJECT.decode(line)
    if not isinstance(record.get("qid", {}), dict):
        return False
    if _VIDEOS.match(start):
        return True
    if whole and not record and os.stat(path).st_size <= LONGEST_LINE:
        with suppress(*NOT_DECODED):
            keys = ", ".join(key[:30] for key in list(_OBJECT.decode(read_document(path)))[:6])
            raise UnknownLayoutError(
                f"{path}: is one JSON object over several lines with the keys {keys}; expected one of "
                "videos with timestamps and sentences, or a record a line"
            )
    return False


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """Lengths of videos in seconds, from a JSON object of numbers or of objects with a ``duration``.

    ``charades.json`` is one; so is any annotation file of the activitynet layout.

    Raises:
        InputError: For a file that cannot be read, or a length that is not above 0.
    """
    return read_lengths(path)


def write_queries(path: str | os.PathLike[str], queries: Iterable[Query]) -> None:
    """Writes QVHighlights jsonl, whole or not at all.

    :func:`read_queries` gives the same queries again, but for their ``line``, blanks around the text,
    and saliency of other clips than one every 2 s (YouTube Highlights), which the format cannot say:
    it is left out with a :class:`~vmr.VmrWarning`.

    Raises:
        InputError: For no queries at all, a qid that stands there twice, or values that no file may
            have (a duration of 0, NaN).
        CacheError: Where the file cannot be written.
    """
    records = tuple(queries)
    if not records:
        raise InputError(f"{path}: there are no queries to write")
    _by_qid(records, path, "query")
    check_annotators(path, filter(_fits, records), lambda query: f"query {query.qid!r}")
    with_windows = any(query.windows is not None for query in records)
    lines = []
    for query in records:
        try:
            line = msgspec.json.encode(_official(query, with_windows=with_windows))
            # What is written can be read: the reader's own checks say so.
            query_of_row(ROW.decode(line), 0)
        except (RecordError, msgspec.ValidationError, UnicodeEncodeError) as error:
            raise InputError(f"{path}: query {query.qid!r} cannot be written: {error}") from None
        lines.append(line)
    silent = sum(query.saliency is not None and not _fits(query) for query in records)
    if silent:
        warnings.warn(
            f"{path}: saliency is left out (queries: {silent}): QVHighlights jsonl knows a clip every "
            f"{CLIP_SECONDS:g} s only",
            VmrWarning,
            stacklevel=2,
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"\n".join(lines) + b"\n")


def _official(query: Query, *, with_windows: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "qid": query.qid,
        "query": query.text,
        "duration": _number(query.duration),
        "vid": query.video,
    }
    if with_windows:
        row["relevant_windows"] = query.windows and [
            [_number(start), _number(end)] for start, end in query.windows
        ]
    if query.saliency is not None and _fits(query):
        row["relevant_clip_ids"] = query.saliency.clip_ids
        row["saliency_scores"] = [
            [_number(score) for score in scores] for scores in query.saliency.scores
        ]
    if query.domain is not None:
        row["domain"] = query.domain
    if query.neg_query_ids is not None:
        row["neg_query_ids"] = query.neg_query_ids
    return row


def _fits(query: Query) -> bool:
    saliency = query.saliency
    return (
        saliency is not None
        and saliency.clip_seconds == CLIP_SECONDS
        and saliency.clips == count_clips(query.duration)
    )


def _number(value: float) -> int | float:
    """126 and not 126.0, as the official files have it."""
    return int(value) if value == value // 1 and abs(value) < 2**53 else value


def _by_qid(
    queries: Sequence[Query], path: str | os.PathLike[str], place: str
) -> dict[int | str, Query]:
    by_qid = {query.qid: query for query in queries}
    if len(by_qid) < len(queries):
        seen: dict[int | str, int] = {}
        for number, query in enumerate(queries, 1):
            here = (query.line or number) if place == "line" else number
            if query.qid in seen:
                raise InputError(
                    f"{path}, {place} {here}: the qid {query.qid!r} stands on {place} "
                    f"{seen[query.qid]} already"
                )
            seen[query.qid] = here
    return by_qid


def _durations_for(
    path: str | os.PathLike[str],
    durations: str | os.PathLike[str] | Mapping[str, float] | None,
) -> tuple[Mapping[str, float], str]:
    if isinstance(durations, Mapping):
        return durations, "durations"
    if durations is None:
        durations = Path(path).with_name("charades.json")
        if not durations.is_file():
            raise InputError(
                f"{path}: is a Charades-STA txt, which gives no durations of its videos; put "
                "charades.json beside it, or name it (durations=, --durations)"
            )
    return read_durations(durations), str(durations)
