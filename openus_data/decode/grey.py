"""Whether a picture has colour, and one channel for those that have not.

A pixel counts as coloured when its largest and smallest channel differ by more than `COLOUR_STEP`; a picture has
colour when more than `COLOUR_SHARE` of its pixels do, and more than `COLOUR_PIXELS` of them (1% if it is tiny). The
step is above what JPEG's chroma rounding adds to a grey picture, and below the palest colour map of a scanner.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

COLOUR_STEP = 16
COLOUR_SHARE = 1e-4
COLOUR_PIXELS = 8
_SAMPLE_ROWS = 16


def collapse(rgb: Pixels) -> Pixels:
    """One channel when the picture is grey, the picture itself otherwise.

    Args:
        rgb: uint8 (H, W, 3) or (H, W).

    Returns:
        uint8 (H, W): the common channel where all three are equal, their luma (BT.601) where they almost are; else
        `rgb`.
    """
    if rgb.ndim == 2:
        return rgb
    if has_colour(rgb[::_SAMPLE_ROWS], at_least=allowed(rgb.shape[0], rgb.shape[1])):
        return rgb  # a sixteenth of the rows already holds more than the whole picture may
    first, second, third = cv2.split(rgb)
    if cv2.norm(first, second, cv2.NORM_INF) == 0 and cv2.norm(first, third, cv2.NORM_INF) == 0:
        return cast(Pixels, first)
    spread = cv2.max(cv2.absdiff(first, second), cv2.absdiff(second, third))
    spread = cv2.max(spread, cv2.absdiff(first, third))
    if _count_above(spread) > allowed(*rgb.shape[:2]):
        return rgb
    return cast(Pixels, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def allowed(height: int, width: int) -> int:
    """How many coloured pixels a grey picture of this size may hold."""
    pixels = height * width
    return max(min(COLOUR_PIXELS, pixels // 100), int(COLOUR_SHARE * pixels))


def has_colour(rgb: Pixels, *, at_least: int | None = None) -> bool:
    """Whether more than `at_least` pixels of (H, W, 3) uint8 are coloured (default: what `allowed` says)."""
    bound = allowed(*rgb.shape[:2]) if at_least is None else at_least
    first, second, third = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    spread = cv2.max(cv2.max(cv2.absdiff(first, second), cv2.absdiff(second, third)), cv2.absdiff(first, third))
    return _count_above(spread) > bound


def chroma_is_flat(*planes: Pixels, scale: int = 1) -> bool:
    """Whether chroma planes (uint8, 128 is none) say that the picture is grey.

    Args:
        planes: Cb and Cr, (H, W) each, possibly subsampled.
        scale: luma pixels per chroma pixel.
    """
    for plane in planes:
        low, high = cv2.minMaxLoc(plane)[:2]
        if low >= 128 - _CHROMA_STEP and high <= 128 + _CHROMA_STEP:
            continue
        distance = cv2.absdiff(plane, np.full_like(plane, 128))
        coloured = int(cv2.countNonZero(cv2.threshold(distance, _CHROMA_STEP, 255, cv2.THRESH_BINARY)[1]))
        if coloured * scale > allowed(plane.shape[0], plane.shape[1] * scale):
            return False
    return True


_CHROMA_STEP = 9
"""Cb or Cr off by this much moves blue or red by about COLOUR_STEP."""


def _count_above(spread: NDArray[np.uint8]) -> int:
    return int(cv2.countNonZero(cv2.threshold(spread, COLOUR_STEP, 255, cv2.THRESH_BINARY)[1]))
