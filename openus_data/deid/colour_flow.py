"""Colour Doppler is no text: flow is a broad patch of many hues, while a letter is thin and has one.

A line counts as flow when it lies on a patch that is taller and wider than a line of text and its own strokes are
coloured and of more than one hue. White letters over flow are still text. What is left of flow beside such patches is
left to the trees of `text_gate`, which are told how coloured a line's ground is.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

STEP: Final = 4
"""Patches are found on every fourth pixel of every fourth row."""
_COLOURED: Final = 60
"""Brightest less darkest channel from which a pixel is coloured."""
_STROKE: Final = np.ones((3, 3), np.uint8)
"""Broader than a letter's stroke, in steps."""
_PATCH_PX: Final = 300
"""Fewest coloured pixels of a picture with flow."""
_TALLER_PX: Final = 44
"""Least height and width of a patch: more than a line of text has."""
_CORE: Final = 0.12
"""Least part of a patch that is broad colour: 0.15 and more in real power Doppler, up to 0.08 in blocks of words."""
_ON_PATCH: Final = 0.5
_STROKES_COLOURED: Final = 0.5
_ONE_HUE: Final = 0.01
"""Sum of the channels' standard deviations, each relative to the brightest, up to which strokes are of one hue:
an overlay that no JPEG has touched."""


def broad_colour(chroma: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """1 where colour is broader than a letter's stroke, uint8 at a `STEP`th of the size; None where it nowhere is.

    Args:
        chroma: brightest less darkest channel, uint8 (H, W).
    """
    broad = cv2.morphologyEx(_coloured(chroma), cv2.MORPH_OPEN, _STROKE)
    return np.asarray(broad) if cv2.countNonZero(broad) * STEP**2 >= _PATCH_PX else None


def flow_patches(chroma: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """True on patches of flow, between their branches and just around them, bool (H, W); None where there is none.

    A patch is taller and wider than a line of text, and a part of it is broader than a letter's stroke: JPEG gives
    coloured words many hues, so that these say nothing.

    Args:
        chroma: brightest less darkest channel, uint8 (H, W).
    """
    broad = broad_colour(chroma)
    if broad is None:
        return None
    joined = cv2.morphologyEx(_coloured(chroma), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined)
    core = np.bincount(labels[broad > 0], minlength=count)
    is_flow = (stats[:, 2:4].min(axis=1) * STEP >= _TALLER_PX) & (core >= _CORE * stats[:, 4])
    is_flow[0] = False
    if not is_flow.any():
        return None
    grown = cv2.dilate(is_flow[labels].view(np.uint8), np.ones((3, 3), np.uint8))
    height, width = chroma.shape
    return np.asarray(cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST)).astype(bool)


def _coloured(chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = np.ascontiguousarray(chroma[::STEP, ::STEP])
    return np.asarray(cv2.threshold(small, _COLOURED, 1, cv2.THRESH_BINARY)[1])


def is_flow(
    pixels: Pixels, tophat: NDArray[np.uint8], patches: NDArray[np.bool_], boxes: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Which candidate lines are colour flow or a colour bar, (N,).

    Args:
        pixels: uint8 (H, W, 3) RGB.
        tophat: how far each pixel stands out, uint8 (H, W).
        patches: of `flow_patches`.
        boxes: half-open (x0, y0, x1, y1), (N, 4).
    """
    cuts = [np.s_[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]
    return np.array([patches[c].mean() >= _ON_PATCH and _has_hues(pixels[c], tophat[c]) for c in cuts], bool)


def on_patches(patches: NDArray[np.bool_], boxes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which lines touch a patch of flow at all, (N,); arguments as of `is_flow`."""
    return np.array([patches[y0:y1, x0:x1].any() for x0, y0, x1, y1 in boxes.tolist()], bool)


def _has_hues(pixels: Pixels, tophat: NDArray[np.uint8]) -> bool:
    """Whether the strokes of a line are mostly coloured, and not all of one hue."""
    strokes = pixels[tophat > 0.75 * np.quantile(tophat, 0.98)].astype(np.float32)
    if len(strokes) == 0:
        return False
    brightest = strokes.max(axis=1)
    coloured = brightest - strokes.min(axis=1) > _COLOURED
    if coloured.mean() < _STROKES_COLOURED:
        return False
    hues = strokes[coloured] / brightest[coloured, None]
    return bool(hues.std(axis=0).sum() > _ONE_HUE)
