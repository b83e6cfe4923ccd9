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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from vmr.backends.base import Captioner, Focus, Rewrite, Rewriter
from vmr.errors import BackendError, InputError

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
    """Writes what models say into a file that :class:`Recording` reads.

    It wraps backends: ``recorder.rewriter(r)`` and ``recorder.captioner(c)`` answer as ``r`` and ``c``
    do, and write each answer down. A wrapped backend has a name of its own, since answers that come
    from a cache are not asked for again and would be missing from the file.

    Args:
        path: The file; records are appended to one that is there.

    Raises:
        InputError: The file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file: TextIO = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"recording {self.path}: cannot be written: {error.strerror}"
            ) from error

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def rewriter(self, rewriter: Rewriter) -> Rewriter:
        """A rewriter that answers as the given one, on the record."""
        return _RecordedRewriter(self, rewriter)

    def captioner(self, captioner: Captioner) -> Captioner:
        """A captioner that answers as the given one, on the record."""
        return _RecordedCaptioner(self, captioner)

    def write(self, kind: str, **fields: str | int | float) -> None:
        """Appends a record and flushes it, so that a run that is killed loses at most one line."""
        record = {"version": VERSION, "kind": kind, **fields}
        try:
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"recording {self.path}: cannot be written: {error.strerror}"
            ) from error


class _RecordedRewriter:
    def __init__(self, recorder: Recorder, rewriter: Rewriter) -> None:
        self._recorder = recorder
        self._rewriter = rewriter

    @property
    def name(self) -> str:
        return f"{self._rewriter.name}, recording to {self._recorder.path.absolute()}"

    def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
        rewrites = self._rewriter.rewrite(query, pairs)
        for pair, rewrite in enumerate(rewrites):
            self._recorder.write(
                "rewrite", query=query, pair=pair, simple=rewrite.simple, detailed=rewrite.detailed
            )
        return rewrites


class _RecordedCaptioner:
    def __init__(self, recorder: Recorder, captioner: Captioner) -> None:
        self._recorder = recorder
        self._captioner = captioner

    @property
    def name(self) -> str:
        return f"{self._captioner.name}, recording to {self._recorder.path.absolute()}"

    @property
    def short_side(self) -> int:
        return self._captioner.short_side

    def caption(self, frames: Frames) -> list[str]:
        texts = self._captioner.caption(frames)
        self._write("caption", frames, texts)
        return texts

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        texts = self._captioner.caption_for(frames, focus)
        self._write("query_aware_caption", frames, texts, query=focus.query)
        return texts

    def _write(self, kind: str, frames: Frames, texts: Sequence[str], **fields: str) -> None:
        for time, text in zip(frames.times.tolist(), texts, strict=True):
            self._recorder.write(kind, video=frames.video, time=time, **fields, text=text)


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
