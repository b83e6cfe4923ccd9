"""Progress on stderr: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vmr.progress import Progress

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def shown(what: str) -> Iterator[Progress]:
    """A :data:`vmr.progress.Progress` that says on stderr how far ``what`` is."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{what}: {stage}", total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


class _Lines:
    """A line whenever some seconds have passed since the last; nothing for what is quick."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"{self._what}: {stage} {done}/{total}", file=sys.stderr, flush=True)
