"""How far a training run is, on stderr: a live line on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from vmr.cli.progress import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from vmr.training.results import Status


class TrainingProgress:
    """Shows a run while the object is entered; only the first of several processes says anything.

    Args:
        name: The run's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_main = os.environ.get("RANK", "0") == "0"
        self._stack = ExitStack()
        self._live: Any = None
        self._last = time.monotonic()
        self._value: tuple[int, float | None] | None = None
        self._begun = False

    def __enter__(self) -> TrainingProgress:
        if self._is_main and sys.stderr.isatty():
            from rich.console import Console

            self._live = self._stack.enter_context(Console(stderr=True).status(self._name))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, status: Status) -> None:
        """A :data:`vmr.training.Watch`."""
        if not self._is_main:
            return
        if status.resumed and not self._begun:
            self._say(f"{self._name}: goes on from step {status.resumed:,} of {status.steps:,}")
        self._begun = True
        text = f"{self._name}: {status_text(status)}"
        # Every evaluation leaves a line; between them there is one now and then.
        known = (status.epoch, status.value)
        evaluated = status.value is not None and known != self._value and status.ends_epoch
        if evaluated:
            self._value = known
        self._update(text, lasting=evaluated)

    def progress(self, stage: str, done: int, total: int) -> None:
        """A :data:`vmr.progress.Progress`."""
        if not self._is_main:
            return
        self._update(f"{self._name}: {stage} {done}/{total}")

    def tell(self, line: str) -> None:
        """Shows a line that stays."""
        if self._is_main:
            self._say(f"{self._name}: {line}")

    def _update(self, text: str, *, lasting: bool = False) -> None:
        """Shows where the run is; what lasts is a line of its own on a terminal too."""
        if self._live is not None:
            self._live.update(text)
        if lasting or (self._live is None and self._is_time()):
            self._say(text)

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _is_time(self) -> bool:
        now = time.monotonic()
        due = now - self._last >= SECONDS_BETWEEN_LINES
        if due:
            self._last = now
        return due


def status_text(status: Status) -> str:
    """A status as one line."""
    parts = [
        f"epoch {status.epoch}/{status.epochs}",
        f"step {status.step:,}/{status.steps:,}",
        f"loss {status.loss:.4g}",
        f"lr {status.rate:.2e}",
        f"{status.steps_per_second:.1f} steps/s",
        f"{status.queries_per_second:,.0f} queries/s",
    ]
    if status.value is not None:
        parts.append(f"{status.metric} {status.value:.2f}")
    if status.best is not None:
        parts.append(f"best {status.best.value:.2f} (epoch {status.best.epoch})")
    if math.isfinite(status.seconds_left):
        parts.append(f"{_time_text(status.seconds_left)} left")
    return ", ".join(parts)


def _time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
