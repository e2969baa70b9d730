"""The threads of a fetch: results in order, errors only once nothing runs any more."""

from __future__ import annotations

import threading

import pytest

from openus_data.fetch.workers import Workers


def test_results_keep_the_order_of_what_they_belong_to_whoever_is_quick() -> None:
    turn = [threading.Event() for _ in range(3)]

    def work(index: int) -> str:
        if index < 2:
            turn[index + 1].wait()  # the last one ends first
        turn[index].set()
        return f"r{index}"

    workers = Workers(3, "test")
    assert workers.map(work, range(3)) == ["r0", "r1", "r2"]
    assert workers.map(work, []) == []
    workers.close()


def test_an_error_waits_for_what_runs_and_stops_what_has_not_begun() -> None:
    begun, ended, both, failed = [], [], threading.Barrier(2), threading.Event()

    class Fault(BaseException):
        pass

    def work(index: int) -> None:
        begun.append(index)
        both.wait()
        if index == 0:
            failed.set()
            raise Fault
        failed.wait()
        threading.Event().wait(0.2)  # still at work when the other has failed
        ended.append(index)

    workers = Workers(2, "test")
    with pytest.raises(Fault):
        workers.map(work, range(20))
    assert sorted(begun) == [0, 1]
    assert ended == [1]
    assert workers.map(str, [7]) == ["7"]
    workers.close()
