"""Apply drawn parameters to uint8 pixels: crop, resize, flip, grey levels, blur, solarise.

The resize (`resample`) agrees with PIL's antialiased bicubic to rounding, over 70 dB. Brightness and contrast of a grey
view are one 256-entry table, exact against PIL's arithmetic. The blur's kernel reaches as far as PIL's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_model.views.params import CropGroup, ViewParams, draw_view
from openus_model.views.resample import resized_crop

Pixels = NDArray[np.uint8]
CELL_PX = 32
"""Pixels of a view per cell of a mask, the stride of the backbones."""
DYNAMIC_RANGE_DB = 60.0
"""Displayed range that a level change in dB is read against; the usual preset of B-mode."""
_GRID = 64
"""Side of the coarse grid on which crops are held to the scan area."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One view.

    Args:
        pixels: uint8 (size, size) or (size, size, 3).
        valid: float32 (size / 32, size / 32), share of each mask cell inside the scan area.
        params: what made it.
    """

    pixels: Pixels
    valid: NDArray[np.float32]
    params: ViewParams


def multi_crop(
    image: Pixels, polygon: NDArray[np.float32], groups: Sequence[CropGroup], rng: np.random.Generator
) -> list[list[View]]:
    """All views of one image, a list per group.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        polygon: outline of the scan area (P, 2) in pixels of the image; (0, 2) means the whole image.
        groups: kinds of views.
        rng: consumed; the same state gives the same views.
    """
    height, width = image.shape[:2]
    inside = _integral(polygon, height, width) if any(g.inside_share > 0 for g in groups) and len(polygon) else None
    views = []
    for group in groups:
        drawn = [draw_view(rng, group, k, height, width, inside) for k in range(group.count)]
        views.append([View(pixels=apply(image, p), valid=valid_share(polygon, p), params=p) for p in drawn])
    return views


def apply(image: Pixels, params: ViewParams) -> Pixels:
    """One view of an image, uint8 (H, W) or (H, W, 3)."""
    pixels = resized_crop(image, params.box, params.size)
    if params.flip:
        pixels = cv2.flip(pixels, 1)
    pixels = _jitter(pixels, params)
    if params.gain_db is not None:
        pixels = _row_gain(pixels, params.gain_db)
    if params.blur_px > 0:
        side = _blur_side_px(params.blur_px)
        pixels = cv2.GaussianBlur(pixels, (side, side), params.blur_px, borderType=cv2.BORDER_REPLICATE)
    if params.lateral_blur_px > 0.1:
        pixels = cv2.GaussianBlur(pixels, (0, 1), params.lateral_blur_px, sigmaY=0.01, borderType=cv2.BORDER_REPLICATE)
    if params.solarize:
        pixels = cv2.LUT(pixels, _SOLARIZE)
    return np.ascontiguousarray(pixels)


def valid_share(polygon: NDArray[np.float32], params: ViewParams) -> NDArray[np.float32]:
    """Share of each mask cell of a view inside the scan area, (size / 32, size / 32); ones where it is not known."""
    cells = params.size // CELL_PX
    if len(polygon) == 0:
        return np.ones((cells, cells), np.float32)
    x, y, w, h = params.box
    fine = params.size
    points = (polygon - np.asarray([x, y], np.float32)) * np.asarray([fine / w, fine / h], np.float32)
    if params.flip:
        points[:, 0] = fine - points[:, 0]
    canvas = np.zeros((fine, fine), np.uint8)
    cv2.fillPoly(canvas, [np.round((points - 0.5) * 16).astype(np.int32)], 255, shift=4)
    shares = cv2.resize(canvas, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray(shares, np.float32) / np.float32(255)


def _integral(polygon: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    canvas = np.zeros((_GRID, _GRID), np.uint8)
    points = polygon * np.asarray([_GRID / width, _GRID / height], np.float32)
    cv2.fillPoly(canvas, [np.round((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return np.asarray(cv2.integral(canvas), dtype=np.float32)


def _blur_side_px(sigma_px: float) -> int:
    """Side of PIL's kernel: a Gaussian there is three box blurs, each (sqrt(4 sigma^2 + 1) - 1) / 2 to either side."""
    return 2 * math.ceil(1.5 * (math.sqrt(4 * sigma_px**2 + 1) - 1)) + 1


def _jitter(pixels: Pixels, params: ViewParams) -> Pixels:
    """ColorJitter and grayscale. On grey views all of it folds into one table, through the levels' histogram."""
    if pixels.ndim == 3:
        return _jitter_colour(pixels, params)
    if not params.jitter:
        return pixels
    table = _LEVELS
    for name, factor in params.jitter:
        if name == "brightness":
            table = _blend(0.0, table, factor)
        elif name == "contrast":
            table = _blend(math.floor(_mean_level(pixels, table) + 0.5), table, factor)
    return np.asarray(cv2.LUT(pixels, table.astype(np.uint8)))


def _mean_level(pixels: Pixels, table: NDArray[np.float32]) -> float:
    """Mean of a view after a table, without making that view."""
    if table is _LEVELS:
        return float(cv2.mean(pixels)[0])
    histogram = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()
    return float(histogram @ table) / pixels.size


def _jitter_colour(pixels: Pixels, params: ViewParams) -> Pixels:
    for name, factor in params.jitter:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        if name == "brightness":
            pixels = cv2.LUT(pixels, _blend(0.0, _LEVELS, factor).astype(np.uint8))
        elif name == "contrast":
            mean = math.floor(float(grey.mean()) + 0.5)
            pixels = cv2.LUT(pixels, _blend(mean, _LEVELS, factor).astype(np.uint8))
        elif name == "saturation":
            pixels = _blend(grey[..., None].astype(np.float32), pixels.astype(np.float32), factor).astype(np.uint8)
        else:
            hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(factor * 255) % 256)
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    if params.grey:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return pixels


def _blend(low: NDArray[np.float32] | float, high: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """PIL's Image.blend: low + factor * (high - low), cut to [0, 255], then truncated."""
    blended = low + np.float32(factor) * (high - low)
    return np.asarray(np.floor(np.minimum(np.maximum(blended, 0), 255)), np.float32)


def _row_gain(pixels: Pixels, gain_db: NDArray[np.float32]) -> Pixels:
    """Add a level offset to each row: B-mode is log-compressed, so a gain in dB is a shift of the grey level."""
    shift = gain_db * np.float32(255.0 / DYNAMIC_RANGE_DB)
    shaped = shift.reshape(-1, *([1] * (pixels.ndim - 1)))
    # What is black stays black: outside the scan area there is nothing to amplify.
    return np.asarray(np.where(pixels > 0, np.clip(pixels + shaped, 0, 255), 0).astype(np.uint8))


_LEVELS = np.arange(256, dtype=np.float32)
_SOLARIZE = np.where(np.arange(256) >= 128, 255 - np.arange(256), np.arange(256)).astype(np.uint8)
