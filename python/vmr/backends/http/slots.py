"""Threads that keep a fixed number of requests under way."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Call(Generic[Item, Answer]):
    """What is to be done for one caller; ``over`` when it is, or when something failed."""

    def __init__(self, function: Callable[[Item], Answer], items: Sequence[Item]) -> None:
        self.function = function
        self.items = items
        self.answers: dict[int, Answer] = {}
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._lock = threading.Lock()

    def do(self, place: int) -> None:
        if self.over.is_set():
            return
        try:
            answer = self.function(self.items[place])
        except BaseException as error:  # handed to the caller
            with self._lock:
                self.error = self.error or error
            self.over.set()
            return
        with self._lock:
            self.answers[place] = answer
            if len(self.answers) == len(self.items):
                self.over.set()


# A call and the place of an item in it; None ends a thread.
_Tasks: TypeAlias = "queue.SimpleQueue[tuple[_Call[Any, Any], int] | None]"


class Slots:
    """A number of threads that work for all callers, in the order in which they asked.

    The threads are daemons, other than those of a ThreadPoolExecutor: a program that ends or is
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
        if not items:
            return []
        self._start()
        call = _Call(function, items)
        try:
            for place in range(len(items)):
                self._tasks.put((call, place))
            call.over.wait()
        finally:
            call.over.set()  # where the caller was interrupted
        if call.error is not None:
            raise call.error
        return [call.answers[place] for place in range(len(items))]

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
            for number in range(self._count):
                name = f"vmr-request-{number}"
                threading.Thread(target=_work, args=(self._tasks,), name=name, daemon=True).start()
            weakref.finalize(self, _stop, self._tasks, self._count)


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        call, place = task
        call.do(place)
        del call, task  # a thread that waits holds no pictures


def _stop(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)
