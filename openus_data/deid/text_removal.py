"""Text taken out: its strokes are filled from around them, with the grain of the tissue beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_lines import STROKE_PX, Relief, relief
from openus_data.records import Box, Pixels

_STROKE_SHARE: Final = 0.3
"""A pixel whose top-hat is this part of the box's strongest strokes belongs to a letter."""
_LEAST_CONTRAST: Final = 12.0
_MOSTLY: Final = 0.55
"""A box that is covered this far is filled whole: what is left between the strokes would only show their shape."""
_GROWN: Final = np.ones((5, 5), np.uint8)
_SURROUNDINGS_PX: Final = 24
_GRAIN_PX: Final = 2.0
_LIGHT_GROUND: Final = 110


def filled(pixels: Pixels, boxes: Sequence[Box]) -> Pixels:
    """A copy of the picture with the text in the boxes filled.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: half-open boxes of text.
    """
    out = np.ascontiguousarray(pixels).copy()
    holes = text_mask(relief(out), boxes)
    for box in boxes:
        window = _window(box, out.shape)
        out[window] = _filled(out[window], holes[window])
    return out


def text_mask(picture: Relief, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """255 on the letters in the boxes and on their soft edges, uint8 (H, W); whole boxes where unclear."""
    holes = np.zeros(picture.level.shape, np.uint8)
    dark = cv2.morphologyEx(picture.level, cv2.MORPH_BLACKHAT, np.ones((STROKE_PX, STROKE_PX), np.uint8))
    for x0, y0, x1, y1 in boxes:
        inside = (slice(y0, y1), slice(x0, x1))
        if y1 <= y0 or x1 <= x0:
            continue
        strokes = _strokes(picture.tophat[inside])
        if np.median(picture.level[inside]) > _LIGHT_GROUND:
            strokes |= _strokes(dark[inside])
        grown = cv2.dilate(strokes.astype(np.uint8), _GROWN)
        holes[inside] |= np.uint8(255) if grown.mean() > _MOSTLY else grown * np.uint8(255)
    return holes


def _strokes(stands_out: NDArray[np.uint8]) -> NDArray[np.bool_]:
    strongest = float(np.percentile(stands_out, 95))
    return np.asarray(stands_out >= max(_LEAST_CONTRAST, _STROKE_SHARE * strongest))


def _window(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    reach = _SURROUNDINGS_PX
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
    known = np.where(_wide(is_hole, values), smooth, values)
    grain = known - cv2.GaussianBlur(known, (0, 0), _GRAIN_PX)
    fill = smooth + _moved(grain, is_hole)
    return np.where(_wide(is_hole, values), np.clip(fill, 0, 255).round(), values).astype(np.uint8)


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
