"""The process that a run lives in: its device, its signals, its determinism."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader

from vmr.data.dataset import Batch


@contextmanager
def reading(batches: DataLoader[Any]) -> Iterator[Iterator[Batch]]:
    """The batches of a loader, whose processes are ended with the block.

    A signal to the whole process group (Ctrl-C, a scheduler) is for this process alone: its workers go
    on, so that the step is finished and saved.
    """
    blocked = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # inherited by what is forked
    try:
        iterator: Any = iter(batches)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield iterator
    finally:
        # Signals cannot end the workers, and Python would wait for them at its end.
        if batches.num_workers:
            iterator._shutdown_workers()


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Lets SIGINT and SIGTERM end the run after a step; a second SIGINT ends it at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Has torch refuse what is not reproducible."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
