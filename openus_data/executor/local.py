"""Processes on this machine: started fresh (never forked), fed in chunks, replaced when they die.

Unlike a pool from the standard library, a death names its item, is tried once more alone, and touches nothing else;
the user's main module is not imported again, so that scripts need no guard.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from openus_data.errors import UsageError
from openus_data.executor import Executor, Failure, Outcome, R, T, TaskLimits
from openus_data.executor.worker import ONE_THREAD

CHUNK_SECONDS = 0.1
MAX_CHUNK = 64
_AHEAD_BYTES = 1 << 15
"""A chunk up to this size is sent while its worker is still busy: it fits a socket's buffer, so nobody waits."""
MAX_FAILED_STARTS = 3
_GRACE_SECONDS = 5.0
_BOOT = "import sys; sys.path[:] = {path!r}; from openus_data.executor.worker import serve; serve({handle})"


@dataclass(slots=True, kw_only=True)
class _Job:
    index: int
    item: Any
    tries: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """One process, its connection, and the jobs it holds, in order."""

    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)
    low: int = 0
    """With this many jobs left it is given more."""
    since: float = field(default_factory=time.monotonic)

    def give(self, jobs: list[_Job]) -> bool:
        """Send it jobs; False, and nothing sent, where it is busy and the message may not fit its socket."""
        message = pickle.dumps([job.item for job in jobs], protocol=pickle.HIGHEST_PROTOCOL)
        is_small = len(message) <= _AHEAD_BYTES
        self.low = len(jobs) // 2 if is_small else 0
        if self.jobs and not is_small:
            return False
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.extend(jobs)
        with suppress(BrokenPipeError, ConnectionResetError):  # found dead when it is read
            self.connection.send_bytes(message)
        return True

    def end(self) -> int:
        """Kill it and say how it ended (negative: a signal)."""
        self.process.kill()
        self.connection.close()
        return self.process.wait()


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

    def run(self, task: Callable[[T], R], items: Iterable[T], *, ordered: bool = False) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`. Closing the iterator, or an interrupt, ends the workers at once."""
        run = _Run(task, iter(items), self._workers, self._limits, self._window)
        try:
            if ordered:
                yield from run.in_order()
            else:
                yield from run.as_done()
        finally:
            run.close()


class _Run:
    """The state of one call of `run`."""

    def __init__(
        self, task: Callable[[Any], Any], items: Iterator[Any], workers: int, limits: TaskLimits, window: int
    ) -> None:
        try:
            self._hello = pickle.dumps((task, limits), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # pickle raises what the object's own reduction raises
            raise UsageError("the task cannot travel to a worker", got=type(error).__name__) from error
        self._items, self._limits, self._window = items, limits, window
        self._exhausted = False
        self._next_index = 0
        self._yielded = 0
        self._waiting: deque[_Job] = deque()  # put back after a death, or drawn to see whether a worker is needed
        self._pool: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._pool_size = workers
        self._failed_starts = 0
        self._seconds = CHUNK_SECONDS  # running mean per item; the first chunks hold one item

    def close(self) -> None:
        """End every worker."""
        for worker in list(self._pool):
            self._end(worker)
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
        for worker in [one for one in self._pool if one.ready and len(one.jobs) <= one.low]:
            if jobs := self._take():
                if not worker.give(jobs):
                    self._waiting.extendleft(reversed(jobs))
            elif self._exhausted and not self._waiting and not self._holds_jobs():
                self._end(worker)
        starting = sum(not worker.ready for worker in self._pool)
        while len(self._pool) < self._pool_size and self._has_work(beyond=starting):
            self._pool.append(self._start())
            starting += 1
        if not self._has_work(beyond=0) and not self._holds_jobs():
            self.close()

    def _holds_jobs(self) -> bool:
        return any(worker.jobs for worker in self._pool)

    def _has_work(self, *, beyond: int) -> bool:
        """Whether more jobs wait than `beyond` workers on their way up will take; draws one job to find out."""
        if len(self._waiting) <= beyond and (job := self._draw()) is not None:
            self._waiting.append(job)
        return len(self._waiting) > beyond

    def _is_full(self) -> bool:
        return self._next_index - self._yielded >= self._window

    def _pull(self) -> _Job | None:
        for item in self._items:
            self._next_index += 1
            return _Job(index=self._next_index - 1, item=item)
        self._exhausted = True
        return None

    def _take(self) -> list[_Job]:
        """The next chunk: a job that took a worker down goes alone."""
        share = self._window // (2 * self._pool_size) or 1
        size = max(1, min(MAX_CHUNK, share, int(CHUNK_SECONDS / self._seconds)))
        jobs: list[_Job] = []
        while len(jobs) < size:
            if self._waiting and self._waiting[0].tries and jobs:
                break
            job = self._waiting.popleft() if self._waiting else self._draw()
            if job is None:
                break
            jobs.append(job)
            if job.tries:
                break
        return jobs

    def _draw(self) -> _Job | None:
        return None if self._exhausted or self._is_full() else self._pull()

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path, handle=theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # C libraries write there what they like about a hostile file
                env={**os.environ, **ONE_THREAD},
            )
        connection = Connection(ours.detach())
        worker = _Worker(process=process, connection=connection)
        self._selector.register(connection, selectors.EVENT_READ, worker)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send_bytes(self._hello)
        return worker

    def _end(self, worker: _Worker) -> int:
        """Kill a worker and forget it; how it ended."""
        self._pool.remove(worker)
        self._selector.unregister(worker.connection)
        return worker.end()

    def _ready_to_read(self) -> list[_Worker]:
        return [key.data for key, _ in self._selector.select(timeout=0.5)]

    def _read(self, worker: _Worker) -> Iterator[Outcome[Any, Any]]:
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

    def _greet(self, worker: _Worker, problem: str | None) -> None:
        if problem is not None:
            raise UsageError(
                "the task cannot be loaded in a worker",
                got=problem,
                next_step="define it in a module that can be imported",
            )
        worker.ready = True
        self._failed_starts = 0

    def _overdue(self) -> Iterator[Outcome[Any, Any]]:
        """End workers that even the kernel's alarm did not end (stopped ones)."""
        if not self._limits.seconds:
            return
        patience = 2 * self._limits.seconds + _GRACE_SECONDS
        for worker in [late for late in self._pool if late.jobs and time.monotonic() - late.since > patience]:
            if not worker.connection.poll():
                yield from self._bury(worker, timed_out=True)

    def _bury(self, worker: _Worker, *, timed_out: bool = False) -> Iterator[Outcome[Any, Any]]:
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
