"""Flow is told from coloured words, also after JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.deid.colour_flow import broad_colour, flow_patches, is_flow
from openus_data.deid.text_strokes import relief
from openus_data.phantom import phantom

COLOURS = [(255, 255, 0), (0, 255, 255), (90, 255, 90), (255, 165, 0)]
BOX = np.array([[150, 200, 420, 240]])


def tissue() -> NDArray[np.uint8]:
    return np.repeat(phantom(3, width=640, height=480, interface=False).image[..., None], 3, axis=2)


def flowing(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A patch of red to yellow and blue to cyan in the middle."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32), (0, 0), 6)
    towards = np.clip(np.abs(noise) / np.abs(noise).max() * 2, 0, 1)
    out = pixels.copy()
    window = out[150:350, 150:450]
    red = np.stack([np.full_like(towards, 230), 255 * towards, 60 * towards], axis=2)
    window[:] = np.where((noise > 0)[..., None], red, red[..., ::-1]).astype(np.uint8)
    return out


def jpeg(pixels: NDArray[np.uint8], quality: int = 75) -> NDArray[np.uint8]:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def patches_of(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    chroma = relief(pixels).chroma
    return None if chroma is None else flow_patches(chroma)


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("scale", [0.4, 0.6, 0.9])
def test_coloured_words_are_no_flow(colour: tuple[int, int, int], scale: float, is_compressed: bool) -> None:
    shown = tissue()
    cv2.putText(shown, "DOE JANE 1970", (150, 230), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 2, cv2.LINE_AA)
    assert patches_of(jpeg(shown) if is_compressed else shown) is None


@pytest.mark.parametrize("scale", [0.5, 0.9])
def test_a_block_of_coloured_lines_is_no_flow(scale: float) -> None:
    shown = tissue()
    for line in range(3):
        place = (150, 200 + round(36 * scale) * line)
        cv2.putText(shown, "1 D 3.16 cm SMITH", place, cv2.FONT_HERSHEY_SIMPLEX, scale, COLOURS[0], 2, cv2.LINE_AA)
    assert patches_of(jpeg(shown)) is None


def test_grey_tissue_has_no_colour() -> None:
    assert relief(tissue()).chroma is None
    assert broad_colour(np.zeros((1, 1), np.uint8)) is None


def test_colour_outside_the_scan_area_does_not_count() -> None:
    shown, inside = flowing(tissue()), np.ones((480, 640), bool)
    whole = relief(shown, inside).chroma
    assert whole is not None and whole[150:350, 150:450].mean() > 60
    inside[:, 150:] = False
    assert relief(shown, inside).chroma is None
    inside[300:, 150:] = True
    part = relief(shown, inside).chroma
    assert part is not None and np.array_equal(part[300:], whole[300:]) and not part[:300].any()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_flow_is_a_patch_and_its_strokes_are_no_letters(is_compressed: bool) -> None:
    shown = flowing(tissue())
    shown = jpeg(shown) if is_compressed else shown
    patches = patches_of(shown)
    assert patches is not None and patches[150:350, 150:450].mean() > 0.9
    assert not patches[:130].any() and not patches[370:].any()
    assert is_flow(shown, relief(shown).tophat, patches, BOX).all()


def test_white_letters_over_flow_are_letters() -> None:
    shown = flowing(tissue())
    cv2.putText(shown, "DOE JANE 1970", (160, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255,) * 3, 2, cv2.LINE_AA)
    patches = patches_of(shown)
    assert patches is not None
    assert not is_flow(shown, relief(shown).tophat, patches, BOX).any()
