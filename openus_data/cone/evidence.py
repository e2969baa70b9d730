"""What each part of a picture says for or against echo, on a grid of about 200 cells.

Scanners paint their background in a few exact levels that reach the rim of the frame; echo is whatever differs from
all of them over an area. Strokes of text are thin, so a median on a grid twice as fine removes them. Chrome (buttons,
bars) is bright and exactly flat, which echo never is over an area.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
CELLS = 200
"""Cells along the longer side of the grid."""
_FLAT_TOLERANCE = 2
_LEVEL_SHARE = 0.1
_LEVEL_APART = 8
_CHROME_FLOOR = 12
_MEDIAN = 5
_HEADER_SHARE = 0.7
_COMMON_SHARE = 0.25
_DARKER_TOLERANCE = 6
_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The grid. A cell (row, column) covers `scale` x `scale` pixels of the frame.

    Args:
        level: uint8 (h, w), how far the cell is from every background level once thin strokes are gone.
        chrome: bool (h, w), bright and exactly flat: interface.
        moving: bool (h, w), changed over the clip; None for stills.
        grey: uint8 (H, W), brightness of the frame, of a clip the maximum over time.
        distance: uint8 (H, W), distance of every pixel to the nearest background level.
        backgrounds: levels that reach the rim of the frame; empty where echo fills the frame.
        scale: (x, y), pixels per cell.
    """

    level: Grey
    chrome: NDArray[np.bool_]
    moving: NDArray[np.bool_] | None
    grey: Grey
    distance: Grey
    backgrounds: tuple[int, ...]
    scale: tuple[float, float]


def gather(grey: Grey, spread: Grey | None = None) -> Evidence:
    """The evidence of one picture.

    Args:
        grey: uint8 (H, W).
        spread: uint8 (H, W), maximum less minimum over a clip, or None.
    """
    backgrounds = background_levels(grey)
    distance = _distance(grey, backgrounds)
    height, width = grey.shape
    step = max(height, width) / CELLS
    cols, rows = max(8, round(width / step)), max(8, round(height / step))
    fine = _shrink(distance, 2 * cols, 2 * rows)
    level = _denoise(fine, cols, rows)
    plain = _shrink(fine if distance is grey else _shrink(grey, 2 * cols, 2 * rows), cols, rows)
    moving = None
    if spread is not None:
        moving = _denoise(_shrink(spread, 2 * cols, 2 * rows), cols, rows) > 6
    return Evidence(
        level=level,
        chrome=_flat(plain) & (level >= _CHROME_FLOOR),
        moving=moving,
        grey=grey,
        distance=distance,
        backgrounds=backgrounds,
        scale=(width / cols, height / rows),
    )


def background_levels(grey: Grey) -> tuple[int, ...]:
    """Levels that are exactly flat along the rim of a frame (H, W), the most frequent first."""
    counts = np.bincount(_flat_rim(grey), minlength=256)
    total = 2 * (grey.shape[0] + grey.shape[1])
    levels: list[int] = []
    while len(levels) < 4:
        peak = int(counts.argmax())
        low, high = max(0, peak - _LEVEL_APART + 1), peak + _LEVEL_APART
        if counts[max(0, peak - _FLAT_TOLERANCE) : peak + _FLAT_TOLERANCE + 1].sum() < _LEVEL_SHARE * total:
            break
        levels.append(peak)
        counts[low:high] = 0
    extras = ((_header_level(grey), 1), (_common_level(grey) if levels else None, _LEVEL_APART))
    for extra, apart in extras:
        if extra is not None and all(abs(extra - level) > apart for level in levels):
            levels.append(extra)
    return tuple(levels)


def _common_level(grey: Grey) -> int | None:
    """The one level of a quarter of the frame: the scanner's background within the page of a screenshot."""
    sampled = grey[::6, ::6].ravel()
    counts = np.bincount(sampled, minlength=256)
    level = int(counts.argmax())
    near = counts[max(0, level - _FLAT_TOLERANCE) : level + _FLAT_TOLERANCE + 1].sum()
    return level if near >= _COMMON_SHARE * sampled.size else None


def _header_level(grey: Grey) -> int | None:
    """The level of a flat bar along the top, where scanners never show a dark part of their echo."""
    top = grey[0]
    counts = np.bincount(top, minlength=256)
    level = int(counts.argmax())
    near = counts[max(0, level - 1) : level + 2].sum()
    return level if near >= _HEADER_SHARE * len(top) else None


def _flat_rim(grey: Grey) -> Grey:
    """The pixels (N,) along the rim of a frame (H, W) that equal those within and beside to a level or two."""
    line = np.concatenate((grey[0], grey[-1], grey[:, 0], grey[:, -1])).astype(np.int16)
    inner = np.concatenate((grey[1], grey[-2], grey[:, 1], grey[:, -2]))
    flat: NDArray[np.bool_] = np.abs(inner - line) <= _FLAT_TOLERANCE
    for shift in (1, 2, 3, 4):
        flat[shift:] &= np.abs(line[shift:] - line[:-shift]) <= _FLAT_TOLERANCE
    rim: Grey = line[flat].astype(np.uint8)
    return rim


def _distance(grey: Grey, backgrounds: tuple[int, ...]) -> Grey:
    """Distance of every pixel (H, W) to the nearest background level; the frame itself on plain black."""
    if backgrounds in ((), (0,)):
        return grey
    distance: Grey = cv2.LUT(grey, _distance_table(backgrounds))
    return distance


@lru_cache(maxsize=64)
def _distance_table(backgrounds: tuple[int, ...]) -> Grey:
    """Distance of each of 256 levels to the nearest background; a little darker than it counts as equal."""
    above = np.arange(256)[:, None] - np.array(backgrounds)
    distance = np.where(above >= -_DARKER_TOLERANCE, np.maximum(above, 0), -above)
    table: Grey = distance.min(axis=1).astype(np.uint8)
    return table


def _denoise(fine: Grey, cols: int, rows: int) -> Grey:
    """A grid twice as fine to (rows, cols) without thin strokes."""
    solid: Grey = cv2.medianBlur(fine, _MEDIAN)
    return _shrink(solid, cols, rows)


def _shrink(picture: Grey, cols: int, rows: int) -> Grey:
    """(H, W) to (rows, cols) by area."""
    small: Grey = cv2.resize(picture, (cols, rows), interpolation=cv2.INTER_AREA)
    return small


def _flat(plain: Grey) -> NDArray[np.bool_]:
    """Cells (h, w) that equal all their neighbours, over an area."""
    kernel = _NEIGHBOURS
    spread = cv2.subtract(cv2.dilate(plain, kernel), cv2.erode(plain, kernel))
    flat = cv2.morphologyEx((spread <= 1).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    flat = cv2.dilate(flat, kernel)
    cells: NDArray[np.bool_] = flat.view(np.bool_)
    return cells
