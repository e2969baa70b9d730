"""Text taken out: its strokes are filled from around them, with the grain of the tissue beside them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_strokes import LIGHT_GROUND, STROKE_PX, level_and_chroma
from openus_data.records import Box, Pixels

_STROKE_SHARE: Final = 0.3
"""A pixel whose top-hat is this part of the box's strongest strokes belongs to a letter."""
_STRONGEST: Final = 0.95
"""Part of a box's pixels that its strongest strokes are above."""
_LEAST_CONTRAST: Final = 12
_LEAST_COLOUR: Final = 50
_HEIGHT_TO_STROKE: Final = 3
"""A line is at least this much taller than a stroke of a bold letter is wide: large ones are wider than `STROKE_PX`."""
_MOSTLY: Final = 0.55
"""A box that is covered this far is filled whole: what is left between the strokes would only show their shape."""
_SOFT: Final = np.ones((3, 3), np.uint8)
_GROWN: Final = np.ones((5, 5), np.uint8)
_SURROUNDINGS_PX: Final = 24
_COARSEST: Final = 4
"""Level of the pyramid that smooth values are taken from where nothing nearer is known: a Gaussian of about 9 px."""
_ENOUGH: Final = 0.15
"""A level counts in full where this part of what it covers is known."""
_GRAIN_PX: Final = 2.0
_FLOOR: Final = 8.0
"""Levels added to a ground that grain is held against."""
_STEP: Final = 3
"""Every third pixel of every third row tells how strong grain usually is."""
_EVEN: Final = 6
"""Levels that an even ground differs by at most."""
_LEAST_GROUND_PX: Final = 12
_LABEL_REACH_PX: Final = 16
"""How far the patch of a label reaches beyond the box of its letters at most."""
_LABEL_FULL: Final = 0.85
"""Least part of its box that an even patch fills."""
_BRIGHTEST_GRAIN: Final = 3.0
"""Grain is kept up to so many times its usual size: more is an edge of something, whose copy would show."""

_Floats = NDArray[np.float32]


def filled(pixels: Pixels, boxes: Sequence[Box], inside: NDArray[np.bool_] | None = None) -> Pixels:
    """A copy of the picture with the text in the boxes filled.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: half-open boxes of text.
        inside: the scan area, bool (H, W); the black outside it is neither filled nor looked at. None: all is inside.
    """
    out = pixels.copy()
    holes = text_mask(out, boxes)
    for box in boxes:
        window = _window(box, out.shape, _SURROUNDINGS_PX)
        hole, known = holes[window], ~holes[window]
        if inside is not None:
            here = inside[window].view(np.uint8)
            hole, known = hole * here, known * here
        out[window] = _filled(out[window], hole, known)
    return out


def text_mask(pixels: Pixels, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """255 on the letters in the boxes and on their soft edges, uint8 (H, W); whole boxes where unclear."""
    holes = np.zeros(pixels.shape[:2], np.uint8)
    for x0, y0, x1, y1 in boxes:
        if y1 <= y0 or x1 <= x0:
            continue
        strokes = _letters(pixels, (x0, y0, x1, y1))
        letters = cv2.dilate(strokes, _GROWN)
        is_unclear = cv2.countNonZero(letters) > _MOSTLY * letters.size
        holes[y0:y1, x0:x1] |= np.uint8(255) if is_unclear else letters * np.uint8(255)
        label = _label(pixels, (x0, y0, x1, y1), strokes, letters)
        if label is not None:
            holes[label] = 255
    return holes


def _letters(pixels: Pixels, box: Box) -> NDArray[np.uint8]:
    """Strokes in a box as 1: bright ones, dark ones where the ground is light, and coloured ones."""
    side = max(STROKE_PX, min(box[2] - box[0], box[3] - box[1]) // _HEIGHT_TO_STROKE | 1)
    square = np.ones((side, side), np.uint8)
    window = _window(box, pixels.shape, side)
    inside = _within(box, window)
    shown = pixels[window]
    level, chroma = (shown, None) if shown.ndim == 2 else level_and_chroma(shown)
    strokes = _strokes(cv2.morphologyEx(level, cv2.MORPH_TOPHAT, square)[inside], _LEAST_CONTRAST)
    if 2 * np.count_nonzero(level[inside] > LIGHT_GROUND) > strokes.size:
        strokes |= _strokes(cv2.morphologyEx(level, cv2.MORPH_BLACKHAT, square)[inside], _LEAST_CONTRAST)
    if chroma is not None:
        strokes |= _strokes(cv2.morphologyEx(chroma, cv2.MORPH_TOPHAT, square)[inside], _LEAST_COLOUR)
    return strokes


def _strokes(stands_out: NDArray[np.uint8], least: int) -> NDArray[np.uint8]:
    strongest = float(_ranked(stands_out.ravel(), _STRONGEST))
    return (stands_out >= max(least, _STROKE_SHARE * strongest)).astype(np.uint8)


def _ranked(values: NDArray[Any], part: float) -> NDArray[Any]:
    """The value (...) that this part of the values (N, ...) are below; np.percentile takes ten times as long."""
    place = round(part * (len(values) - 1))
    return np.asarray(np.partition(values, place, axis=0)[place])


def _label(
    pixels: Pixels, box: Box, strokes: NDArray[np.uint8], letters: NDArray[np.uint8]
) -> tuple[slice, slice] | None:
    """The even patch that the letters stand on and a little more; None where they stand on tissue or black."""
    x0, y0, x1, y1 = box
    soft = cv2.dilate(strokes, _SOFT)
    ground = pixels[y0:y1, x0:x1][letters > soft]
    if len(ground) < _LEAST_GROUND_PX:
        return None
    usual = _ranked(ground, 0.5).astype(np.int16)
    if _is_even(ground, usual).mean() < _MOSTLY:
        return None
    window = _window(box, pixels.shape, _LABEL_REACH_PX)
    here = _within(box, window)
    even = _is_even(pixels[window], usual).astype(np.uint8)
    even[here][soft > 0] = 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(even, cv2.MORPH_OPEN, _GROWN))
    sizes = np.bincount(labels[here].ravel(), minlength=len(stats))
    sizes[0] = 0
    x, y, w, h, area = stats[int(sizes.argmax())].tolist()
    is_bounded = x > 0 and y > 0 and x + w < even.shape[1] and y + h < even.shape[0]
    if not sizes.any() or not is_bounded or area < _LABEL_FULL * w * h:
        return None
    left, top = window[1].start + x, window[0].start + y
    return slice(max(0, top - 2), top + h + 2), slice(max(0, left - 2), left + w + 2)


def _is_even(pixels: Pixels, usual: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where grey pixels (...) or RGB ones (..., 3) are as the ground usually is."""
    apart = np.abs(pixels - usual)
    return np.asarray((apart if usual.ndim == 0 else apart.max(axis=-1)) <= _EVEN)


def _window(box: Box, shape: tuple[int, ...], reach: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return slice(max(0, y0 - reach), min(shape[0], y1 + reach)), slice(max(0, x0 - reach), min(shape[1], x1 + reach))


def _within(box: Box, window: tuple[slice, slice]) -> tuple[slice, slice]:
    """The box in pixels of the window."""
    (x0, y0, x1, y1), top, left = box, window[0].start, window[1].start
    return slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def _filled(around: Pixels, hole: NDArray[np.uint8], known: NDArray[np.uint8]) -> Pixels:
    """A window with its hole filled: the smooth part from all sides, the grain from further up or down.

    Args:
        around: uint8 (h, w) or (h, w, 3).
        hole: 255 where it is filled, else 0, (h, w).
        known: 255 where it is looked at, else 0, (h, w).
    """
    if not cv2.countNonZero(hole):
        return around
    values = around.astype(np.float32)
    smooth = _smooth(values, known)
    cv2.copyTo(smooth, cv2.bitwise_not(known), values)
    local = cv2.GaussianBlur(values, (0, 0), _GRAIN_PX)
    # Speckle grows with the level, so that it is moved as a part of it: none comes to black ground.
    grain = (values - local) / (local + _FLOOR)
    most = _BRIGHTEST_GRAIN * _usual_size(grain[::_STEP, ::_STEP], known[::_STEP, ::_STEP])
    moved = _moved(np.asarray(cv2.copyTo(grain, known)), _best_step(hole, known)).clip(-most, most)
    return np.asarray(cv2.copyTo(cv2.convertScaleAbs(smooth * (1 + moved)), hole, around.copy()), np.uint8)


def _usual_size(grain: _Floats, known: NDArray[np.uint8]) -> float:
    """Median of how large the known grain (h, w) or (h, w, 3) is; 0 where none is known."""
    sizes = np.abs(grain[known > 0]).ravel()
    return float(_ranked(sizes, 0.5)) if len(sizes) else 0.0


def _smooth(values: _Floats, known: NDArray[np.uint8]) -> _Floats:
    """Weighted mean of what is known around each pixel, from near by where there is enough of it; 0 if nothing is.

    Source: pull-push, S. Gortler et al., The Lumigraph, 1996, section 3.4.
    """
    channels = 1 if values.ndim == 2 else values.shape[2]
    ones = np.ones(known.shape, np.float32)
    levels = [np.asarray(cv2.copyTo(cv2.merge((values, ones)), known))]
    for _ in range(_COARSEST):
        levels.append(np.asarray(cv2.pyrDown(levels[-1])))
    total = levels[-1].sum(axis=(0, 1))
    smooth: _Floats = total[:-1] / max(float(total[-1]), 1e-6)
    for level, finer in pairwise(reversed(levels)):
        weight = level[..., -1:]
        smooth = smooth + (level[..., :-1] - weight * smooth) / np.maximum(weight, _ENOUGH)
        smooth = np.asarray(cv2.pyrUp(smooth, dstsize=finer.shape[1::-1])).reshape(*finer.shape[:2], channels)
    return smooth.reshape(values.shape)


def _best_step(hole: NDArray[np.uint8], known: NDArray[np.uint8]) -> int:
    """How many rows further up (positive) or down most of a hole's grain is known."""
    step = int(cv2.boundingRect(hole)[3]) + 2
    best, most, size = step, -1, cv2.countNonZero(hole)
    for choice in (step, -step, step // 2, -(step // 2)):
        found = cv2.countNonZero(hole & _moved(known, choice))
        if found > most:
            best, most = choice, found
        if found == size:
            break
    return best


def _moved(rows: NDArray[Any], step: int) -> NDArray[Any]:
    """Rows moved down by `step`, or up by -`step`; those that leave the window come in again at its other end."""
    return np.concatenate((rows[-step:], rows[:-step]))
