"""Which sample stands at which place of an endless stream: pure functions of (seed, place), so resuming is an integer.

Place p of the stream belongs to epoch p // n. Without weights, an epoch is a permutation of all samples; with weights,
each place draws with replacement. The order is that of the *global* batch: ranks take slices of it, so the world size
may change at equal global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_EPOCH, _DRAW, _VIEW = 1, 2, 3
"""Streams of random numbers that must not meet."""


def view_generator(seed: int, place: int) -> np.random.Generator:
    """The random numbers of the views at one place; independent of ranks and workers."""
    return np.random.Generator(np.random.Philox(key=[(seed << 8) + _VIEW, place]))


@dataclass(slots=True)
class Order:
    """The endless order of n samples.

    Args:
        size: n.
        seed: of the run.
        weights: (n,) chances, not necessarily summing to one; None for plain epochs.
    """

    size: int
    seed: int
    weights: NDArray[np.float64] | None = None
    _epoch: int = -1
    _permutation: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    _cumulative: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    def __post_init__(self) -> None:
        if self.weights is not None:
            self._cumulative = np.cumsum(self.weights / self.weights.sum())

    def at(self, start: int, count: int) -> NDArray[np.int64]:
        """The samples at places start .. start + count - 1."""
        if self.weights is not None:
            draws = [self._chance(place) for place in range(start, start + count)]
            return np.minimum(np.searchsorted(self._cumulative, draws, side="right"), self.size - 1).astype(np.int64)
        taken = []
        while count > 0:
            epoch, first = divmod(start, self.size)
            part = self._permuted(epoch)[first : first + count]
            taken.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(taken)

    def _chance(self, place: int) -> float:
        return np.random.Generator(np.random.Philox(key=[(self.seed << 8) + _DRAW, place])).random()

    def _permuted(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[(self.seed << 8) + _EPOCH, epoch]))
            self._permutation, self._epoch = generator.permutation(self.size), epoch
        return self._permutation


def balanced_weights(groups: Sequence[tuple[str | None, ...]], temperature: float) -> NDArray[np.float64]:
    """Chance of each sample so that a group of n samples is drawn in proportion to n ** temperature.

    Args:
        groups: the sample's group, for example (dataset, organ); unknown is a group of its own.
        temperature: 1 leaves the mix as it is, 0 draws every group alike, 0.5 is the usual middle.

    Returns:
        (n,) weights that sum to one.
    """
    keys = ["\x1f".join("\x00" if part is None else part for part in group) for group in groups]
    _, inverse, counts = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    weights = counts.astype(np.float64)[inverse] ** (temperature - 1.0)
    return np.asarray(weights / weights.sum())
