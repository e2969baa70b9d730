"""How far scattered faint echo reaches beyond a border."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone import detect, raster
from openus_data.cone.fade import reach
from openus_data.phantom import phantom

Grey = NDArray[np.uint8]
ALONG = 60 + 280 * (np.arange(128) + 0.5) / 128
START = np.stack([ALONG, np.full(128, 150.0)], 1)
WAY = np.full((128, 2), (0.0, 140.0))


def picture(*, inside: int, faint_to: int) -> Grey:
    """Echo of a level in the rows 50 to 150, then a pixel in ten at level 1 down to a row."""
    frame = np.zeros((300, 400), np.uint8)
    frame[50:150, 60:340] = inside
    scattered = np.random.default_rng(3).random((300, 400)) < 0.1
    scattered[:150], scattered[faint_to:], scattered[:, :60], scattered[:, 340:] = False, False, False, False
    frame[scattered] = 1
    return frame


def test_scattered_pixels_along_a_dark_border_are_echo_down_to_the_last_of_them() -> None:
    found = 140 * reach(START, WAY, picture(inside=2, faint_to=220))
    assert abs(found - 70) <= 2


def test_nothing_beyond_a_border_moves_nothing() -> None:
    assert reach(START, WAY, picture(inside=2, faint_to=150)) == 0.0


def test_a_bright_border_is_the_scanners_own() -> None:
    assert reach(START, WAY, picture(inside=90, faint_to=220)) == 0.0


def test_noise_without_an_end_is_no_echo() -> None:
    assert reach(START, WAY, picture(inside=2, faint_to=300)) == 0.0


def test_words_below_a_dark_border_are_no_echo() -> None:
    frame = picture(inside=2, faint_to=150)
    cv2.putText(frame, "9.0 cm", (70, 190), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 10, 1, cv2.LINE_AA)
    assert reach(START, WAY, frame) == 0.0


def test_the_faint_depth_of_an_attenuated_linear_array_is_kept() -> None:
    made = phantom(50_022, geometry="linear", width=320, height=240, conditions=("dark_far",))
    lost = made.inside & ~raster(detect(made.image), 240, 320)
    faint = made.inside & (made.image > 0)
    assert (lost & faint).sum() < 0.02 * faint.sum()


def test_a_colour_bar_that_touches_a_fan_is_no_part_of_it() -> None:
    made = phantom(6, geometry="curvilinear", width=640, height=480, interface=False)
    frame = made.image.copy()
    _, y0, x1, y1 = made.cone.box
    frame[y0 : (y0 + y1) // 2, x1 - 4 : x1 + 8] = np.linspace(255, 30, (y0 + y1) // 2 - y0).astype(np.uint8)[:, None]
    found = raster(detect(frame), 480, 640)
    assert (found & made.inside).sum() / (found | made.inside).sum() > 0.97
