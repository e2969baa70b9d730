"""Running one function over many items, each under a time and a memory limit, on this machine or on a cluster.

    executor = open_executor("local", workers=2)
    for outcome in executor.run(task, items):
        if outcome.failure: ...
        else: use(outcome.value)

Every item comes back exactly once, as a value or as a failure; a worker that dies costs its item and nothing else.
Results must not depend on which executor ran them or on the order of completion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from openus_data.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")
FailureKind = Literal["error", "memory", "timeout", "died"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an item has no value.

    Args:
        kind: the task raised (`error`), went beyond a limit (`memory`, `timeout`), or took its worker down (`died`).
        detail: one line without identity: the text of an OpenUSDataError, else only the type and place of the error.
    """

    kind: FailureKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T, R]):
    """What became of one item.

    Args:
        index: place of the item in the input.
        item: the item itself.
        value: what the task returned; None after a failure.
        failure: set when the task gave no value.
    """

    index: int
    item: T = field(repr=False)
    value: R | None = field(default=None, repr=False)
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """Bounds per item.

    Args:
        seconds: wall clock; the worker is ended beyond it. 0 for none.
        memory_mb: what a worker may allocate on top of what it holds when it is ready, in MiB. 0 for none.
    """

    seconds: float = 120.0
    memory_mb: int = 1200


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs a task over items; any number of items in flat memory.

    As a context manager it may keep its workers from one run to the next, which need not start anew.
    """

    def run(
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = False,
        limits: TaskLimits | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """Yield one outcome per item.

        Args:
            task: importable by name from another process, as a function or a partial of one.
            items: taken lazily, a bounded number ahead of the outcomes.
            ordered: in the order of the items, else as they are done.
            limits: per item; None for those of the executor.
        """
        ...


def open_executor(name: str, *, workers: int | None = None, limits: TaskLimits | None = None) -> Executor:
    """The executor `local` or `ray`.

    Args:
        name: as `--executor` says.
        workers: processes (local) or tasks at once (ray); None for as many as there are cores.
        limits: per item.

    Raises:
        UsageError: another name, or less than one worker.
        MissingExtra: Ray is not installed.
    """
    count = os.cpu_count() or 1 if workers is None else workers
    if count < 1:
        raise UsageError("no workers", expected="at least 1", got=str(count))
    if name == "local":
        from openus_data.executor.local import LocalExecutor

        return LocalExecutor(workers=count, limits=limits)
    if name == "ray":
        from openus_data.executor.ray import RayExecutor

        return RayExecutor(workers=count, limits=limits)
    raise UsageError("unknown executor", expected="local or ray", got=name)
