"""Metrics held to values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from openus_model.evaluate.metrics import (
    accuracy,
    auroc,
    dice,
    expected_calibration_error,
    hd95,
    iou,
    macro_f1,
    score_classes,
    score_values,
)

TRUTH = np.array([0, 0, 1, 1, 1])
CHANCES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]])


ONE = np.ones((1, 5))


def test_accuracy_f1_auroc_and_ece_equal_the_hand_computed_values() -> None:
    assert accuracy(TRUTH, CHANCES, ONE) == pytest.approx(3 / 5)
    # class 0: precision 1/2, recall 1/2; class 1: precision 2/3, recall 2/3
    assert macro_f1(TRUTH, CHANCES, ONE) == pytest.approx((0.5 + 2 / 3) / 2)
    # pairs (negative, positive) by chance of class 1: 0.1 and 0.6 against 0.8, 0.3, 0.9: 5 of 6 in order
    assert auroc(TRUTH, CHANCES, ONE) == pytest.approx(5 / 6)
    # two bins over confidence 0.6 .. 0.9, all in [0.5, 1): mean confidence 0.78, accuracy 0.6
    assert expected_calibration_error(TRUTH, CHANCES, ONE, bins=2) == pytest.approx(0.78 - 0.6)


def test_weighted_metrics_agree_with_scikit_learn_on_random_draws_with_ties() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 60)
    chances = np.round(rng.dirichlet(np.ones(3), 60), 1) + 1e-3
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    for k, w in enumerate(weights):
        predicted = chances.argmax(axis=1)
        assert accuracy(truth, chances, weights)[k] == pytest.approx(accuracy_score(truth, predicted, sample_weight=w))
        f1 = f1_score(truth, predicted, average="macro", sample_weight=w)
        assert macro_f1(truth, chances, weights)[k] == pytest.approx(f1)
        areas = [roc_auc_score(truth == c, chances[:, c], sample_weight=w) for c in range(3)]
        assert auroc(truth, chances, weights)[k] == pytest.approx(np.mean(areas))


def test_a_single_class_has_no_auroc_and_says_so() -> None:
    scores = score_classes(np.zeros(4, int), np.tile([0.8, 0.2], (4, 1)), ["a", "b", "c", "d"])
    assert scores["auroc"].value is None and scores["auroc"].undefined == 1000
    assert scores["accuracy"].value == 1.0


def test_the_interval_is_by_subject_and_wider_than_by_image() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.7, 10).astype(float)  # the ten images of a subject agree
    ours = score_values(right, [f"s{k // 10}" for k in range(200)])
    naive = score_values(right, [str(k) for k in range(200)])
    assert ours.value == naive.value == pytest.approx(right.mean())
    assert ours.high - ours.low > 2 * (naive.high - naive.low)


def _square(size: int, at: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[at : at + side, at : at + side] = True
    return mask


def test_overlap_and_distance_equal_the_hand_computed_values() -> None:
    a, b = _square(20, 4, 8), _square(20, 6, 8)
    assert dice(a, b) == pytest.approx(2 * 36 / 128) and iou(a, b) == pytest.approx(36 / 92)
    line, far = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    line[2, :], far[6, :] = True, True
    assert hd95(line, far, (0.5, 3.0)) == pytest.approx(4 * 0.5)  # four rows of half a millimetre
    assert hd95(line.T, far.T, (0.5, 3.0)) == pytest.approx(4 * 3.0)


def test_empty_masks_agree_with_each_other_and_have_no_distance() -> None:
    empty, some = np.zeros((8, 8), bool), _square(8, 2, 3)
    assert dice(empty, empty) == 1.0 and dice(empty, some) == 0.0 and iou(empty, empty) == 1.0
    assert np.isnan(hd95(empty, some, (1.0, 1.0)))
