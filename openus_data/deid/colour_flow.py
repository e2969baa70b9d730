"""Colour Doppler is no text: flow is a broad patch of many hues, while a letter is thin and has one.

White letters over flow, and letters of one colour, are still text: a line counts as flow only when it lies on such a
patch and its own strokes are coloured and of more than one hue.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

_COLOURED: Final = 60
"""Brightest less darkest channel from which a pixel is coloured."""
_PATCH_PX: Final = 300
_HUE_SPREAD: Final = 0.12
"""Sum of the channels' standard deviations, each relative to the brightest, from which a patch has many hues. Flow and
colour bars reach 0.15 to 0.31; of 118 strings laid over real colour pictures three passed 0.16, none on a patch."""
_ONE_HUE: Final = 0.06
_STROKES_COLOURED: Final = 0.5
_ON_PATCH: Final = 0.5


def is_flow(
    pixels: Pixels, tophat: NDArray[np.uint8], patches: NDArray[np.uint8], boxes: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Which candidate lines are colour flow or a colour bar, (N,).

    Args:
        pixels: uint8 (H, W, 3) RGB.
        tophat: how far each pixel stands out, uint8 (H, W).
        patches: of `flow_patches`.
        boxes: half-open (x0, y0, x1, y1), (N, 4).
    """
    if not patches.any():
        return np.zeros(len(boxes), bool)
    cuts = [np.s_[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]
    return np.array([patches[c].mean() >= _ON_PATCH and _has_hues(pixels[c], tophat[c]) for c in cuts], bool)


def flow_patches(pixels: Pixels) -> NDArray[np.uint8]:
    """1 on broad patches of many hues and just around them, else 0; uint8 (H, W)."""
    brightest, darkest = pixels.max(axis=2), pixels.min(axis=2)
    coloured = (cv2.subtract(brightest, darkest) > _COLOURED).astype(np.uint8)
    if int(coloured.sum()) < _PATCH_PX:
        return np.zeros_like(coloured)
    closed = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
    count, labels = cv2.connectedComponents(closed, connectivity=8)
    ys, xs = np.nonzero(coloured)
    mine = labels[ys, xs]
    hues = pixels[ys, xs].astype(np.float64) / brightest[ys, xs][:, None]
    size = np.maximum(np.bincount(mine, minlength=count), 1)
    spread = np.zeros(count)
    for channel in hues.T:
        mean = np.bincount(mine, weights=channel, minlength=count) / size
        square = np.bincount(mine, weights=channel**2, minlength=count) / size
        spread += np.sqrt(np.maximum(square - mean**2, 0))
    flow = (spread > _HUE_SPREAD) & (size >= _PATCH_PX)
    flow[0] = False
    return np.asarray(cv2.dilate(flow[labels].astype(np.uint8), np.ones((9, 9), np.uint8)), np.uint8)


def _has_hues(pixels: Pixels, tophat: NDArray[np.uint8]) -> bool:
    """Whether the strokes of a line are mostly coloured, and not all of one hue."""
    strokes = pixels[tophat > 0.5 * np.quantile(tophat, 0.98)].astype(np.float32)
    if len(strokes) == 0:
        return False
    brightest = strokes.max(axis=1)
    coloured = brightest - strokes.min(axis=1) > _COLOURED
    if coloured.mean() < _STROKES_COLOURED:
        return False
    hues = strokes[coloured] / brightest[coloured, None]
    return bool(hues.std(axis=0).sum() > _ONE_HUE)
