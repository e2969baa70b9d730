"""How likely a candidate line is text: boosted trees whose splits lie in `data/text_gate.json`.

    probability = chances(lines.features)      # (N,)

Trained by `benchmarks/train_text.py` on words laid over real and made-up ultrasound. Every tree is complete: all
trees and lines are walked at once.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_lines import FEATURES

MODEL: Final = "text_gate.json"


class Trees(NamedTuple):
    """Complete trees of one depth.

    Args:
        feature: index of the measured value of each inner node, int (T, 2**depth - 1), children of k at 2k+1 and 2k+2.
        threshold: a value above it goes right, float (T, 2**depth - 1).
        leaf: log-odds that are added, float (T, 2**depth).
        start: log-odds before any tree.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    leaf: NDArray[np.float64]
    start: float


def chances(features: NDArray[np.float64], trees: Trees | None = None) -> NDArray[np.float64]:
    """Probability of being text for each row of features, in [0, 1].

    Args:
        features: (N, len(FEATURES)).
        trees: the trees, or None for the packaged ones.
    """
    trees = trees or load_trees()
    inner = trees.feature.shape[1]
    node = np.zeros((len(features), len(trees.leaf)), np.int64)
    row, tree = np.ogrid[: len(features), : len(trees.leaf)]
    for _ in range(inner.bit_length()):
        value = features[row, trees.feature[tree, node]]
        node = 2 * node + 1 + (value > trees.threshold[tree, node])
    odds = trees.start + trees.leaf[tree, node - inner].sum(axis=1)
    return np.asarray(1 / (1 + np.exp(-odds)))


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
        threshold=np.asarray(stored["threshold"], np.float64),
        leaf=np.asarray(stored["leaf"], np.float64),
        start=float(stored["start"]),
    )
