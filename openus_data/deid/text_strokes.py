"""Strokes: what is thinner than a letter's line and stands out of a picture.

    picture = relief(pixels, inside)
    for group in stroke_families(picture, inside): ...

A white top-hat keeps what is thinner than a letter's stroke. Three thresholds see different text: one held against the
local contrast of speckle finds faint words on calm ground, two absolute ones find bright words whose letters the first
would join with bright speckle. Dark words on a light ground are looked for in the inverted picture, and coloured ones,
which are hardly brighter than light tissue, in the picture of how coloured each pixel is.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

STROKE_PX: Final = 9
"""Side of the top-hat's square: thicker than any stroke of a letter, thinner than a layer of tissue."""
LIGHT_GROUND: Final = 110
"""Level from which a ground is light enough for dark words."""
USUAL_STEP: Final = 4
"""`Relief.usual` is this much smaller than the picture."""
_SQUARE: Final = np.ones((STROKE_PX, STROKE_PX), np.uint8)
_AROUND: Final = (15, 15)


class _Threshold(NamedTuple):
    least: float
    factor: float


_BRIGHT: Final = (_Threshold(40, 2.5), _Threshold(75, 0.0), _Threshold(120, 0.0))
_COLOURED: Final = _Threshold(70, 0.0)
_DARK_ON_LIGHT: Final = _Threshold(70, 4.0)
_FEW: Final = 20
"""Fewer dark pixels than the shortest word has are not looked at."""


class Relief(NamedTuple):
    """A picture and what stands out of it.

    Args:
        level: brightest channel, uint8 (H, W).
        tophat: how far it rises above anything as wide as `STROKE_PX`, uint8 (H, W).
        usual: mean of the top-hat around, uint8, smaller by `USUAL_STEP`.
        chroma: brightest less darkest channel, uint8 (H, W); None for grey.
    """

    level: NDArray[np.uint8]
    tophat: NDArray[np.uint8]
    usual: NDArray[np.uint8]
    chroma: NDArray[np.uint8] | None


class Strokes(NamedTuple):
    """What one threshold lets through.

    Args:
        picture: what it was held against: the picture, the inverted one, or the colour of one.
        mask: bool (H, W).
        is_dark: whether they are darker than their ground.
    """

    picture: Relief
    mask: NDArray[np.bool_]
    is_dark: bool = False


def relief(pixels: Pixels, inside: NDArray[np.bool_] | None = None) -> Relief:
    """What stands out of a picture, uint8 (H, W) or (H, W, 3).

    What lies outside counts as bright, so that a corner of the scan area on black is no stroke.
    """
    if pixels.ndim == 2:
        return _relief_of(np.ascontiguousarray(pixels), None, inside)
    red, green, blue = cv2.split(pixels)
    level = cv2.max(cv2.max(red, green), blue)
    return _relief_of(level, cv2.subtract(level, cv2.min(cv2.min(red, green), blue)), inside)


def stroke_families(picture: Relief, inside: NDArray[np.bool_] | None = None) -> list[Strokes]:
    """Strokes by each threshold, always in the same order: three of bright strokes, dark ones, coloured ones.

    Args:
        picture: of `relief`.
        inside: where to look, bool (H, W); None looks everywhere.
    """
    found = [Strokes(picture, _stands_out(picture, threshold)) for threshold in _BRIGHT]
    found += [_dark_strokes(picture, inside), _coloured_strokes(picture, inside)]
    if inside is not None:
        for strokes in found:
            np.logical_and(strokes.mask, inside, out=strokes.mask)
    return found


def _relief_of(level: NDArray[np.uint8], chroma: NDArray[np.uint8] | None, inside: NDArray[np.bool_] | None) -> Relief:
    tophat = cv2.subtract(level, cv2.morphologyEx(_walled(level, inside), cv2.MORPH_OPEN, _SQUARE))
    return Relief(level, np.asarray(tophat), _usual(tophat), chroma)


def _walled(level: NDArray[np.uint8], inside: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The picture with all that lies outside white."""
    if inside is None:
        return level
    return np.asarray(cv2.max(level, cv2.compare(inside.view(np.uint8), 0, cv2.CMP_EQ)))


def _usual(tophat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of the top-hat around, of a quarter of its pixels, at a quarter of the size."""
    height, width = tophat.shape
    small = (max(1, width // USUAL_STEP), max(1, height // USUAL_STEP))
    return np.asarray(cv2.blur(cv2.resize(tophat, small, interpolation=cv2.INTER_LINEAR), _AROUND))


def _stands_out(picture: Relief, threshold: _Threshold) -> NDArray[np.bool_]:
    if not threshold.factor:
        return picture.tophat > threshold.least
    height, width = picture.level.shape
    least = cv2.max(cv2.convertScaleAbs(picture.usual, None, threshold.factor), threshold.least)
    return np.asarray(picture.tophat > cv2.resize(least, (width, height), interpolation=cv2.INTER_LINEAR))


def _dark_strokes(bright: Relief, inside: NDArray[np.bool_] | None) -> Strokes:
    """The inverted picture and its strokes, where a light ground is there for dark words to stand on."""
    level = cv2.bitwise_not(bright.level)
    tophat = cv2.subtract(level, cv2.morphologyEx(_walled(level, inside), cv2.MORPH_OPEN, _SQUARE))
    mask = np.logical_and(tophat > _DARK_ON_LIGHT.least, cv2.add(bright.level, tophat) > LIGHT_GROUND)
    if np.count_nonzero(mask) < _FEW:
        return _no_strokes(bright)
    inverted = Relief(level, np.asarray(tophat), _usual(tophat), bright.chroma)
    return Strokes(inverted, np.logical_and(mask, _stands_out(inverted, _DARK_ON_LIGHT), out=mask), is_dark=True)


def _coloured_strokes(bright: Relief, inside: NDArray[np.bool_] | None) -> Strokes:
    if bright.chroma is None:
        return _no_strokes(bright)
    coloured = cv2.compare(bright.chroma, _COLOURED.least, cv2.CMP_GT)
    if inside is not None:
        coloured = cv2.bitwise_and(coloured, coloured, mask=inside.view(np.uint8))
    if cv2.countNonZero(coloured) < _FEW:
        return _no_strokes(bright)
    colour = _relief_of(bright.chroma, bright.chroma, inside)
    return Strokes(colour, _stands_out(colour, _COLOURED))


def _no_strokes(picture: Relief) -> Strokes:
    return Strokes(picture, np.zeros(picture.level.shape, bool))
