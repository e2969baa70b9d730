"""Burned-in text: find it in the picture, take it out of the picture.

Text is thin, bright and crisp, and stands in lines; speckle is blurred by the beam and stands nowhere in particular. A
white top-hat keeps what is thinner than a letter's stroke, a threshold held against the local contrast of the speckle
keeps what is crisp, and strokes of one height side by side make a line.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels, TextBox

_STROKE = cv2.getStructuringElement(cv2.MORPH_RECT, (9, 9))
_LEAST_CONTRAST = 45.0
_SPECKLE_FACTOR = 3.2
_LETTER_HEIGHTS_PX = (5, 44)


def find_text(pixels: Pixels, inside: NDArray[np.bool_] | None = None, *, ocr: bool = False) -> tuple[TextBox, ...]:
    """Boxes of text and calliper labels.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        inside: where to look, bool (H, W); None looks everywhere.
        ocr: let the detector of the `[ocr]` extra look too.
    """
    strokes = stroke_mask(pixels, inside)
    joined = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (13, 3)))
    count, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    boxes = []
    for x, y, w, h, _area in stats[1:count].tolist():
        if not (_LETTER_HEIGHTS_PX[0] <= h <= _LETTER_HEIGHTS_PX[1] and w >= 1.2 * h):
            continue
        share = float(strokes[y : y + h, x : x + w].mean()) / 255
        if 0.12 <= share <= 0.75:
            boxes.append(
                TextBox(box=_grown((x, y, x + w, y + h), pixels.shape), score=min(1.0, 2 * share), detector="gate")
            )
    return tuple(sorted(boxes, key=lambda b: b.box))


def find_text_in_clip(
    frames: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None, *, ocr: bool = False
) -> tuple[TextBox, ...]:
    """Boxes of text in a clip, uint8 (T, H, W) or (T, H, W, 3): text stands still while tissue moves.

    The darkest value of each pixel over time keeps what is always bright.
    """
    return find_text(frames.min(axis=0), inside, ocr=ocr)


def stroke_mask(pixels: Pixels, inside: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """255 where a pixel belongs to something thin, bright and crisp, else 0; uint8 (H, W)."""
    level = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    tophat = cv2.morphologyEx(level, cv2.MORPH_TOPHAT, _STROKE)
    small = cv2.resize(tophat, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)
    usual = cv2.resize(cv2.blur(small, (15, 15)), level.shape[::-1], interpolation=cv2.INTER_LINEAR)
    strokes = (tophat > np.maximum(_SPECKLE_FACTOR * usual, _LEAST_CONTRAST)).astype(np.uint8) * 255
    if inside is not None:
        strokes[~inside] = 0
    return np.asarray(strokes)


def remove_text(pixels: Pixels, boxes: Sequence[TextBox]) -> Pixels:
    """The picture with the boxes filled from their neighbourhood; a copy, or the same where there is no box."""
    if not boxes:
        return pixels
    holes = np.zeros(pixels.shape[:2], np.uint8)
    for found in boxes:
        x0, y0, x1, y1 = found.box
        holes[y0:y1, x0:x1] = 255
    return np.asarray(cv2.inpaint(np.ascontiguousarray(pixels), holes, 3, cv2.INPAINT_TELEA))


def _grown(box: tuple[int, int, int, int], shape: tuple[int, ...], by: int = 2) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    return max(0, x0 - by), max(0, y0 - by), min(shape[1], x1 + by), min(shape[0], y1 + by)
