"""A few daemon threads. Unlike the standard pool's, they do not keep a program alive that was asked to stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


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

    def close(self, timeout_s: float | None = None) -> None:
        """End the threads once they have nothing to do; wait for that, at most `timeout_s` in all."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
