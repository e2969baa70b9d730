"""Candidates lie where the strokes are, whatever family of thresholds saw them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from openus_data.deid.text_features import FEATURES
from openus_data.deid.text_lines import Lines, candidate_lines
from openus_data.deid.text_runs import joined, runs_of
from openus_data.deid.text_strokes import relief, stroke_families

H, W = 120, 240


def lines_of(pixels: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None) -> Lines:
    return candidate_lines(relief(pixels, inside))


def word(place: tuple[int, int], ground: int = 0, level: int = 255) -> NDArray[np.uint8]:
    out = np.full((H, W), ground, np.uint8)
    return np.asarray(cv2.putText(out, "SMITH", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, level, 1, cv2.LINE_AA))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 150), st.integers(0, H + 8))
def test_a_box_stays_in_the_picture_and_holds_strokes(x: int, y: int) -> None:
    pixels = word((x, y))
    lines = lines_of(pixels)
    assert lines.features.shape == (len(lines.boxes), len(FEATURES)) and np.isfinite(lines.features).all()
    for x0, y0, x1, y1 in lines.boxes.tolist():
        assert 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H and pixels[y0:y1, x0:x1].max() > 70


def test_words_at_the_upper_and_the_lower_edge_do_not_join() -> None:
    pixels = np.maximum(word((20, 11)), word((20, H - 1)))
    heights = lines_of(pixels).boxes[:, 3] - lines_of(pixels).boxes[:, 1]
    assert len(heights) >= 2 and heights.max() < 20


@pytest.mark.parametrize(("ground", "level"), [(0, 255), (40, 255), (225, 10)], ids=["on black", "on grey", "dark"])
def test_a_word_is_one_line(ground: int, level: int) -> None:
    pixels = word((40, 60), ground, level)
    changed = np.argwhere(np.abs(pixels.astype(int) - ground) > 90)
    (top, left), (foot, right) = changed.min(axis=0), changed.max(axis=0) + 1
    assert any(np.abs(box - (left, top, right, foot)).max() <= 3 for box in lines_of(pixels).boxes)


def test_coloured_words_as_bright_as_their_ground_are_seen() -> None:
    pixels = np.full((H, W, 3), 200, np.uint8)
    cv2.putText(pixels, "SMITH", (40, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 205, 0), 1, cv2.LINE_AA)
    assert len(lines_of(pixels).boxes) and not len(lines_of(np.ascontiguousarray(pixels.max(axis=2))).boxes)


def test_no_family_sees_what_lies_outside() -> None:
    pixels = np.repeat(np.maximum(word((20, 40)), word((20, 90)))[..., None], 3, axis=2)
    inside = np.zeros((H, W), bool)
    inside[60:] = True
    rows = np.concatenate([strokes.at for strokes in stroke_families(relief(pixels, inside))]) // W
    assert len(rows) and rows.min() >= 60
    assert all(box[1] >= 60 for box in lines_of(pixels, inside).boxes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1.0), st.integers(1, 30))
def test_runs_are_the_strokes_and_those_that_touch_have_one_letter(seed: int, share: float, width: int) -> None:
    mask = np.random.default_rng(seed).random((20, width)) < share
    runs = runs_of(np.flatnonzero(mask), width)
    group, count = joined(runs, width)
    drawn = np.zeros(mask.shape, np.int64)
    for y, x0, x1, letter in zip(*runs, group, strict=True):
        drawn[y, x0:x1] = letter + 1
    expected, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    pairs = np.unique(np.stack([drawn.ravel(), labels.ravel()]), axis=1)
    assert np.array_equal(drawn > 0, mask) and count == expected - 1 == pairs.shape[1] - 1 * (not mask.all())


def test_ends_that_meet_far_down_share_one_letter() -> None:
    comb = np.zeros((40, 81), bool)
    comb[:-1, ::2] = True
    comb[-1] = comb[0, :40] = True
    for mask in (comb, comb[::-1]):
        _, count = joined(runs_of(np.flatnonzero(mask), 81), 81)
        assert count == 1


def test_dots_are_no_letters() -> None:
    pixels = np.zeros((H, W), np.uint8)
    pixels[10::12, 10::12] = 255
    assert not len(lines_of(pixels).boxes)
