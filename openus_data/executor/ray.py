"""The same runs on a Ray cluster, for those who outgrow one machine.

Chunks are Ray tasks, a bounded number at once. Ray does not say which item of a chunk took a worker down, so the items
of a lost chunk are run again one by one; an item that loses its worker alone is a failure. Ray's own retries are off.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from openus_data.errors import MissingExtra
from openus_data.executor import Executor, Failure, Outcome, R, T, TaskLimits
from openus_data.executor.worker import ONE_THREAD, Answer, answer, describe, enter_limits

try:
    import ray
except ImportError:
    raise MissingExtra("Ray is not installed", next_step="pip install 'openus[ray]'") from None

CHUNK = 16
_ready: set[bool] = set()
_Job = tuple[int, Any]


def _run_chunk(task: Callable[[Any], Any], items: list[Any], limits: TaskLimits) -> list[Answer]:
    """On a Ray worker: the limits once per process, then the items one after another."""
    if not _ready:
        enter_limits(limits)
        _ready.add(True)
    return [answer(task, item, limits) for item in items]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """A chunk under way."""

    jobs: list[_Job]
    started: float
    is_alone: bool


class RayExecutor(Executor):
    """Runs tasks on the cluster that `RAY_ADDRESS` names, or on a local one started for this process.

    Args:
        workers: chunks at once.
        limits: per item.
        window: items under way at most; None for 8 chunks per worker.
    """

    def __init__(self, *, workers: int, limits: TaskLimits | None = None, window: int | None = None) -> None:
        self._workers = workers
        self._limits = limits or TaskLimits()
        self._window = window or workers * 8 * CHUNK

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The cluster keeps its workers by itself."""

    def run(
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = False,
        limits: TaskLimits | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`."""
        _connect(self._workers)
        run = _Run(task, iter(items), self._workers, limits or self._limits, self._window)
        early: dict[int, Outcome[T, R]] = {}
        following = 0
        try:
            for outcome in run.outcomes():
                if not ordered:
                    run.yielded += 1
                    yield outcome
                    continue
                early[outcome.index] = outcome
                while following in early:
                    run.yielded += 1
                    yield early.pop(following)
                    following += 1
        finally:
            run.close()


def _connect(workers: int) -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    environment = dict(ONE_THREAD)
    local: dict[str, Any] = {}
    if not address:
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        local = {"num_cpus": workers, "include_dashboard": False}
    ray.init(
        address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": environment}, **local
    )


class _Run:
    """The state of one call of `run`."""

    def __init__(
        self, task: Callable[[Any], Any], items: Iterator[Any], workers: int, limits: TaskLimits, window: int
    ) -> None:
        self.yielded = 0
        self._task = ray.put(task)
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_run_chunk)
        self._items, self._workers, self._limits, self._window = items, workers, limits, window
        self._taken = 0
        self._alone: deque[_Job] = deque()
        self._flights: dict[Any, _Flight] = {}

    def close(self) -> None:
        """Cancel what is under way."""
        for reference in self._flights:
            with suppress(Exception):  # a task that is over cannot be cancelled, and need not be
                ray.cancel(reference, force=True)
        self._flights.clear()

    def outcomes(self) -> Iterator[Outcome[Any, Any]]:
        """Outcomes as chunks are done."""
        while True:
            while len(self._flights) < 2 * self._workers and self._launch():
                pass
            if not self._flights:
                return
            done, _ = ray.wait(list(self._flights), num_returns=1)
            for reference in done:
                yield from self._collect(reference, self._flights.pop(reference))

    def _launch(self) -> bool:
        is_alone = bool(self._alone)
        jobs = [self._alone.popleft()] if is_alone else self._take()
        if not jobs:
            return False
        reference = self._remote.remote(self._task, [item for _, item in jobs], self._limits)
        self._flights[reference] = _Flight(jobs=jobs, started=time.monotonic(), is_alone=is_alone)
        return True

    def _take(self) -> list[_Job]:
        jobs: list[_Job] = []
        while len(jobs) < min(CHUNK, self._window - (self._taken - self.yielded)):
            item = next(self._items, _END)
            if item is _END:
                break
            jobs.append((self._taken + len(jobs), item))
        self._taken += len(jobs)
        return jobs

    def _collect(self, reference: Any, flight: _Flight) -> Iterator[Outcome[Any, Any]]:
        try:
            answers = ray.get(reference)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as lost:
            yield from self._lost(flight, is_memory=isinstance(lost, ray.exceptions.OutOfMemoryError))
            return
        except ray.exceptions.RayError as error:  # the task or a result could not travel
            if flight.is_alone:
                ((index, item),) = flight.jobs
                yield Outcome(index=index, item=item, failure=Failure(kind="error", detail=describe(error)))
            else:
                self._alone.extend(flight.jobs)
            return
        for (index, item), (is_value, result, _) in zip(flight.jobs, answers, strict=True):
            if is_value:
                yield Outcome(index=index, item=item, value=result)
            else:
                yield Outcome(index=index, item=item, failure=result)

    def _lost(self, flight: _Flight, *, is_memory: bool) -> Iterator[Outcome[Any, Any]]:
        if not flight.is_alone:
            self._alone.extend(flight.jobs)
            return
        ((index, item),) = flight.jobs
        if is_memory:
            failure = Failure(kind="memory", detail="the node ran out of memory, twice")
        elif self._limits.seconds and time.monotonic() - flight.started >= self._limits.seconds:
            failure = Failure(kind="timeout", detail=f"took more than {self._limits.seconds:g} s, twice")
        else:
            failure = Failure(kind="died", detail="its worker died twice")
        yield Outcome(index=index, item=item, failure=failure)


_END = object()
