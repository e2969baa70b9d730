"""Strokes: what is thinner than a letter's line and stands out of a picture.

    picture = relief(pixels, inside)
    for group in stroke_families(picture): ...

A white top-hat keeps what is thinner than a letter's stroke. Three thresholds see different text: one held against the
local contrast of speckle finds faint words on calm ground, two absolute ones find bright words whose letters the first
would join with bright speckle. Dark words on a light ground are looked for in the inverted picture, and coloured ones,
which are hardly brighter than light tissue, in the picture of how coloured each pixel is.

Each pass over a whole picture is one on bytes, and what is found is kept as places: the gate has a few milliseconds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_runs import Ints
from openus_data.records import Pixels

STROKE_PX: Final = 9
"""Side of the top-hat's square: thicker than any stroke of a letter, thinner than a layer of tissue."""
LIGHT_GROUND: Final = 110
"""Level from which a ground is light enough for dark words."""
_COLOUR: Final = 50
"""Brightest less darkest channel from which a pixel has a colour; JPEG gives grey ones a little."""
USUAL_STEP: Final = 4
"""`Relief.usual` is this much smaller than the picture."""
_SQUARE: Final = np.ones((STROKE_PX, STROKE_PX), np.uint8)
_AROUND: Final = (15, 15)
_TURN: Final = cv2.ROTATE_90_COUNTERCLOCKWISE


class _Threshold(NamedTuple):
    least: float
    factor: float


_BRIGHT: Final = _Threshold(50, 2.5)
_BRIGHTER: Final = (75, 120)
_COLOURED: Final = 70
_DARK_ON_LIGHT: Final = _Threshold(70, 4.0)
_FEW: Final = 20
"""Fewer dark or coloured pixels than the shortest word has are not looked at."""
_LIGHT_PX: Final = 100
"""Fewer light pixels than around the shortest dark word are no ground for one."""


class Relief(NamedTuple):
    """A picture and what stands out of it.

    Args:
        level: brightest channel, uint8 (H, W).
        tophat: how far it rises above anything as wide as `STROKE_PX`, uint8 (H, W).
        usual: mean of the top-hat around, uint8, smaller by `USUAL_STEP`.
        chroma: brightest less darkest channel, 0 outside, uint8 (H, W); None for grey.
        outside: 255 where nobody looks, else 0, uint8 (H, W); None where all is looked at. Nothing stands out there.
    """

    level: NDArray[np.uint8]
    tophat: NDArray[np.uint8]
    usual: NDArray[np.uint8]
    chroma: NDArray[np.uint8] | None
    outside: NDArray[np.uint8] | None


class Strokes(NamedTuple):
    """What one threshold lets through.

    Args:
        picture: what it was held against: the picture, the inverted one, or the colour of one.
        at: row times width plus column of each pixel, rising, int (P,).
        is_dark: whether they are darker than their ground.
    """

    picture: Relief
    at: Ints
    is_dark: bool = False


def relief(pixels: Pixels, inside: NDArray[np.bool_] | None = None) -> Relief:
    """What stands out of a picture, uint8 (H, W) or (H, W, 3).

    What lies outside counts as bright, so that a corner of the scan area on black is no stroke.
    """
    outside = None if inside is None else np.asarray(cv2.compare(inside.view(np.uint8), 0, cv2.CMP_EQ), np.uint8)
    if pixels.ndim == 2:
        return _relief_of(np.ascontiguousarray(pixels), None, outside)
    level, chroma = level_and_chroma(pixels)
    return _relief_of(level, _seen_colour(chroma, outside), outside)


def level_and_chroma(rgb: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Brightest channel, and brightest less darkest, uint8 (H, W) each, of (H, W, 3)."""
    planes = list(np.empty((3, *rgb.shape[:2]), np.uint8))  # OpenCV's own take six times as long
    red, green, blue = cv2.split(rgb, planes)
    level = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
    darkest = cv2.min(cv2.min(red, green), blue)
    return level, np.asarray(cv2.subtract(level, darkest, dst=darkest), np.uint8)


def _seen_colour(chroma: NDArray[np.uint8], outside: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """How coloured each pixel is, made 0 outside in place; None where nothing is."""
    if outside is not None:
        cv2.subtract(chroma, outside, dst=chroma)
    return chroma if chroma.max(initial=0) >= _COLOUR else None


def stroke_families(picture: Relief) -> list[Strokes]:
    """Strokes by each threshold, always in the same order: three of bright strokes, dark ones, coloured ones.

    Args:
        picture: of `relief`.
    """
    return [*_bright_strokes(picture), _dark_strokes(picture), _coloured_strokes(picture)]


def turned(families: list[Strokes]) -> list[Strokes]:
    """The same strokes in the picture turned by a quarter against the clock: what stands out does so from all sides."""
    pictures = {id(strokes.picture): strokes.picture for strokes in families}
    pictures = {key: _turned(picture) for key, picture in pictures.items()}
    return [
        Strokes(pictures[id(picture)], _turned_pixels(at, picture.level.shape), is_dark)
        for picture, at, is_dark in families
    ]


def _turned(picture: Relief) -> Relief:
    level, tophat, usual = (np.asarray(cv2.rotate(p, _TURN), np.uint8) for p in picture[:3])
    chroma, outside = (None if p is None else np.asarray(cv2.rotate(p, _TURN), np.uint8) for p in picture[3:])
    return Relief(level, tophat, usual, chroma, outside)


def _turned_pixels(at: Ints, shape: tuple[int, ...]) -> Ints:
    height, width = shape
    row = at // width
    return np.sort((width - 1 - at + row * width) * height + row)


def _relief_of(level: NDArray[np.uint8], chroma: NDArray[np.uint8] | None, outside: NDArray[np.uint8] | None) -> Relief:
    tophat = _tophat(level, outside)
    return Relief(level, tophat, _usual(tophat), chroma, outside)


def _tophat(level: NDArray[np.uint8], outside: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """How far each pixel rises above anything as wide as a stroke; 0 outside, which counts as white."""
    if outside is None:
        return np.asarray(cv2.subtract(level, cv2.morphologyEx(level, cv2.MORPH_OPEN, _SQUARE)))
    walled = cv2.max(level, outside)
    opened = cv2.morphologyEx(walled, cv2.MORPH_OPEN, _SQUARE)
    cv2.max(opened, outside, dst=opened)
    return np.asarray(cv2.subtract(level, opened, dst=walled))


def _usual(tophat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of the top-hat around, of a quarter of its pixels, at a quarter of the size."""
    height, width = tophat.shape
    small = (max(1, width // USUAL_STEP), max(1, height // USUAL_STEP))
    return np.asarray(cv2.blur(cv2.resize(tophat, small, interpolation=cv2.INTER_LINEAR), _AROUND))


def looked_up(usual: NDArray[np.uint8], row: Ints, column: Ints) -> NDArray[np.uint8]:
    """`Relief.usual` at pixels of the picture."""
    rows = np.minimum(row // USUAL_STEP, usual.shape[0] - 1)
    columns = np.minimum(column // USUAL_STEP, usual.shape[1] - 1)
    return np.asarray(usual.ravel()[rows * usual.shape[1] + columns])


def _bright_strokes(picture: Relief) -> list[Strokes]:
    """Strokes by each threshold: one look at the picture finds those of the lowest."""
    bright, brightest = _BRIGHTER
    least = _least(picture)
    at = np.flatnonzero(picture.tophat > cv2.min(least, bright))
    stands_out = picture.tophat.ravel()[at]
    kept = (stands_out > least.ravel()[at], stands_out > bright, stands_out > brightest)
    return [Strokes(picture, at[mine]) for mine in kept]


def _least(picture: Relief) -> NDArray[np.uint8]:
    """What a bright stroke stands out by at least, uint8 (H, W)."""
    height, width = picture.level.shape
    small = cv2.max(cv2.convertScaleAbs(picture.usual, None, _BRIGHT.factor), _BRIGHT.least)
    wide = cv2.resize(small, (width, len(small)), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide[np.minimum(np.arange(height) // USUAL_STEP, len(small) - 1)], np.uint8)


def _dark_strokes(bright: Relief) -> Strokes:
    """The inverted picture and its strokes, where a light ground is there for dark words to stand on."""
    if np.count_nonzero(bright.level > LIGHT_GROUND) < _LIGHT_PX:
        return _no_strokes(bright)
    level = cv2.bitwise_not(bright.level)
    tophat = _tophat(level, bright.outside)
    at = np.flatnonzero(tophat > _DARK_ON_LIGHT.least)
    at = at[level.ravel()[at] - tophat.ravel()[at] < 255 - LIGHT_GROUND]
    if len(at) < _FEW:
        return _no_strokes(bright)
    usual = _usual(tophat)
    row = at // level.shape[1]
    around = looked_up(usual, row, at - row * level.shape[1])
    at = at[tophat.ravel()[at] > _DARK_ON_LIGHT.factor * around]
    return Strokes(Relief(level, tophat, usual, bright.chroma, bright.outside), at, is_dark=True)


def _coloured_strokes(bright: Relief) -> Strokes:
    if bright.chroma is None:
        return _no_strokes(bright)
    if np.count_nonzero(bright.chroma > _COLOURED) < _FEW:
        return _no_strokes(bright)
    colour = _relief_of(bright.chroma, bright.chroma, bright.outside)
    return Strokes(colour, np.flatnonzero(colour.tophat > _COLOURED))


def _no_strokes(picture: Relief) -> Strokes:
    return Strokes(picture, np.zeros(0, np.int64))
