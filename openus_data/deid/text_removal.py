"""Text taken out: its strokes are filled from around them, with the grain of the tissue beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_strokes import LIGHT_GROUND, STROKE_PX, Relief, relief
from openus_data.records import Box, Pixels

_STROKE_SHARE: Final = 0.3
"""A pixel whose top-hat is this part of the box's strongest strokes belongs to a letter."""
_LEAST_CONTRAST: Final = 12.0
_LEAST_COLOUR: Final = 50.0
_SQUARE: Final = np.ones((STROKE_PX, STROKE_PX), np.uint8)
_MOSTLY: Final = 0.55
"""A box that is covered this far is filled whole: what is left between the strokes would only show their shape."""
_SOFT: Final = np.ones((3, 3), np.uint8)
_GROWN: Final = np.ones((5, 5), np.uint8)
_SURROUNDINGS_PX: Final = 24
_GRAIN_PX: Final = 2.0
_FLOOR: Final = 8.0
"""Levels added to a ground that grain is held against."""
_EVEN: Final = 6
"""Levels that an even ground differs by at most."""
_LEAST_GROUND_PX: Final = 12
_LABEL_REACH_PX: Final = 16
"""How far the patch of a label reaches beyond the box of its letters at most."""
_LABEL_FULL: Final = 0.85
"""Least part of its box that an even patch fills."""
_BRIGHTEST_GRAIN: Final = 3.0
"""Grain is kept up to so many times its usual size: more is an edge of something, whose copy would show."""


def filled(pixels: Pixels, boxes: Sequence[Box]) -> Pixels:
    """A copy of the picture with the text in the boxes filled.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: half-open boxes of text.
    """
    out = np.ascontiguousarray(pixels).copy()
    holes = text_mask(out, boxes)
    for box in boxes:
        window = _window(box, out.shape, _SURROUNDINGS_PX)
        out[window] = _filled(out[window], holes[window])
    return out


def text_mask(pixels: Pixels, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """255 on the letters in the boxes and on their soft edges, uint8 (H, W); whole boxes where unclear."""
    holes = np.zeros(pixels.shape[:2], np.uint8)
    for x0, y0, x1, y1 in boxes:
        if y1 <= y0 or x1 <= x0:
            continue
        window = _window((x0, y0, x1, y1), holes.shape, _SURROUNDINGS_PX)
        top, left = window[0].start, window[1].start
        box = (x0 - left, y0 - top, x1 - left, y1 - top)
        picture = relief(pixels[window])
        strokes = _letters(picture, box).astype(np.uint8)
        letters = cv2.dilate(strokes, _GROWN)
        holes[y0:y1, x0:x1] |= np.uint8(255) if letters.mean() > _MOSTLY else letters * np.uint8(255)
        label = _label(pixels[window], box, strokes)
        if label is not None:
            holes[window][label] = 255
    return holes


def _letters(picture: Relief, box: Box) -> NDArray[np.bool_]:
    """Strokes in a box: bright ones, dark ones where the ground is light, and coloured ones."""
    x0, y0, x1, y1 = box
    inside = (slice(y0, y1), slice(x0, x1))
    strokes = _strokes(picture.tophat[inside], _LEAST_CONTRAST)
    if np.median(picture.level[inside]) > LIGHT_GROUND:
        strokes |= _strokes(cv2.morphologyEx(picture.level, cv2.MORPH_BLACKHAT, _SQUARE)[inside], _LEAST_CONTRAST)
    if picture.chroma is not None:
        strokes |= _strokes(cv2.morphologyEx(picture.chroma, cv2.MORPH_TOPHAT, _SQUARE)[inside], _LEAST_COLOUR)
    return strokes


def _label(pixels: Pixels, box: Box, strokes: NDArray[np.uint8]) -> tuple[slice, slice] | None:
    """The even patch that the letters stand on and a little more; None where they stand on tissue or black."""
    x0, y0, x1, y1 = box
    soft = cv2.dilate(strokes, _SOFT)
    beside = cv2.subtract(cv2.dilate(strokes, _GROWN), soft) > 0
    ground = pixels[y0:y1, x0:x1][beside]
    if len(ground) < _LEAST_GROUND_PX:
        return None
    window = _window(box, pixels.shape, _LABEL_REACH_PX)
    top, left = window[0].start, window[1].start
    apart = np.abs(pixels[window].astype(np.int16) - np.median(ground, axis=0).astype(np.int16))
    even = ((apart if apart.ndim == 2 else apart.max(axis=2)) <= _EVEN).astype(np.uint8)
    here = even[y0 - top : y1 - top, x0 - left : x1 - left]
    if here[beside].mean() < _MOSTLY:
        return None
    here[soft > 0] = 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(even, cv2.MORPH_OPEN, _GROWN))
    inside = labels[y0 - top : y1 - top, x0 - left : x1 - left]
    sizes = np.bincount(inside.ravel(), minlength=len(stats))
    sizes[0] = 0
    x, y, w, h, area = stats[int(sizes.argmax())].tolist()
    is_bounded = x > 0 and y > 0 and x + w < even.shape[1] and y + h < even.shape[0]
    if not sizes.any() or not is_bounded or area < _LABEL_FULL * w * h:
        return None
    return slice(max(0, top + y - 2), top + y + h + 2), slice(max(0, left + x - 2), left + x + w + 2)


def _strokes(stands_out: NDArray[np.uint8], least: float) -> NDArray[np.bool_]:
    strongest = float(np.percentile(stands_out, 95))
    return np.asarray(stands_out >= max(least, _STROKE_SHARE * strongest))


def _window(box: Box, shape: tuple[int, ...], reach: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return slice(max(0, y0 - reach), min(shape[0], y1 + reach)), slice(max(0, x0 - reach), min(shape[1], x1 + reach))


def _filled(around: Pixels, holes: NDArray[np.uint8]) -> Pixels:
    """A patch with its holes filled: the smooth part from all sides, the grain from further up or down."""
    is_hole = holes > 0
    if not is_hole.any():
        return around
    if is_hole.all():
        return np.zeros_like(around)
    values = around.astype(np.float32)
    smooth = _smooth(values, is_hole)
    hole = _wide(is_hole, values)
    known = np.where(hole, smooth, values)
    local = cv2.GaussianBlur(known, (0, 0), _GRAIN_PX)
    # Speckle grows with the level, so that it is moved as a part of it: none comes to black ground.
    grain = (known - local) / (local + _FLOOR)
    most = _BRIGHTEST_GRAIN * float(np.median(np.abs(grain[~is_hole])))
    fill = smooth + _moved(np.clip(grain, -most, most), is_hole) * smooth
    return np.where(hole, np.clip(fill, 0, 255).round(), values).astype(np.uint8)


def _smooth(values: NDArray[np.float32], is_hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weighted mean of what is known around each pixel, from near by where there is enough of it."""
    known = (~is_hole).astype(np.float32)
    weighted = values * _wide(known, values)
    result = np.broadcast_to(weighted.sum(axis=(0, 1)) / known.sum(), values.shape).astype(np.float32)
    for sigma in (12.0, 5.0, 2.0):
        weight = cv2.GaussianBlur(known, (0, 0), sigma)
        mean = cv2.GaussianBlur(weighted, (0, 0), sigma) / _wide(np.maximum(weight, 1e-4), values)
        trust = _wide(np.clip(weight / 0.15, 0, 1), values)
        result = result * (1 - trust) + mean * trust
    return np.asarray(result)


def _moved(grain: NDArray[np.float32], is_hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Grain of the place above or below that has the least of a hole in it; none where that place is a hole too."""
    rows = np.flatnonzero(is_hole.any(axis=1))
    step = int(rows[-1] - rows[0]) + 3
    choices = [s for s in (step, -step, step // 2, -(step // 2)) if s]
    free = ~is_hole
    share = [float((np.roll(free, s, axis=0) & is_hole).sum()) for s in choices]
    best = choices[int(np.argmax(share))]
    moved = np.roll(grain, best, axis=0) * _wide(np.roll(free, best, axis=0), grain)
    return np.asarray(moved, dtype=np.float32)


def _wide(mask: NDArray[Any], values: NDArray[np.float32]) -> NDArray[Any]:
    """A mask (H, W) that goes with values of (H, W) or (H, W, 3)."""
    return mask if values.ndim == 2 else mask[..., None]
