"""Processes on this machine: started fresh (never forked), fed in chunks, replaced when they die.

    with LocalExecutor(workers=2) as executor:
        for outcome in executor.run(task, items): ...
        for outcome in executor.run(other_task, results): ...       # by the same processes; without a block by new ones

Unlike a pool from the standard library, a death names its item, is tried once more alone, and touches nothing else;
the user's main module is not imported again, so that scripts need no guard.
"""

from __future__ import annotations

import pickle
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from openus_data.errors import UsageError
from openus_data.executor import Executor, Failure, Outcome, R, T, TaskLimits
from openus_data.executor.process import Job, WorkerProcess

CHUNK_SECONDS = 0.1
MAX_CHUNK = 64
MAX_FAILED_STARTS = 3
_GRACE_SECONDS = 5.0


class LocalExecutor(Executor):
    """Runs tasks in processes on this machine.

    Args:
        workers: number of processes.
        limits: per item.
        window: items under way at most, finished but unordered ones included; None for 128 per worker.
    """

    def __init__(self, *, workers: int, limits: TaskLimits | None = None, window: int | None = None) -> None:
        self._workers = workers
        self._limits = limits or TaskLimits()
        self._window = window or workers * 2 * MAX_CHUNK
        self._idle: list[WorkerProcess] = []
        self._is_open = False

    def __enter__(self) -> LocalExecutor:
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._dismiss()

    def run(
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = False,
        limits: TaskLimits | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`. Closing the iterator, or an interrupt, ends the workers that are at work at once."""
        run = _Run(task, iter(items), self._workers, limits or self._limits, self._window, self._idle)
        try:
            if ordered:
                yield from run.in_order()
            else:
                yield from run.as_done()
        finally:
            run.close()
            if not self._is_open:
                self._dismiss()

    def _dismiss(self) -> None:
        for worker in self._idle:  # all at once: the system takes a while to clear up after each
            worker.process.kill()
        while self._idle:
            self._idle.pop().end()


class _Run:
    """The state of one call of `run`. Workers are taken from `idle`, and those that are idle at its end go there."""

    def __init__(
        self,
        task: Callable[[Any], Any],
        items: Iterator[Any],
        workers: int,
        limits: TaskLimits,
        window: int,
        idle: list[WorkerProcess],
    ) -> None:
        try:
            self._hello = pickle.dumps((task, limits), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # pickle raises what the object's own reduction raises
            raise UsageError("the task cannot travel to a worker", got=type(error).__name__) from error
        self._items, self._limits, self._window = items, limits, window
        self._exhausted = False
        self._next_index = 0
        self._yielded = 0
        self._waiting: deque[Job] = deque()  # drawn ahead, or put back after a death
        self._pool: list[WorkerProcess] = []
        self._idle = idle
        self._selector = selectors.DefaultSelector()
        self._pool_size = workers
        self._failed_starts = 0
        self._seconds = CHUNK_SECONDS  # running mean per item; the first chunks hold one item

    def close(self) -> None:
        """End every worker that is at work."""
        for worker in list(self._pool):
            if worker.jobs:
                self._end(worker)
            else:
                self._release(worker)
        self._selector.close()

    def in_order(self) -> Iterator[Outcome[Any, Any]]:
        """Outcomes by index; those that come early wait within the window."""
        early: dict[int, Outcome[Any, Any]] = {}
        for outcome in self._outcomes():
            early[outcome.index] = outcome
            while self._yielded in early:
                self._yielded += 1
                yield early.pop(self._yielded - 1)

    def as_done(self) -> Iterator[Outcome[Any, Any]]:
        """Outcomes as they come."""
        for outcome in self._outcomes():
            self._yielded += 1
            yield outcome

    def _outcomes(self) -> Iterator[Outcome[Any, Any]]:
        while True:
            self._feed()
            if not self._pool:
                return
            for worker in self._ready_to_read():
                yield from self._read(worker)
            yield from self._overdue()

    def _feed(self) -> None:
        """Give work to workers that will soon be idle, starting and ending workers as the work needs."""
        hungry = [one for one in self._pool if one.ready and len(one.jobs) <= one.low]
        if not hungry and len(self._pool) == self._pool_size:
            return
        self._draw_ahead()
        for worker in hungry:
            if jobs := self._take():
                if not worker.give(jobs):
                    self._waiting.extendleft(reversed(jobs))
            elif self._exhausted and not self._waiting and not self._holds_jobs():
                self._release(worker)
        starting = sum(not worker.ready for worker in self._pool)
        while len(self._pool) < self._pool_size and len(self._waiting) > starting:
            self._pool.append(self._start())
            starting += 1
        if not self._waiting and not self._holds_jobs():
            self.close()

    def _holds_jobs(self) -> bool:
        return any(worker.jobs for worker in self._pool)

    def _is_full(self) -> bool:
        return self._next_index - self._yielded >= self._window

    def _pull(self) -> None:
        for item in self._items:
            self._waiting.append(Job(index=self._next_index, item=item))
            self._next_index += 1
            return
        self._exhausted = True

    def _take(self) -> list[Job]:
        """The next chunk: a job that took a worker down goes alone."""
        size = self._chunk()
        if self._exhausted:  # smaller and smaller ones, so that all workers end at once
            size = min(size, -(-len(self._waiting) // (2 * self._pool_size)))
        jobs: list[Job] = []
        while self._waiting and len(jobs) < size:
            if self._waiting[0].tries and jobs:
                break
            jobs.append(self._waiting.popleft())
            if jobs[0].tries:
                break
        return jobs

    def _chunk(self) -> int:
        """Number of items that a worker gets at a time."""
        share = self._window // (2 * self._pool_size) or 1
        return max(1, min(MAX_CHUNK, share, int(CHUNK_SECONDS / self._seconds)))

    def _draw_ahead(self) -> None:
        """Have enough jobs waiting to see the end come."""
        while len(self._waiting) <= 2 * self._pool_size * self._chunk() and not self._exhausted and not self._is_full():
            self._pull()

    def _start(self) -> WorkerProcess:
        worker = self._wake() or WorkerProcess.start()
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        worker.greet(self._hello)
        return worker

    def _wake(self) -> WorkerProcess | None:
        """A living worker of an earlier run."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            worker.end()
        return None

    def _release(self, worker: WorkerProcess) -> None:
        self._forget(worker)
        worker.rest()
        self._idle.append(worker)

    def _end(self, worker: WorkerProcess) -> int:
        """Kill a worker and forget it; how it ended."""
        self._forget(worker)
        return worker.end()

    def _forget(self, worker: WorkerProcess) -> None:
        self._pool.remove(worker)
        self._selector.unregister(worker.connection)

    def _ready_to_read(self) -> list[WorkerProcess]:
        return [key.data for key, _ in self._selector.select(timeout=0.5)]

    def _read(self, worker: WorkerProcess) -> Iterator[Outcome[Any, Any]]:
        """One message of a worker; its death is found here."""
        try:
            message = worker.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            yield from self._bury(worker)
            return
        worker.since = time.monotonic()
        if not worker.ready:
            self._greet(worker, pickle.loads(message))
            return
        job = worker.jobs.popleft()
        is_value, result, seconds = pickle.loads(message)
        self._seconds = max(1e-4, 0.8 * self._seconds + 0.2 * seconds)
        if is_value:
            yield Outcome(index=job.index, item=job.item, value=result)
        else:
            yield Outcome(index=job.index, item=job.item, failure=result)

    def _greet(self, worker: WorkerProcess, problem: str | None) -> None:
        worker.owed -= 1
        if worker.owed:  # the answer to an earlier run
            return
        if problem is not None:
            raise UsageError(
                "the task cannot be loaded in a worker",
                got=problem,
                next_step="define it in a module that can be imported",
            )
        self._failed_starts = 0

    def _overdue(self) -> Iterator[Outcome[Any, Any]]:
        """End workers that even the kernel's alarm did not end (stopped ones)."""
        if not self._limits.seconds:
            return
        patience = 2 * self._limits.seconds + _GRACE_SECONDS
        for worker in [late for late in self._pool if late.jobs and time.monotonic() - late.since > patience]:
            if not worker.connection.poll():
                yield from self._bury(worker, timed_out=True)

    def _bury(self, worker: WorkerProcess, *, timed_out: bool = False) -> Iterator[Outcome[Any, Any]]:
        """Put back what a dead worker held; the job it was on is tried once more, alone, then it is a failure."""
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=0 if timed_out else _GRACE_SECONDS)
        code = self._end(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UsageError(
                    "workers die while they start", got=f"exit status {code}", next_step="check the memory"
                )
        jobs = list(worker.jobs)
        self._waiting.extendleft(reversed(jobs[1:]))
        if not jobs:
            return
        suspect = jobs[0]
        suspect.tries += 1
        if suspect.tries == 1:
            self._waiting.append(suspect)
            return
        timed_out = timed_out or code == -signal.SIGALRM
        yield Outcome(index=suspect.index, item=suspect.item, failure=self._failure(code, timed_out=timed_out))

    def _failure(self, code: int, *, timed_out: bool) -> Failure:
        if timed_out:
            return Failure(kind="timeout", detail=f"took more than {self._limits.seconds:g} s, twice")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Failure(kind="died", detail=f"its worker died twice ({name})")
