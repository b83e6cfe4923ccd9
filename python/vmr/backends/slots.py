"""Threads that keep a fixed number of requests under way."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# What to do and where its outcome goes; None ends a thread.
_Tasks = queue.SimpleQueue["tuple[Future[Any], Callable[[Any], Any], Any] | None"]


class Slots:
    """A number of threads that work for all callers, in the order in which they asked.

    Its threads are daemons, other than those of a ThreadPoolExecutor: a program that ends or is
    interrupted does not wait for requests under way. They start at the first call and end when the
    object is gone.

    Args:
        count: Threads, and so tasks at once, whoever gave them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: _Tasks = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def map(self, function: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """The function's answer for each item, in their order.

        The first failure is raised at once. What has not begun by then is left out; what is under way
        goes on in its slot, and nobody waits for it.
        """
        self._start()
        futures: list[Future[Answer]] = [Future() for _ in items]
        try:
            for future, item in zip(futures, items, strict=True):
                self._tasks.put((future, function, item))
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
            for number in range(self._count):
                name = f"vmr request {number}"
                threading.Thread(target=_work, args=(self._tasks,), name=name, daemon=True).start()
            weakref.finalize(self, _stop, self._tasks, self._count)


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        _do(*task)
        del task  # a thread that waits holds no picture


def _do(future: Future[Any], function: Callable[[Any], Any], item: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = function(item)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(answer)


def _stop(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)
