"""Frame policies pick the same frames every time, and never more than asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openus_data.errors import UsageError
from openus_data.first_stage.frames import Novelty, evenly_spaced, planned_frames

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", list(range(10))),
        ("novel", list(range(10))),
        ("every 4", [0, 4, 8]),
        ("max 2", [2, 7]),
        ("max 99", list(range(10))),
        ("annotated", [1, 7]),
    ],
)
def test_each_policy_picks_its_frames(policy: str, expected: list[int]) -> None:
    assert planned_frames(policy, 10, annotated=[7, 1, 12]) == expected


@pytest.mark.parametrize("policy", ["", "every", "every 0", "every -1", "max x", "some"])
def test_another_policy_is_refused(policy: str) -> None:
    with pytest.raises(UsageError, match="unknown frame policy"):
        planned_frames(policy, 10)


@given(st.integers(0, 300), st.integers(1, 50))
def test_evenly_spaced_frames_are_rising_unlike_and_bounded(count: int, most: int) -> None:
    chosen = evenly_spaced(list(range(count)), most)
    assert len(chosen) == min(count, most) and chosen == sorted(set(chosen))


def test_novelty_keeps_what_differs_from_everything_kept() -> None:
    first, second = RNG.integers(0, 255, (2, 32, 32), dtype=np.uint8)
    nearly = np.clip(first.astype(int) + RNG.integers(-2, 3, first.shape), 0, 255).astype(np.uint8)
    novelty = Novelty(0.98)
    assert [novelty.is_new(t) for t in (first, nearly, second, first, second)] == [True, False, True, False, False]


def test_novelty_keeps_no_more_than_its_bound() -> None:
    novelty = Novelty(0.98, most=2)
    assert sum(novelty.is_new(t) for t in RNG.integers(0, 255, (5, 32, 32), dtype=np.uint8)) == 2
