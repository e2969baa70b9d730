"""Fits the curve of openus_data/cone/confidence.py, and judges it on sources that it was not fitted to.

Used by benchmarks/cone.py, which prints the curve and the reliability table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openus_data.cone.confidence import CURVE

Reals = NDArray[np.float64]
KNOTS = np.array([0.5, 0.8, 1.0, 1.15, 1.3, 1.4, 1.5])
EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01)


def merit_of(confidence: Reals) -> Reals:
    """The merits behind stated confidences (N,)."""
    at, value = np.array(CURVE).T
    merit: Reals = np.interp(confidence, value, at)
    return merit


def fitted(merit: Reals, good: Reals, weight: Reals) -> Reals:
    """Shares of good outlines at the knots, rising: local means, neighbours that fall pooled.

    Args:
        merit: (N,).
        good: (N,), 1 where the outline is right.
        weight: (N,), less than 1 for pictures that are changes of one.
    """
    bounded = np.clip(merit, KNOTS[0], KNOTS[-1])
    hats = np.stack([np.interp(bounded, KNOTS, np.eye(len(KNOTS))[k]) for k in range(len(KNOTS))], 1) * weight[:, None]
    pools = [[(g + 0.5) / (n + 1), n, 1] for g, n in zip((hats * good[:, None]).sum(0), hats.sum(0), strict=True)]
    number = 0
    while number < len(pools) - 1:
        (a, n, i), (b, m, j) = pools[number : number + 2]
        if a > b:
            pools[number : number + 2] = [[(a * n + b * m) / (n + m), n + m, i + j]]
            number = max(0, number - 1)
        else:
            number += 1
    return np.concatenate([np.full(int(times), value) for value, _, times in pools])


def held_out(merit: Reals, good: Reals, weight: Reals, sources: Sequence[str]) -> Reals:
    """For each case (N,), what a curve says that was fitted without its source."""
    stated = np.zeros_like(merit)
    names = np.array(sources)
    for source in sorted(set(sources)):
        own = names == source
        stated[own] = np.interp(merit[own], KNOTS, fitted(merit[~own], good[~own], weight[~own]))
    return stated


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share seen in `count` cases."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return middle - half, middle + half
