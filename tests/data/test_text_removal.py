"""Words go without a trace of their box, and nothing of what is around is copied over them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.deid.text_removal import filled, text_mask
from openus_data.phantom import phantom

BOX = (206, 232, 350, 258)


def tissue(seed: int = 4) -> NDArray[np.uint8]:
    return np.asarray(phantom(seed, geometry="curvilinear", width=640, height=480, interface=False).image)


def written(pixels: NDArray[np.uint8], colour: int | tuple[int, int, int] = 255) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.putText(pixels.copy(), "DOE JANE 1970", (210, 250), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)
    )


@pytest.mark.parametrize(("ground", "colour"), [(10, 255), (225, 10)], ids=["dark label", "light label"])
def test_a_label_goes_with_its_word(ground: int, colour: int) -> None:
    plain = tissue()
    label = plain.copy()
    label[228:262, 200:356] = ground
    cleaned = filled(written(label, colour), [BOX])
    edge = np.zeros(plain.shape, bool)
    edge[228:262, 200:356] = True
    edge[231:259, 203:353] = False
    assert np.abs(cleaned[edge].astype(int) - ground).mean() > 40
    assert abs(float(cleaned[230:260, 202:354].mean()) - float(plain[230:260, 202:354].mean())) < 12


def test_black_ground_stays_black_beside_a_bright_layer() -> None:
    pixels = np.zeros((480, 640), np.uint8)
    pixels[275:285] = 220
    cleaned = filled(written(pixels), [BOX])
    assert cleaned[:270].max() < 30 and (cleaned[275:285] == 220).all()


def test_coloured_words_as_bright_as_the_tissue_go() -> None:
    plain = np.full((480, 640, 3), 180, np.uint8)
    cleaned = filled(written(plain, (0, 190, 0)), [BOX])
    assert np.ptp(cleaned, axis=2).max() < 30


def test_only_letters_are_holes_on_tissue() -> None:
    plain = tissue()
    holes = text_mask(written(plain), [BOX])
    letters = written(plain) != plain
    assert (holes[letters] > 0).mean() > 0.97
    assert not holes[: BOX[1]].any() and not holes[BOX[3] :].any()


def test_an_empty_box_and_one_that_fills_the_picture_are_survived() -> None:
    plain = tissue()
    assert (filled(plain, [(5, 5, 5, 9)]) == plain).all()
    assert filled(plain, [(0, 0, 640, 480)]).shape == plain.shape


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 50, 3), (9, 9)])
def test_tiny_pictures_are_filled(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 100, np.uint8)
    pixels[0, 0] = 255
    cleaned = filled(pixels, [(0, 0, 1, 1)])
    assert cleaned.shape == shape and (cleaned == 100).all()


def test_a_hole_in_even_ground_takes_its_level() -> None:
    plain = np.full((120, 200), 90, np.uint8)
    assert (filled(cv2.putText(plain.copy(), "AB", (60, 70), 0, 0.8, 250, 2), [(55, 45, 110, 75)]) == plain).all()


def test_what_lies_outside_the_scan_area_stays_black_and_darkens_nothing() -> None:
    inside = np.zeros((480, 640), bool)
    inside[:, 280:] = True
    plain = np.where(inside, np.uint8(150), np.uint8(0))
    shown = written(plain) * inside
    assert not np.array_equal(shown, plain) and np.array_equal(filled(shown, [BOX], inside), plain)


def test_no_stem_of_a_large_bold_letter_stays() -> None:
    shown = tissue() // 4
    for left in (150, 220, 290):  # a C: a stem of 11 px between thin strokes
        shown[230:272, left : left + 11] = shown[230:234, left : left + 40] = shown[268:272, left : left + 40] = 255
    assert text_mask(shown, [(148, 228, 332, 274)])[shown == 255].all()
