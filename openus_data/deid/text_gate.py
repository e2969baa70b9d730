"""How likely a candidate line is text: boosted trees whose splits lie in `data/text_gate.json`.

    probability = chances(lines.features)      # (N,)

Trained by `benchmarks/train_text.py` on words laid over real and made-up ultrasound. Every tree is complete: all
trees and lines are walked at once.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_features import FEATURES

MODEL: Final = "text_gate.json"
_Level = tuple[NDArray[np.int64], NDArray[np.float32]]
_FIRST: Final = 20
"""Trees that every line walks; the others are for those that still may be text after them."""
_HOPELESS: Final = -4.2
"""Log-odds after the first trees at which a line is given up."""


@dataclass(frozen=True, eq=False)
class Trees:
    """Complete trees of one depth.

    Args:
        feature: index of the measured value of each inner node, int (T, 2**depth - 1), children of k at 2k+1 and 2k+2.
        threshold: a value above it goes right, float (T, 2**depth - 1).
        leaf: log-odds that are added, float (T, 2**depth).
        start: log-odds before any tree.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float64]
    start: float


def chances(features: NDArray[np.float64], trees: Trees | None = None) -> NDArray[np.float64]:
    """Probability of being text for each row of features, in [0, 1].

    Args:
        features: (N, len(FEATURES)).
        trees: the trees, or None for the packaged ones.
    """
    trees = trees or load_trees()
    odds = np.full(len(features), trees.start)
    left = np.arange(len(features))
    for first, last in itertools.pairwise((0, _FIRST, len(trees.leaf))):
        odds[left] += _walked(np.ascontiguousarray(features[left], np.float32), trees, first, last)
        left = left[odds[left] > _HOPELESS]
    return np.asarray(1 / (1 + np.exp(-odds)))


def _walked(features: NDArray[np.float32], trees: Trees, first: int, last: int) -> NDArray[np.float64]:
    """Sum of the leaves that some of the trees lead each row to, (N,)."""
    row = np.arange(len(features))[:, None] * features.shape[1]
    at = np.arange(last - first)[None]
    values = features.ravel()
    levels, leaf = _by_level(trees, first, last)
    for split, threshold in levels:
        at = 2 * at + (values.take(row + split.take(at)) > threshold.take(at))
    return np.asarray(leaf.take(at).sum(axis=1))


@lru_cache(maxsize=8)
def _by_level(trees: Trees, first: int, last: int) -> tuple[list[_Level], NDArray[np.float64]]:
    """Features and thresholds of some of the trees, level by level, each tree by tree, and their leaves."""
    depth = trees.leaf.shape[1].bit_length() - 1
    nodes = [np.s_[first:last, 2**level - 1 : 2 ** (level + 1) - 1] for level in range(depth)]
    return [(trees.feature[n].ravel(), trees.threshold[n].ravel()) for n in nodes], trees.leaf[first:last].ravel()


@cache
def load_trees() -> Trees:
    """The packaged trees.

    Raises:
        ValueError: they were trained on other features.
    """
    stored = json.loads((files("openus_data.data") / MODEL).read_text(encoding="utf-8"))
    if tuple(stored["features"]) != FEATURES:
        raise ValueError(f"{MODEL} was trained on other features: run benchmarks/train_text.py")
    return Trees(
        feature=np.asarray(stored["feature"], np.int64),
        threshold=np.asarray(stored["threshold"], np.float32),
        leaf=np.asarray(stored["leaf"], np.float64),
        start=float(stored["start"]),
    )
