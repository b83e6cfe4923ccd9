"""Calls of a model by threads, so that it is never idle while there is work for it."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

import torch

from vmr.progress import Stopwatch

T = TypeVar("T")

UNITS_AHEAD = 128
"""Units of work (frames, queries) that are begun and not yet taken, at most; they are held in memory."""

_THREAD = "vmr-model"
_SETTLE_SECONDS = 10.0


def under_way() -> bool:
    """Whether a call of a model goes on in some thread."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


@atexit.register
def _settle() -> None:
    """Compiled code that still runs while Python is taken down may crash: such calls get some time."""
    end = time.monotonic() + _SETTLE_SECONDS
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, end - time.monotonic()))


class Calls:
    """Calls of one model, as many at once as it takes; whoever asks for more waits in line.

    Several threads may share it.

    Args:
        at_once: How many calls it takes (:func:`vmr.backends.base.calls_at_once`).
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._slots = threading.Semaphore(at_once)

    def in_order(
        self,
        work: Iterable[tuple[int, Callable[[], T] | None]],
        watch: Stopwatch,
        stage: str,
    ) -> Generator[T | None, None, None]:
        """The results of calls, in order.

        A call is begun when its turn comes, while the caller goes on with ``work``: that is where work
        of its own belongs that may be done meanwhile. What has begun is held within bounds.

        Args:
            work: Units of work in a call, and the call; None where nothing has to be called.
            watch: Counts the time spent waiting for results.
            stage: Under this name.

        Raises:
            Exception: What a call raised; what has not begun then is left.
        """
        begun: deque[tuple[int, Future[T | None]]] = deque()
        units = 0
        try:
            for size, call in work:
                while begun:
                    unfinished = [future for _, future in begun if not future.done()]
                    if begun[0][1].done() or units + size > UNITS_AHEAD:
                        units -= begun[0][0]
                        yield _wait(begun, watch, stage)
                    elif len(unfinished) > self._at_once:
                        with watch.stage(stage):
                            wait(unfinished, return_when=FIRST_COMPLETED)
                    else:
                        break
                begun.append((size, self._begin(call)))
                units += size
            while begun:
                yield _wait(begun, watch, stage)
        finally:
            for _, future in begun:
                future.cancel()
            # An error holds on to the frames that it came through: what work has open is closed here.
            if isinstance(work, Generator):
                work.close()

    def _begin(self, call: Callable[[], T] | None) -> Future[T | None]:
        future: Future[T | None] = Future()
        if call is None:
            future.set_result(None)
            return future

        def run() -> None:
            with self._slots:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    with torch.inference_mode():
                        result = call()
                except BaseException as error:  # handed to the thread that asks for the result
                    future.set_exception(error)
                else:
                    future.set_result(result)

        # A daemon, unlike those of an executor: an error or Ctrl-C does not wait for a model.
        threading.Thread(target=run, name=_THREAD, daemon=True).start()
        return future


def _wait(begun: deque[tuple[int, Future[T | None]]], watch: Stopwatch, stage: str) -> T | None:
    """The result of the call that was begun first."""
    with watch.stage(stage):
        result = begun[0][1].result()
    begun.popleft()
    return result
