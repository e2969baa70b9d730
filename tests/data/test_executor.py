"""The pool of processes: every item comes back once, whatever happens to its worker."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from openus_data.errors import DecodeError, UsageError
from openus_data.executor import Outcome, TaskLimits, open_executor
from openus_data.executor.local import LocalExecutor

Result = list[Outcome[int, int]]


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0.0)
    return number


def misbehave(number: int, *, how: str, bad: int) -> int:
    """Do one bad thing at one number."""
    if number != bad:
        return number
    if how == "raise":
        raise ValueError("SECRET^NAME /home/secret")
    if how == "refuse":
        raise DecodeError("not a picture", expected="a picture")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "hang":
        while True:
            pass
    if how == "memory":
        return len(bytearray(3 << 30))
    if how == "unpicklable":
        return lambda: 0  # type: ignore[return-value]
    return number


def load_late(flag: str) -> partial[int]:
    """Make `square`: at once in the worker that comes first, after a while in the other."""
    try:
        Path(flag).touch(exist_ok=False)
    except FileExistsError:
        time.sleep(1.0)
    return partial(square)


class LateInOne:
    """A task that one of two workers has loaded only when the other has done the work."""

    def __init__(self, flag: Path) -> None:
        self._flag = str(flag)

    def __reduce__(self) -> tuple[Callable[[str], partial[int]], tuple[str]]:
        return load_late, (self._flag,)

    def __call__(self, number: int) -> int:
        raise NotImplementedError  # only what it loads as is called


def die_once(number: int, *, flag: str) -> int:
    if number == 3 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def threads_of_libraries(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def pid(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def meet(_: int, *, folder: Path) -> int:
    """Wait until two processes are here."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    late = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < late:
        time.sleep(0.01)
    return os.getpid()


def megabytes(number: int) -> int:
    return len(bytearray(number << 20)) >> 20


def by_index(outcomes: Iterator[Outcome[int, int]]) -> Result:
    return sorted(outcomes, key=lambda outcome: outcome.index)


def doubled(data: bytes) -> bytes:
    return data + data


def test_items_and_results_larger_than_a_socket_do_not_block_each_other() -> None:
    items = [bytes([n]) * (1 << 10 if n % 3 else 1 << 20) for n in range(90)]
    outcomes = list(LocalExecutor(workers=2).run(doubled, items, ordered=True))
    assert [outcome.value for outcome in outcomes] == [doubled(item) for item in items]


def test_every_item_comes_back_once_with_its_value() -> None:
    outcomes = by_index(LocalExecutor(workers=2).run(square, range(500)))
    assert [outcome.item for outcome in outcomes] == list(range(500))
    assert [outcome.value for outcome in outcomes] == [number * number for number in range(500)]


def test_ordered_gives_the_order_of_the_items() -> None:
    outcomes = list(LocalExecutor(workers=2).run(slow_first, range(60), ordered=True))
    assert [outcome.value for outcome in outcomes] == list(range(60))


def test_no_items_start_no_worker() -> None:
    assert list(LocalExecutor(workers=2).run(square, [])) == []


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("raise", "error"),
        ("refuse", "error"),
        ("segfault", "died"),
        ("exit", "died"),
        ("hang", "timeout"),
        ("memory", "memory"),
        ("unpicklable", "error"),
    ],
)
def test_a_bad_item_fails_by_name_and_costs_no_other(how: str, kind: str) -> None:
    limits = TaskLimits(seconds=0.5, memory_mb=500)
    task = partial(misbehave, how=how, bad=7)
    outcomes = by_index(LocalExecutor(workers=2, limits=limits).run(task, range(20)))
    assert [outcome.index for outcome in outcomes] == list(range(20))
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert [outcome.item for outcome in failed] == [7]
    assert failed[0].failure is not None and failed[0].failure.kind == kind
    assert [outcome.value for outcome in outcomes if not outcome.failure] == [n for n in range(20) if n != 7]
    assert "SECRET" not in failed[0].failure.detail and "secret" not in failed[0].failure.detail


def test_a_worker_that_dies_by_chance_costs_nothing(tmp_path: Path) -> None:
    task = partial(die_once, flag=str(tmp_path / "flag"))
    outcomes = by_index(LocalExecutor(workers=1).run(task, range(8)))
    assert [outcome.value for outcome in outcomes] == list(range(8))


def test_many_bad_items_do_not_stop_the_run() -> None:
    task = partial(misbehave, how="exit", bad=1)
    outcomes = by_index(LocalExecutor(workers=2).run(task, [1, 0, 1, 0, 1]))
    assert [outcome.value for outcome in outcomes] == [None, 0, None, 0, None]


def test_items_are_taken_only_a_window_ahead() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    run = LocalExecutor(workers=2, window=40).run(square, endless())
    for _ in range(100):
        next(run)
    run.close()  # type: ignore[attr-defined]
    assert taken <= 100 + 40 + 2


def test_closing_ends_the_workers_at_once() -> None:
    run = LocalExecutor(workers=2).run(pid, range(1000))
    workers = {next(run).value for _ in range(40)}
    started = time.monotonic()
    run.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 1
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker or 0, 0)


def pids_of_two(executor: LocalExecutor, folder: Path) -> set[int | None]:
    return {outcome.value for outcome in executor.run(partial(meet, folder=folder), range(8))}


def test_inside_a_block_workers_stay_for_the_next_run_and_take_its_task_and_limits(tmp_path: Path) -> None:
    with LocalExecutor(workers=2, limits=TaskLimits(memory_mb=100)) as executor:
        first = pids_of_two(executor, tmp_path / "first")
        assert [outcome.value for outcome in executor.run(square, range(5), ordered=True)] == [0, 1, 4, 9, 16]
        assert [outcome.value for outcome in executor.run(megabytes, [400])] == [None]
        assert [outcome.value for outcome in executor.run(megabytes, [400], limits=TaskLimits(memory_mb=0))] == [400]
        assert pids_of_two(executor, tmp_path / "last") == first
    for worker in first:
        with pytest.raises(ProcessLookupError):
            os.kill(worker or 0, 0)


def test_a_worker_too_late_for_one_run_stays_for_the_next(tmp_path: Path) -> None:
    with LocalExecutor(workers=2) as executor:
        first = pids_of_two(executor, tmp_path / "first")
        late = executor.run(LateInOne(tmp_path / "flag"), range(3), ordered=True)
        assert [outcome.value for outcome in late] == [0, 1, 4]
        assert pids_of_two(executor, tmp_path / "last") == first


def test_a_worker_that_died_between_two_runs_is_replaced() -> None:
    with LocalExecutor(workers=1) as executor:
        (first,) = {outcome.value or 0 for outcome in executor.run(pid, range(3))}
        os.kill(first, signal.SIGKILL)
        assert [outcome.value for outcome in executor.run(square, range(3), ordered=True)] == [0, 1, 4]


def test_without_a_block_no_worker_outlives_its_run() -> None:
    executor = LocalExecutor(workers=1)
    assert len({outcome.value for _ in range(2) for outcome in executor.run(pid, range(3))}) == 2


def test_workers_run_their_libraries_on_one_thread() -> None:
    assert [outcome.value for outcome in LocalExecutor(workers=1).run(threads_of_libraries, [0])] == ["1"]


def test_a_task_that_cannot_travel_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot travel"):
        list(LocalExecutor(workers=1).run(lambda number: number, [1]))


def test_a_task_that_cannot_be_loaded_is_a_usage_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from openus_data.executor import open_executor\n"
        "def task(n): return n\n"
        "try: list(open_executor('local', workers=1).run(task, [1]))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "UsageError"


def test_an_interrupt_ends_the_run_quickly_and_leaves_no_worker(tmp_path: Path) -> None:
    (tmp_path / "tasks_here.py").write_text("import time\ndef task(n): time.sleep(30)\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from openus_data.executor import open_executor\nfrom tasks_here import task\n"
        "print('go', flush=True)\n"
        "try: list(open_executor('local', workers=2).run(task, range(9)))\n"
        "except KeyboardInterrupt: raise SystemExit(130)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"go\n"
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=5) == 130
    process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "tasks_there.py").write_text(
        "import os, time\ndef task(n):\n    print(os.getpid(), file=open('pids', 'a'))\n    time.sleep(0.3)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "from openus_data.executor import open_executor\nfrom tasks_there import task\n"
        "list(open_executor('local', workers=2).run(task, range(999)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (tmp_path / "pids").exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(1.5)
    for worker in {int(line) for line in (tmp_path / "pids").read_text().split()}:
        state = Path(f"/proc/{worker}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_unknown_executors_and_no_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="local or ray"):
        open_executor("slurm")
    with pytest.raises(UsageError, match="at least 1"):
        open_executor("local", workers=0)


def test_outcomes_hide_items_from_logs() -> None:
    assert "secret" not in repr(Outcome(index=0, item="secret", value="secret"))
