"""Scores with error bars: classification and segmentation metrics, and a bootstrap by subject.

Images of one subject are not independent, so subjects are drawn, not images. Classification metrics take weights, how
often each image was drawn, for all draws at once: a thousand draws cost one pass. The tests hold them to scikit-learn
and to hand-computed values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

Scores = NDArray[np.float64]
Weights = NDArray[np.float64]
"""(draws, images): how often each image was drawn."""
DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value and its bootstrap interval.

    Args:
        value: on all images; None where it is not defined.
        low, high: percentile interval at 95 %; None where it is not defined.
        undefined: bootstrap draws in which the metric was not defined (a class was missing, say).
    """

    value: float | None
    low: float | None
    high: float | None
    undefined: int = 0

    def to_json(self) -> dict[str, float | int | None]:
        """One object."""
        return {"value": self.value, "low": self.low, "high": self.high, "undefined_draws": self.undefined}


def draw_weights(subjects: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Weights:
    """How often each image is drawn when subjects are drawn with replacement, (draws, images)."""
    names, inverse = np.unique(np.asarray(subjects), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, inverse].astype(np.float64)


def interval(metric: Callable[[Weights], NDArray[np.float64]], weights: Weights) -> Interval:
    """A metric on all images, and its percentile interval over the draws.

    Args:
        metric: of weights (draws, images), giving (draws,); NaN where it is not defined.
        weights: see `draw_weights`.
    """
    value = float(metric(np.ones((1, weights.shape[1])))[0])
    values = metric(weights)
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if not np.isfinite(value):
        return Interval(value=None, low=None, high=None, undefined=undefined)
    if len(defined) == 0:
        return Interval(value=value, low=None, high=None, undefined=undefined)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high), undefined=undefined)


def accuracy(truth: NDArray[np.int64], chance_NK: Scores, weights: Weights) -> NDArray[np.float64]:
    """Share of images whose likeliest class is right, per draw."""
    right = (chance_NK.argmax(axis=1) == truth).astype(np.float64)
    return np.asarray(weights @ right / weights.sum(axis=1))


def macro_f1(truth: NDArray[np.int64], chance_NK: Scores, weights: Weights) -> NDArray[np.float64]:
    """F1 score, averaged over the classes that occur in truth or prediction, per draw."""
    predicted = chance_NK.argmax(axis=1)
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for kind in range(chance_NK.shape[1]):
        hit = weights @ ((truth == kind) & (predicted == kind)).astype(np.float64)
        named = weights @ ((truth == kind).astype(np.float64) + (predicted == kind))
        total += np.divide(2 * hit, named, out=np.zeros_like(hit), where=named > 0)
        classes += named > 0
    return np.asarray(total / classes)


def auroc(truth: NDArray[np.int64], chance_NK: Scores, weights: Weights) -> NDArray[np.float64]:
    """Area under the ROC curve per draw: of class 1 where there are two, else one-versus-rest over the classes present.

    NaN in a draw with a single class. Computed as the chance that a positive image outranks a negative one, ties half.
    """
    kinds = [1] if chance_NK.shape[1] == 2 else range(chance_NK.shape[1])
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for kind in kinds:
        area = _rank_area(truth == kind, chance_NK[:, kind], weights)
        defined = np.isfinite(area)
        total += np.where(defined, area, 0)
        classes += defined
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def _rank_area(positive: NDArray[np.bool_], score: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    _, level = np.unique(score, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    up = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    down = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    pairs = up.sum(axis=1) * down.sum(axis=1)
    won = (up * below).sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def expected_calibration_error(
    truth: NDArray[np.int64], chance_NK: Scores, weights: Weights, bins: int = 15
) -> NDArray[np.float64]:
    """Gap between confidence and accuracy, averaged over equal-width bins of confidence by their size, per draw.

    A bin holds its upper edge, not its lower one, as in the source.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    confidence = chance_NK.max(axis=1)
    gap = confidence - (chance_NK.argmax(axis=1) == truth)
    index = np.maximum(np.ceil(confidence * bins - 1e-9).astype(int) - 1, 0)
    total = np.zeros(len(weights))
    for k in np.unique(index):
        total += np.abs(weights @ np.where(index == k, gap, 0))
    return np.asarray(total / weights.sum(axis=1))


ClassMetric = Callable[[NDArray[np.int64], Scores, Weights], NDArray[np.float64]]
CLASSIFICATION: Mapping[str, ClassMetric] = MappingProxyType(
    {"accuracy": accuracy, "macro_f1": macro_f1, "auroc": auroc, "ece": expected_calibration_error}
)


def score_classes(truth: NDArray[np.int64], chance_NK: Scores, subjects: Sequence[str]) -> dict[str, Interval]:
    """Every classification metric with its interval.

    Args:
        truth: (N,) class indices.
        chance_NK: predicted chances, rows sum to one.
        subjects: of each image.
    """
    weights = draw_weights(subjects)
    return {name: interval(lambda w, f=f: f(truth, chance_NK, w), weights) for name, f in CLASSIFICATION.items()}  # type: ignore[misc]


def score_values(values: NDArray[np.float64], subjects: Sequence[str]) -> Interval:
    """Mean of a per-image value with its interval; NaN values are left out."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def mean(weights: Weights) -> NDArray[np.float64]:
        total = weights @ known.astype(np.float64)
        return np.asarray(np.divide(weights @ filled, total, out=np.full(len(weights), np.nan), where=total > 0))

    return interval(mean, draw_weights(subjects))


def dice(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Dice similarity: 2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(truth.sum()) + int(found.sum())
    return 1.0 if total == 0 else float(2 * (truth & found).sum() / total)


def iou(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((truth | found).sum())
    return 1.0 if union == 0 else float((truth & found).sum() / union)


def hd95(truth: NDArray[np.bool_], found: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> float:
    """95th percentile of the distances between the outlines, the larger of both directions, in the spacing's unit.

    NaN where either mask is empty: a distance to nothing is not defined, and the report counts such images.
    """
    if not truth.any() or not found.any():
        return float("nan")
    edges = [mask & ~binary_erosion(mask, border_value=0) for mask in (truth, found)]
    far = [distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    return float(max(np.percentile(far[1][edges[0]], 95), np.percentile(far[0][edges[1]], 95)))
