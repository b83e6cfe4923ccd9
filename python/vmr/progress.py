"""How far a long run is, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` whenever a stage moves on."""


def silent(stage: str, done: int, total: int) -> None:
    """A :data:`Progress` that shows nothing."""


class Stopwatch:
    """Adds up the seconds spent in each named stage.

    Attributes:
        seconds: Seconds by stage, in the order in which the stages first ran.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of the block under ``name``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
