"""The inside of a worker: one thread, limits on every item, nothing but outcomes sent back.

A time limit is the kernel's alarm with its default action, which ends even a loop in C; a memory limit is the
process's data limit, beyond which allocations fail and the item becomes a `memory` failure.
"""

from __future__ import annotations

import ctypes
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from openus_data.errors import OpenUSDataError
from openus_data.executor import Failure, TaskLimits

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""Environment of a worker: libraries read these when they are loaded."""

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's mallopt(3)."""
_HELD_BYTES = 64 << 20

Answer = tuple[bool, Any, float]
"""(whether it is a value, the value or the Failure, seconds)."""


def serve(handle: int) -> None:
    """Answer chunks of items on a connection until it closes.

    Args:
        handle: file descriptor of the connection. The first message is (task, limits), the others are lists of items;
            an empty one ends them, and another task follows.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # an alarm ends the process, whatever was inherited
    connection = Connection(handle)
    try:
        while True:
            try:
                task, limits = pickle.loads(connection.recv_bytes())
            except Exception as error:  # whatever an import in the task's module raises
                connection.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
                return
            enter_limits(limits)
            connection.send_bytes(pickle.dumps(None))
            while message := connection.recv_bytes():
                for item in pickle.loads(message):
                    connection.send_bytes(_pack(answer(task, item, limits)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def enter_limits(limits: TaskLimits) -> None:
    """Put this process on one thread and under its memory limit; called when the task's module is loaded."""
    opencv = sys.modules.get("cv2")
    if opencv is not None:
        opencv.setNumThreads(1)
    hold_memory()
    with suppress(OSError, ValueError):  # a system without it runs without this limit
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = _data_bytes() + (limits.memory_mb << 20) if limits.memory_mb else hard
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))


def hold_memory() -> None:
    """Have freed memory kept for the next picture, up to 64 MiB; zeroing it anew took 1.5 ms of every 800 x 600 one."""
    with suppress(OSError, AttributeError):  # another C library decides for itself
        tune = ctypes.CDLL(None).mallopt
        tune(_MMAP_THRESHOLD, _HELD_BYTES // 2)
        tune(_TRIM_THRESHOLD, _HELD_BYTES)


def _data_bytes() -> int:
    """What this process holds already, in bytes (VmData); raises OSError where the system does not tell."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("no VmData")


def answer(task: Callable[[Any], Any], item: Any, limits: TaskLimits) -> Answer:
    """Run one item under its time limit; whatever it raises becomes a Failure."""
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    try:
        return True, task(item), time.monotonic() - started
    except MemoryError:
        detail = f"more than {limits.memory_mb} MB beyond the worker's own"
        return False, Failure(kind="memory", detail=detail), time.monotonic() - started
    except Exception as error:  # the process's edge: one item must not end the others
        return False, Failure(kind="error", detail=describe(error)), time.monotonic() - started
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def describe(error: Exception) -> str:
    """An error in one line without identity: our own texts are fit to be shown, others may quote a file or a path."""
    if isinstance(error, OpenUSDataError):
        return f"{type(error).__name__}: {error}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return f"{type(error).__name__}{place}"


def _pack(result: Answer) -> bytes:
    try:
        return pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # a value that cannot travel is the task's fault
        return pickle.dumps((False, Failure(kind="error", detail=f"result: {describe(error)}"), result[2]))
