"""The Ray executor keeps the promises of the local one. Skipped where Ray is not installed."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the [ray] extra is not installed")

from openus_data.executor import TaskLimits, open_executor  # noqa: E402


def square(number: int) -> int:
    return number * number


def misbehave(number: int, *, how: str) -> int:
    if number == 7 and how == "segfault":
        ctypes.string_at(0)
    if number == 7 and how == "raise":
        raise ValueError("SECRET")
    return number


def die_once(number: int, *, flag: str) -> int:
    if number == 20 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    yield
    ray.shutdown()


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray warns of its own threads and sockets


def test_ray_gives_what_local_gives() -> None:
    here = [outcome.value for outcome in open_executor("local", workers=2).run(square, range(100), ordered=True)]
    there = [outcome.value for outcome in open_executor("ray", workers=2).run(square, range(100), ordered=True)]
    assert there == here


@pytest.mark.parametrize(("how", "kind"), [("segfault", "died"), ("raise", "error")])
def test_a_bad_item_costs_no_other(how: str, kind: str) -> None:
    executor = open_executor("ray", workers=2, limits=TaskLimits(seconds=20))
    outcomes = sorted(executor.run(partial(misbehave, how=how), range(40)), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(40))
    (failed,) = [outcome for outcome in outcomes if outcome.failure]
    assert failed.item == 7 and failed.failure is not None and failed.failure.kind == kind
    assert "SECRET" not in failed.failure.detail


def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    task = partial(die_once, flag=str(tmp_path / "flag"))
    outcomes = list(open_executor("ray", workers=2).run(task, range(60), ordered=True))
    assert [outcome.value for outcome in outcomes] == list(range(60))
