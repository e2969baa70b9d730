"""Metrics held to values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
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


def test_a_bin_of_the_calibration_error_holds_its_upper_edge() -> None:
    truth, chances = np.array([0, 0]), np.array([[0.6, 0.4], [0.62, 0.38]])
    truth[0] = 1
    # (0.5, 0.6] holds the first, which is wrong; (0.6, 0.7] the second, which is right
    gaps = abs(0 - 0.6) + abs(1 - 0.62)
    assert expected_calibration_error(truth, chances, np.ones((1, 2)), bins=10) == pytest.approx(gaps / 2)


def test_a_class_that_a_fold_lacks_is_left_out_of_the_area_and_counts_in_f1_only_where_it_was_said() -> None:
    truth = np.array([0, 0, 1, 1])
    chances = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    one = np.ones((1, 4))
    areas = [roc_auc_score(truth == c, chances[:, c]) for c in (0, 1)]
    assert auroc(truth, chances, one) == pytest.approx(np.mean(areas))
    assert macro_f1(truth, chances, one) == pytest.approx(f1_score(truth, chances.argmax(1), average="macro"))
    # class 0: 1 of 1 said, 1 of 2 found; class 1: 1 of 2 said, 1 of 2 found; class 2: said once, never true
    assert macro_f1(truth, chances, one) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_the_interval_depends_on_neither_order_nor_run() -> None:
    rng = np.random.default_rng(3)
    values, subjects = rng.random(40), [f"s{k // 3}" for k in range(40)]
    order = rng.permutation(40)
    once, again = score_values(values, subjects), score_values(values, subjects)
    shuffled = score_values(values[order], [subjects[k] for k in order])
    assert once == again and shuffled.low == pytest.approx(once.low) and shuffled.high == pytest.approx(once.high)


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


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.31, 0.07), (0.05, 0.4)])
def test_the_distance_is_that_of_every_pair_of_outline_points(spacing: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.random((24, 31)) < 0.15 for _ in range(2))
    a[4:12, 6:17] = b[8:15, 3:19] = True

    def outline(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner) * np.array(spacing)

    pairs = cdist(outline(a), outline(b))
    expected = max(np.percentile(pairs.min(axis=1), 95), np.percentile(pairs.min(axis=0), 95))
    assert hd95(a, b, spacing) == pytest.approx(expected)
