"""Predictions that are written while a long run goes on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vmr import __version__
from vmr.errors import CacheError, InputError
from vmr.evaluation.predictions import Prediction, prediction_lines, read_predictions
from vmr.files import write_text

VERSION = 1
"""Of the run file; ``schemas/answers-1.json`` describes it."""


class Unanswered(NamedTuple):
    """A video whose queries could not be answered.

    Attributes:
        video: Its name in the annotations.
        queries: How many queries it has.
        reason: What was wrong.
    """

    video: str
    queries: int
    reason: str


class AnswerFile:
    """A jsonl that grows by a video's answers at a time; the file beside it says whose they are.

    ``FILE.partial`` grows under a lock and becomes FILE at the end; a FILE that is there stays until
    then, and stays as it is where it lacks nothing.

    Args:
        target: The file when it is whole.
        settings: What makes the answers.
        wanted: The queries that are to be answered in it.
    """

    def __init__(
        self, target: Path, settings: dict[str, Any], wanted: Collection[int | str]
    ) -> None:
        self._target = target
        self._partial = target.with_name(f"{target.name}.partial")
        self._run = target.with_name(f"{target.name}.run.json")
        self._settings = settings
        self._wanted = wanted
        self._seconds = 0.0
        self._whole = False
        self._file: BinaryIO | None = None
        self.qids: set[int | str] = set()
        """Queries that are answered."""

    def __enter__(self) -> AnswerFile:
        try:
            self._open()
        except OSError as error:
            self.__exit__()
            raise CacheError(f"{self._partial}: {error.strerror or error}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        begun = self._partial.exists() and self._partial.stat().st_size > 0
        if begun or self._target.exists():
            self._check_settings()
        self._lock()
        self._cut_torn_line()
        if self._partial.stat().st_size:
            self.qids = {found.qid for found in read_predictions(self._partial)}
        if self._target.exists():
            whole = read_predictions(self._target)
            if set(self._wanted) <= {found.qid for found in whole}:
                self.qids = {found.qid for found in whole}
                self._whole = True
                if not self._partial.stat().st_size:
                    self._partial.unlink()
                return
            # It grows by what it lacks.
            self._write([found for found in whole if found.qid not in self.qids])
        elif not self.qids:
            self._write_run(unanswered=())

    def _lock(self) -> None:
        """Opens the partial file for this process alone."""
        while True:
            self._file = self._partial.open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self._partial}: another process is writing it") from None
            # Another process may have given it its name in between: then this is that file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), self._partial.stat()):
                    return
            self._file.close()

    def _check_settings(self) -> None:
        advice = "name another file, or move these away"
        if not self._run.exists():
            there = self._partial if self._partial.exists() else self._target
            raise InputError(
                f"{there} is there, and no {self._run.name} says what made it; {advice}"
            )
        try:
            run = json.loads(self._run.read_bytes())
            known, self._seconds = run["settings"], float(run["seconds"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self._run}: expected a run file of vmr; {advice}") from None
        for name, now, then in _differences(self._settings, known):
            raise InputError(
                f"{self._target}: was begun with {name} {then!r}, and this is {now!r}; {advice}"
            )

    def _cut_torn_line(self) -> None:
        content = self._partial.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._partial, whole)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Appends a video's answers.

        Raises:
            CacheError: They cannot be written.
        """
        try:
            self._write(predictions)
        except OSError as error:
            raise CacheError(f"{self._partial}: {error.strerror or error}") from error

    def _write(self, predictions: Sequence[Prediction]) -> None:
        assert self._file is not None
        self._file.write(b"".join(line + b"\n" for line in prediction_lines(predictions)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.qids.update(prediction.qid for prediction in predictions)

    def stop(self, unanswered: Sequence[Unanswered], seconds: float) -> None:
        """Says in the run file how far it came.

        Args:
            unanswered: Videos that could not be read.
            seconds: That the run took.

        Raises:
            CacheError: It cannot be written.
        """
        if not self._whole:
            self._seconds += seconds
            self._write_run(unanswered=unanswered)

    def finish(self, unanswered: Sequence[Unanswered], seconds: float) -> None:
        """Gives the file its name; the arguments are those of :meth:`stop`.

        Raises:
            CacheError: It cannot be written.
        """
        if self._whole:
            return
        self.stop(unanswered, seconds)
        try:
            self._partial.replace(self._target)
        except OSError as error:
            raise CacheError(f"{self._target}: {error.strerror or error}") from error

    def _write_run(self, *, unanswered: Sequence[Unanswered]) -> None:
        document = {
            "version": VERSION,
            "vmr": __version__,
            "settings": self._settings,
            "complete": set(self._wanted) <= self.qids,
            "answered": len(self.qids),
            "unanswered": [found._asdict() for found in unanswered],
            "seconds": round(self._seconds, 3),
        }
        write_text(self._run, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def _differences(now: dict[str, Any], then: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Names of settings that differ, with both values."""
    for name in {**now, **then}:
        one, other = now.get(name), then.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            for key, *values in _differences(one, other):
                yield f"{name} {key}", values[0], values[1]
        elif one != other:
            yield name, one, other
