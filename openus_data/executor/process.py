"""One process of the local executor, as its owner sees it: started, told a task, given jobs, ended."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from openus_data.executor.worker import ONE_THREAD

_AHEAD_BYTES = 1 << 15
"""A chunk up to this size is sent while its worker is still busy: it fits a socket's buffer, so nobody waits."""
_BOOT = "import sys; sys.path[:] = {path!r}; from openus_data.executor.worker import serve; serve({handle})"


@dataclass(slots=True, kw_only=True)
class Job:
    """One item, and how many workers died of it."""

    index: int
    item: Any
    tries: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerProcess:
    """One process, its connection, and the jobs it holds, in order."""

    process: subprocess.Popen[bytes]
    connection: Connection
    owed: int = 0
    """Greetings that it has not answered yet; a run may end before a slow worker has answered its greeting."""
    jobs: deque[Job] = field(default_factory=deque)
    low: int = 0
    """With this many jobs left it is given more."""
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls) -> WorkerProcess:
        """A new process."""
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
        return cls(process=process, connection=Connection(ours.detach()))

    @property
    def ready(self) -> bool:
        """Whether it has loaded the task of the run."""
        return not self.owed

    def greet(self, hello: bytes) -> None:
        """Tell it the task of the run; it answers when it is ready."""
        self.owed += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # found dead when it is read
            self.connection.send_bytes(hello)

    def rest(self) -> None:
        """Tell it that the run is over, and another may follow."""
        with suppress(BrokenPipeError, ConnectionResetError):  # found dead when it is needed again
            self.connection.send_bytes(b"")

    def give(self, jobs: list[Job]) -> bool:
        """Send it jobs; False, and nothing sent, where it is busy and the message may not fit its socket."""
        message = pickle.dumps([job.item for job in jobs], protocol=pickle.HIGHEST_PROTOCOL)
        is_small = len(message) <= _AHEAD_BYTES
        self.low = max(1, len(jobs) // 2) if is_small else 0
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
