"""Runs of pixels along a row, and which of them hang together.

    runs = runs_of(at, width)
    group, count = joined(runs, width)

Runs are a few times fewer than pixels of strokes, and these are a few in a hundred of a picture's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NOWHERE: Final = 2**62
"""Behind every run."""


class Runs(NamedTuple):
    """Pixels next to each other in a row, from left to right and row by row; int arrays of one length.

    Args:
        y: row.
        x0, x1: half-open columns.
    """

    y: Ints
    x0: Ints
    x1: Ints

    def only(self, kept: Ints) -> Runs:
        """Some of them."""
        return Runs(*(part[kept] for part in self))


def runs_of(at: Ints, width: int) -> Runs:
    """The runs of some pixels.

    Args:
        at: row times width plus column of each, rising, int (P,).
        width: of the picture.
    """
    is_first = np.empty(len(at) + 1, bool)
    is_first[0] = is_first[-1] = True
    np.not_equal(at[1:], at[:-1] + 1, out=is_first[1:-1])
    is_first[:-1] |= at % width == 0
    first = np.flatnonzero(is_first)
    y = at[first[:-1]] // width
    x0 = at[first[:-1]] - y * width
    return Runs(y, x0, x0 + first[1:] - first[:-1])


def spread(first: Ints, lengths: Ints) -> Ints:
    """Every number of runs of numbers that go up by one."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(first - before, lengths) + np.arange(int(lengths.sum()))


def joined(runs: Runs, width: int) -> tuple[Ints, int]:
    """Group of each run, from 0 on, and how many groups there are; runs that touch, if only by a corner, share one.

    Each run points at the first that it touches in the next row, and follows these pointers down. Where it touches
    more than one, the ends that they lead to are then joined.
    """
    next_row = width + 1  # no run reaches into the row after the next
    start, end = runs.y * next_row + runs.x0, runs.y * next_row + runs.x1
    low = np.searchsorted(end, start + next_row)
    after = np.append(start, (_NOWHERE, _NOWHERE))
    root = _followed(np.where(after[low] <= end + next_row, low, np.arange(len(low))))
    forks = np.flatnonzero(after[low + 1] <= end + next_row)
    others = np.searchsorted(start, end[forks] + next_row, side="right") - low[forks] - 1
    one, other = root[np.repeat(forks, others)], root[spread(low[forks] + 1, others)]
    while (apart := one != other).any():
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        root = _followed(root)
        one, other = root[one], root[other]
    is_root = root == np.arange(len(root))
    return (np.cumsum(is_root) - 1)[root], int(is_root.sum())


def _followed(pointer: Ints) -> Ints:
    """Where each pointer ends."""
    while ((further := pointer[pointer]) != pointer).any():
        pointer = further
    return pointer
