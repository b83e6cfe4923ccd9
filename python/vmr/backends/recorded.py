"""Captions and rewrites from a file, so that a run repeats without a model.

The file is JSON Lines in UTF-8, one record a line, in any order; a later record replaces an
earlier one of the same key. Every record has ``version`` (1) and ``kind``:

``{"version": 1, "kind": "rewrite", "query": str, "pair": int, "simple": str, "detailed": str}``
    The rewrites of a query with the pair-th pair of prompts, counted from 0.
``{"version": 1, "kind": "caption", "video": str, "time": float, "text": str}``
    The query-agnostic caption of the frame at ``time`` (s) of the video with this file name.
``{"version": 1, "kind": "query_aware_caption", "video": str, "time": float, "query": str, "text": str}``
    The same for a query.

A video is known by its file name without folders, so a recording still fits where the video lies
elsewhere; times are compared to the millisecond. An empty text says that the model gave none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vmr.backends.base import Focus, Rewrite
from vmr.errors import BackendError, InputError
from vmr.files import write_text

if TYPE_CHECKING:
    from vmr.video import Frames

VERSION = 1

# (video, milliseconds, query); the query of a query-agnostic caption is None.
_CaptionKey: TypeAlias = tuple[str, int, str | None]

_FIELDS: dict[str, dict[str, type]] = {
    "rewrite": {"query": str, "pair": int, "simple": str, "detailed": str},
    "caption": {"video": str, "time": float, "text": str},
    "query_aware_caption": {"video": str, "time": float, "query": str, "text": str},
}
_TYPE_NAMES = {str: "a string", int: "a whole number from 0", float: "a number from 0"}


class Recording:
    """A captioner and rewriter that repeats what a file says.

    Args:
        path: The recording.

    Raises:
        InputError: The file is missing or a line is not a record; names the file and the line.
    """

    short_side = 64
    """Pixels of the short side of the frames; the pixels are never looked at."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"recording {self.path}: cannot be read: {error.strerror}") from error
        self._digest = hashlib.sha256(content).hexdigest()[:12]
        self._rewrites: dict[tuple[str, int], Rewrite] = {}
        self._captions: dict[_CaptionKey, str] = {}
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                self._add(line, f"recording {self.path}, line {number}")

    @property
    def name(self) -> str:
        """The file's name and a digest of its content."""
        return f"recorded {self.path.name} ({self._digest})"

    def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
        """The recorded rewrites of the query.

        Raises:
            BackendError: A pair is not in the recording.
        """
        key = _query_key(query)
        missing = [pair for pair in range(pairs) if (key, pair) not in self._rewrites]
        if missing:
            raise BackendError(
                f"recording {self.path}: no rewrite of the query {query!r} for "
                f"{'pair' if len(missing) == 1 else 'pairs'} {', '.join(map(str, missing))}"
            )
        return [self._rewrites[key, pair] for pair in range(pairs)]

    def caption(self, frames: Frames) -> list[str]:
        """The recorded query-agnostic captions of the frames.

        Raises:
            BackendError: A frame has none; says which video and time.
        """
        return self._look_up(frames, None)

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        """The recorded query-aware captions of the frames for ``focus.query``.

        Raises:
            BackendError: A frame has none; says which video, time and query.
        """
        return self._look_up(frames, focus.query)

    def _look_up(self, frames: Frames, query: str | None) -> list[str]:
        texts = []
        for time in frames.times.tolist():
            text = self._captions.get(_caption_key(frames.video, time, query))
            if text is None:
                aware = f" query-aware caption for the query {query!r}" if query else " caption"
                raise BackendError(
                    f"recording {self.path}: no{aware} of video {frames.video!r} at {time:.3f} s"
                )
            texts.append(text)
        return texts

    def _add(self, line: bytes, place: str) -> None:
        record = _parsed(line, place)
        if record["kind"] == "rewrite":
            rewrite = Rewrite(record["simple"], record["detailed"])
            self._rewrites[_query_key(record["query"]), record["pair"]] = rewrite
        else:
            key = _caption_key(record["video"], record["time"], record.get("query"))
            self._captions[key] = record["text"]


class Recorder:
    """Collects what models said in a run, for a file that :class:`Recording` reads.

    It is told the answers, not the questions, so it does not matter whether a model or a cache gave
    them. A later answer to the same question replaces the earlier one.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str | int | None, ...], dict[str, str | int | float]] = {}

    def add_rewrites(self, query: str, rewrites: Sequence[Rewrite]) -> None:
        """Takes down the rewrites of a query, pair by pair."""
        for pair, rewrite in enumerate(rewrites):
            self._records["rewrite", query, pair] = {
                "kind": "rewrite",
                "query": query,
                "pair": pair,
                "simple": rewrite.simple,
                "detailed": rewrite.detailed,
            }

    def add_captions(
        self, video: str, times: Sequence[float], texts: Sequence[str], query: str | None = None
    ) -> None:
        """Takes down captions of frames of a video, query-aware ones where there is a query."""
        kind = "caption" if query is None else "query_aware_caption"
        asked = {} if query is None else {"query": query}
        for time, text in zip(times, texts, strict=True):
            self._records[_caption_key(video, time, query)] = {
                "kind": kind,
                "video": video,
                "time": time,
                **asked,
                "text": text,
            }

    def clear(self) -> None:
        """Forgets all answers so far: whoever answers thousands of videos writes no recording."""
        self._records = {}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the recording, atomically.

        Raises:
            CacheError: The file cannot be written.
        """
        lines = [
            json.dumps({"version": VERSION, **record}, ensure_ascii=False) + "\n"
            for record in self._records.values()
        ]
        write_text(path, "".join(lines))


def _query_key(query: str) -> str:
    return " ".join(query.split())


def _caption_key(video: str, time: float, query: str | None) -> _CaptionKey:
    return video, round(time * 1000), None if query is None else _query_key(query)


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    """A line as a record whose fields have the right types."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: expected a JSON object, got broken JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{place}: expected a JSON object, got {type(record).__name__}")
    if record.get("version") != VERSION:
        raise InputError(f'{place}: expected "version": {VERSION}, got {record.get("version")!r}')
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise InputError(
            f'{place}: expected "kind" to be one of {", ".join(_FIELDS)}, got {kind!r}'
        )
    for field, wanted in _FIELDS[kind].items():
        value = record.get(field)
        if not _fits(value, wanted):
            raise InputError(
                f"{place}: expected {field!r} to be {_TYPE_NAMES[wanted]} in a {kind}, got {value!r}"
            )
    return record


def _fits(value: object, wanted: type) -> bool:
    if wanted is str:
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (wanted is float or isinstance(value, int)) and math.isfinite(value) and value >= 0
