"""Calls of a model by threads: order, how many at once, and what an error leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vmr.backends.base import calls_at_once
from vmr.backends.calls import UNITS_AHEAD, Calls
from vmr.progress import Stopwatch


class Model:
    def __init__(self, at_once: int) -> None:
        self.calls_at_once = at_once


def run(calls: Calls, work: Iterator[tuple[int, Callable[[], int] | None]]) -> list[int | None]:
    return list(calls.in_order(work, Stopwatch(), "model"))


class Counter:
    """How many calls run at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def call(self, value: int, wait: Callable[[], object]) -> int:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        wait()
        with self._lock:
            self.now -= 1
        return value


def test_a_model_that_says_nothing_gets_one_call_at_a_time() -> None:
    counter = Counter()
    calls = Calls(calls_at_once(object()))
    work = ((1, lambda n=n: counter.call(n, lambda: time.sleep(0.005))) for n in range(10))
    assert run(calls, work) == list(range(10))
    assert counter.most == 1


def test_as_many_as_the_model_takes_and_in_order() -> None:
    together = threading.Barrier(3)
    counter = Counter()
    # Each call waits until three are under way: fewer at once would break the barrier.
    work = ((1, lambda n=n: counter.call(n, lambda: together.wait(30))) for n in range(12))
    assert run(Calls(calls_at_once(Model(3))), work) == list(range(12))
    assert counter.most == 3


def test_several_callers_share_the_line() -> None:
    counter = Counter()
    calls = Calls(calls_at_once(Model(2)))
    found: dict[int, list[int | None]] = {}

    def caller(place: int) -> None:
        work = ((1, lambda n=n: counter.call(n, lambda: time.sleep(0.002))) for n in range(20))
        found[place] = run(calls, work)

    threads = [threading.Thread(target=caller, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: list(range(20)) for place in range(4)}
    assert counter.most == 2


def test_the_caller_works_while_the_model_does() -> None:
    worked = threading.Event()

    def work() -> Iterator[tuple[int, Callable[[], bool]]]:
        # The call ends only after what the caller does behind it.
        yield 1, lambda: worked.wait(30)
        worked.set()

    assert list(Calls(1).in_order(work(), Stopwatch(), "model")) == [True]


def test_what_is_begun_is_bounded() -> None:
    begun = 0
    free = threading.Event()

    def work() -> Iterator[tuple[int, Callable[[], bool]]]:
        nonlocal begun
        for _ in range(20):
            begun += UNITS_AHEAD // 4
            yield UNITS_AHEAD // 4, lambda: free.wait(30)

    results = Calls(calls_at_once(Model(100))).in_order(work(), Stopwatch(), "model")
    threading.Timer(0.2, free.set).start()
    next(results)
    assert begun <= UNITS_AHEAD + UNITS_AHEAD // 4
    assert len(list(results)) == 19


def test_an_error_is_raised_and_the_rest_is_left() -> None:
    called: list[int] = []
    failed = threading.Event()

    def call(value: int) -> int:
        called.append(value)
        if value == 1:
            failed.set()
            raise ValueError("one")
        return value

    calls = Calls(1)
    results = calls.in_order(((1, lambda n=n: call(n)) for n in range(50)), Stopwatch(), "model")
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        list(results)
    assert failed.is_set()
    assert len(called) <= 4
    # The model can be called again.
    assert run(calls, iter([(1, lambda: 7)])) == [7]


def test_nothing_to_call() -> None:
    threads = threading.active_count()
    assert run(Calls(1), iter([(1, None), (1, None)])) == [None, None]
    assert threading.active_count() == threads


def test_waiting_is_counted() -> None:
    watch = Stopwatch()
    list(Calls(1).in_order([(1, lambda: time.sleep(0.05))], watch, "model"))
    assert watch.seconds["model"] >= 0.04
