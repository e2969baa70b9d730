"""A few daemon threads. Unlike the standard pool's, they do not keep a program alive that was asked to stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Batch(Generic[Result]):
    """Results of `count` calls that run on several threads."""

    def __init__(self, count: int) -> None:
        self._results: list[Result | None] = [None] * count
        self._missing = count
        self._error: BaseException | None = None
        self._mutex = threading.Lock()
        self._is_over = threading.Event()
        if not count:
            self._is_over.set()

    def fill(self, index: int, function: Callable[[Item], Result], item: Item) -> None:
        """Work out one result, unless another has failed already."""
        try:
            if self._error is None:
                self._results[index] = function(item)
        except BaseException as error:  # the waiting thread decides
            self._error = self._error or error
        with self._mutex:
            self._missing -= 1
            is_last = not self._missing
        if is_last:
            self._is_over.set()

    def wait(self) -> list[Result]:
        """All results, or an error, once nothing runs any more."""
        self._is_over.wait()
        if self._error is not None:
            raise self._error
        return cast(list[Result], self._results)


class Workers:
    """Runs functions on `count` threads, in the order they were handed in."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"{name}-{i}") for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Hand in a function; its result or error, of any kind, comes through the future."""
        future: Future[Result] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # the waiting thread decides
                future.set_exception(error)

        self._tasks.put(task)
        return future

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results of a function for many items, in their order.

        The caller is woken once, not once an item: for thousands of small files that is felt.

        Raises:
            BaseException: an error of one; those under way are waited for, the others are not begun.
        """
        batch: _Batch[Result] = _Batch(len(items))
        for index, item in enumerate(items):
            self._tasks.put(partial(batch.fill, index, function, item))
        return batch.wait()

    def close(self, timeout_s: float | None = None) -> None:
        """End the threads once they have nothing to do; wait for that, at most `timeout_s` in all."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
