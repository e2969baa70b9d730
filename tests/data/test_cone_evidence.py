"""What counts as background, chrome and echo."""

from __future__ import annotations

import cv2
import numpy as np

from openus_data.cone.confidence import confidence
from openus_data.cone.evidence import background_levels, gather
from openus_data.cone.parts import find_parts, measure


def test_flat_levels_on_the_rim_are_background_and_speckle_is_not() -> None:
    rng = np.random.default_rng(0)
    assert background_levels(np.full((90, 120), 57, np.uint8)) == (57,)
    assert background_levels(rng.integers(0, 255, (90, 120), dtype=np.uint8)) == ()
    header = np.zeros((90, 120), np.uint8)
    header[:20] = 94
    assert set(background_levels(header)) == {0, 94}


def test_of_levels_about_as_frequent_the_darker_is_background() -> None:
    frame = np.zeros((90, 120), np.uint8)
    frame[:, 58:] = 1
    assert background_levels(frame) == (0,)


def test_a_level_along_one_side_alone_is_echo_that_the_frame_cuts() -> None:
    frame = np.full((90, 120), 70, np.uint8)
    cv2.fillPoly(frame, [np.array([(60, 20), (110, 89), (10, 89)])], 1)
    assert background_levels(frame) == (70,)
    frame[40:, :60] = 1
    assert set(background_levels(frame)) == {70, 1}


def test_a_page_shows_the_levels_of_its_frame() -> None:
    page = np.full((300, 400), 230, np.uint8)
    page[60:260, 40:340] = 0
    page[60:90, 40:340] = 58
    page[120:260, 100:280] = np.random.default_rng(1).integers(20, 200, (140, 180))
    assert set(background_levels(page)) == {230, 58, 0}


def test_a_level_above_the_bars_is_a_frames_own_if_its_rim_is_drawn_and_something_is_bright() -> None:
    frame = np.zeros((300, 400), np.uint8)
    frame[40:260, 50:350] = 1
    assert background_levels(frame) == (0,)
    frame[100:200, 120:280] = 90
    assert background_levels(frame) == (0, 1)


def test_strokes_of_text_are_no_echo_and_buttons_are_chrome() -> None:
    frame = np.zeros((600, 800), np.uint8)
    cv2.putText(frame, "DOE JANE 12:31", (100, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1, cv2.LINE_AA)
    frame[300:360, 600:700] = 120
    evidence = gather(frame)
    sx, sy = evidence.scale
    assert find_parts(evidence, 0) is None
    assert evidence.chrome[int(330 / sy), int(650 / sx)]


def test_a_dark_scan_area_one_level_above_black_is_seen() -> None:
    frame = np.zeros((600, 800), np.uint8)
    frame[100:500, 200:600] = 1
    evidence = gather(frame)
    sx, sy = evidence.scale
    assert (evidence.level[int(150 / sy) : int(450 / sy), int(250 / sx) : int(550 / sx)] >= 1).all()


def test_confidence_rises_with_merit_and_stays_a_probability() -> None:
    values = [confidence(merit) for merit in np.linspace(-3, 3, 50)]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] < 1


def test_parts_are_measured_as_opencv_measures_them() -> None:
    cells = (np.random.default_rng(1).random((40, 50)) > 0.6).astype(np.uint8)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(cells, connectivity=4)
    area, rows = measure(cells, np.asarray(labels, np.uint16), count)
    assert (area[1:] == stats[1:, cv2.CC_STAT_AREA]).all()
    assert np.allclose(rows[1:] / area[1:], centres[1:, 1])
