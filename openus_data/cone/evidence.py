"""What each part of a picture says for or against echo, on a grid of about 200 cells.

Scanners paint their background in a few exact levels that reach the rim of the frame; echo is whatever differs from
all of them over an area. Strokes of text are thin, so a median on a grid twice as fine removes them. Chrome (buttons,
bars) is bright and exactly flat, which echo never is over an area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
CELLS = 240
"""Most cells along the longer side of the grid."""
_FLAT_TOLERANCE, _INSET = 2, 3
_LEAST_CELLS = 8
_LEVEL_SHARE = 0.1
_LEVEL_APART = 8
_AS_FREQUENT = 0.75
_CHROME_FLOOR = 12
_AROUND = (5, 5)
_STROKE_FLOOR = 48
_MEDIAN = 5
_HEADER_SHARE = 0.7
_MAIN_SHARE, _EQUAL_SHARE, _PAGE = 0.5, 0.5, 128
_EXACT_SHARE, _BRIGHT_SHARE = 0.8, 0.02
_CONTRASTS = (16, 1)
_COARSE_CELLS = 64
_SOLID, _LEAST_FRAME, _LEAST_FULL = 0.9, 0.15, 0.5
_DARKER_TOLERANCE = 6
_LEAST_SHADING, _ALIKE_ENDS, _ONE_LEVEL = 3.0, 0.8, 0.5
_NEIGHBOURS, _AREA, _BEFORE = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8), np.ones((1, 5), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The grid. A cell (row, column) covers `scale` x `scale` pixels of the frame.

    Args:
        level: uint8 (h, w), how far the cell is from every background level once thin strokes are gone.
        chrome: bool (h, w), interface: bright and exactly flat, or made of fine strokes.
        moving: bool (h, w), changed over the clip; None for stills.
        grey: uint8 (H, W), brightness of the frame, of a clip the maximum over time; smoothed where all of it is noisy.
        distance: uint8 (H, W), distance of every pixel to the nearest background level.
        backgrounds: levels that reach the rim of the frame; empty where echo fills the frame.
        noisy: the frame is noisy up to its rim, so that no level of it is exact.
        scale: (x, y), pixels per cell.
    """

    level: Grey
    chrome: NDArray[np.bool_]
    moving: NDArray[np.bool_] | None
    grey: Grey
    distance: Grey
    backgrounds: tuple[int, ...]
    noisy: bool
    scale: tuple[float, float]


def gather(grey: Grey, spread: Grey | None = None) -> Evidence:
    """The evidence of one picture.

    Args:
        grey: uint8 (H, W).
        spread: uint8 (H, W), maximum less minimum over a clip, or None.
    """
    grey = _without_shading(grey)
    noisy = _is_noisy(grey)
    grey, backgrounds = _smoothed(grey) if noisy else (grey, background_levels(grey))
    distance = _distance(grey, backgrounds)
    height, width = grey.shape
    cell = _cell_px(max(height, width))
    (rows, high), (cols, wide) = _whole(height, cell), _whole(width, cell)
    fine = _shrink(distance[:high, :wide], 2 * cols, 2 * rows)
    solid: Grey = cv2.medianBlur(fine, _MEDIAN)
    level, mean = _shrink(solid, cols, rows), _shrink(fine, cols, rows)
    strokes = _strokes(_shrink(cv2.absdiff(fine, solid), cols, rows), mean)
    plain = mean if backgrounds in ((), (0,)) else _shrink(_shrink(grey[:high, :wide], 2 * cols, 2 * rows), cols, rows)
    moving = None
    if spread is not None:
        moving = _shrink(cv2.medianBlur(_shrink(spread[:high, :wide], 2 * cols, 2 * rows), _MEDIAN), cols, rows) > 6
    return Evidence(
        level=level,
        chrome=(_flat(plain) & (np.minimum(level, plain) >= _CHROME_FLOOR)) | strokes,
        moving=moving,
        grey=grey,
        distance=distance,
        backgrounds=backgrounds,
        noisy=noisy,
        scale=(wide / cols, high / rows),
    )


def _cell_px(longest: int) -> int:
    """Pixels per cell of a frame whose longer side is `longest` px; whole, so that shrinking is exact and fast."""
    return 1 if longest <= CELLS else 2 * math.ceil(longest / (2 * CELLS))


def _whole(side: int, cell: int) -> tuple[int, int]:
    """How many cells a side of the frame has, and how many of its pixels they cover."""
    count = side // cell
    return (count, count * cell) if count >= _LEAST_CELLS else (_LEAST_CELLS, side)


def background_levels(grey: Grey) -> tuple[int, ...]:
    """Levels that are flat along the rim of a frame (H, W), or of a frame shown within it, the likelier first."""
    return _with_those_within(grey, _frame_levels(grey))


def _with_those_within(grey: Grey, levels: list[int]) -> tuple[int, ...]:
    """The background levels of a picture (H, W) and those of a frame that it shows on a page or between bars."""
    step = max(2, max(grey.shape) // _COARSE_CELLS)
    few = np.ascontiguousarray(grey[::step, ::step])
    bright = 0
    for least in _CONTRASTS if levels else ():
        off = (cv2.LUT(few, _distance_table(tuple(levels))) >= least).view(np.uint8)
        bright = cv2.countNonZero(off) if least == max(_CONTRASTS) else bright
        inner = _frame_within(grey, off, step)
        if inner is None:
            continue
        on_page = min(levels) >= _PAGE  # elsewhere it may be echo alone
        fresh = _frame_levels(inner) if on_page else _rim_levels(inner, _MAIN_SHARE)
        drawn = _line(inner, 0)
        for level in fresh:
            exact = np.count_nonzero(drawn == level) >= _EXACT_SHARE * len(drawn) and bright >= _BRIGHT_SHARE * few.size
            if exact or all(abs(level - known) > 1 for known in levels):  # one level apart may be dark echo
                levels.append(level)
    return tuple(levels)


def _frame_levels(grey: Grey) -> list[int]:
    """The levels along the rim of a frame (H, W) of its own, that of a bar along its top among them."""
    levels = _rim_levels(grey)
    header = _header_level(grey)
    if header is not None and all(abs(header - level) > 1 for level in levels):
        levels.append(header)
    return levels


def _rim_levels(grey: Grey, main: float = 0.0) -> list[int]:
    """Up to four levels that are each flat along a part of the rim of a picture (H, W), the most frequent first.

    None if the most frequent one makes less than the part `main`, which is for pictures that may have no exact one.
    """
    counts = np.bincount(_flat_rim(grey), minlength=256)
    total = 2 * (grey.shape[0] + grey.shape[1])
    levels: list[int] = []
    for _ in range(4):
        peak = int(counts.argmax())
        if not main:  # of levels about as frequent the darkest, since the faintest echo lies just above
            below = max(0, peak - _FLAT_TOLERANCE)
            peak = below + int((counts[below : peak + 1] >= _AS_FREQUENT * counts[peak]).argmax())
        low, high = max(0, peak - _LEVEL_APART + 1), peak + _LEVEL_APART
        near = counts[max(0, peak - _FLAT_TOLERANCE) : peak + _FLAT_TOLERANCE + 1].sum()
        if near < (_LEVEL_SHARE if levels else max(main, _LEVEL_SHARE)) * total:
            break
        if not levels or _goes_round(grey, peak):
            levels.append(peak)
        counts[low:high] = 0
    return levels


def _goes_round(grey: Grey, level: int) -> bool:
    """Whether a level is at a corner of a frame (H, W) or along two sides; else it may be echo that the frame cuts."""
    edge = [0, _INSET, -1 - _INSET, -1]
    corners, *sides = (
        np.abs(part.astype(np.int16) - level) <= _FLAT_TOLERANCE
        for part in (grey[np.ix_(edge, edge)], grey[0], grey[-1], grey[:, 0], grey[:, -1])
    )
    return bool(corners.any()) or sum(side.mean() >= _LEVEL_SHARE for side in sides) > 1


def _frame_within(grey: Grey, off: Grey, step: int) -> Grey | None:
    """The frame on a page or between bars: a large part off the background, if a solid rectangle but for holes.

    Args:
        grey: (H, W).
        off: one pixel in `step` of each axis, 1 where it differs from the background; written to.
        step: px.
    """
    least = _SOLID * _LEAST_FRAME * off.size
    if cv2.countNonZero(off) < least:
        return None
    x, y, w, h, area = _part_at_the_middle(off)
    if area < least:
        _, _, stats, _ = cv2.connectedComponentsWithStats(off, connectivity=4)
        x, y, w, h, area = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())].tolist()
    if w * h < _LEAST_FRAME * off.size or (area < _SOLID * w * h and not _is_framed(off[y : y + h, x : x + w], area)):
        return None
    inside = grey[step * (y + 1) : step * (y + h - 1), step * (x + 1) : step * (x + w - 1)]
    return inside if min(inside.shape) > 2 * step else None


def _is_framed(off: Grey, area: int) -> bool:
    """Whether what has holes, as of echo as bright as the page, has a solid rim; `off` is its box."""
    sides = (off[0], off[-1], off[:, 0], off[:, -1])
    return area > _LEAST_FULL * off.size and all(cv2.countNonZero(side) >= _SOLID * len(side) for side in sides)


def _part_at_the_middle(off: Grey) -> tuple[int, int, int, int, int]:
    """Box (x, y, width, height) and area of the part at the middle of a picture (H, W), 0 where there is none.

    It is mostly the largest one, and filling it takes a quarter of the time that finding all takes.
    """
    row, column = off.shape[0] // 2, off.shape[1] // 2
    if not off[row, column]:
        return 0, 0, 0, 0, 0
    area, _, _, (x, y, width, height) = cv2.floodFill(off, None, (column, row), 2)
    return x, y, width, height, area


def _without_shading(grey: Grey) -> Grey:
    """A frame (H, W) whose background runs from dark to light, or is brushed, less that background; others as they are.

    Such a background differs from row to row and is the same at both ends of each, or from column to column.
    """
    for across, first, last in ((False, grey[:, 0], grey[:, -1]), (True, grey[0], grey[-1])):
        counts = np.bincount(first, minlength=256)
        if counts.max() >= _ONE_LEVEL * len(first):
            continue
        if np.convolve(counts, np.ones(2 * _FLAT_TOLERANCE + 1), "same").max() >= _ONE_LEVEL * len(first):
            continue
        apart = np.abs(first.astype(np.int16) - last)
        if first.std() < _LEAST_SHADING or np.mean(apart <= _FLAT_TOLERANCE) < _ALIKE_ENDS:
            continue
        ground = np.minimum(first, last)
        ground = np.tile(ground, (len(grey), 1)) if across else np.tile(ground[:, None], (1, grey.shape[1]))
        plain: Grey = cv2.subtract(cv2.absdiff(grey, ground), _FLAT_TOLERANCE)
        return plain
    return grey


def _smoothed(grey: Grey) -> tuple[Grey, tuple[int, ...]]:
    """A noisy picture smoothed, and the background that then shows along most of its rim; as it was if none does."""
    smooth: Grey = cv2.GaussianBlur(grey, (5, 5), 0)
    levels = _rim_levels(smooth, _MAIN_SHARE)
    return (smooth, _with_those_within(smooth, levels)) if levels else (grey, background_levels(grey))


def _is_noisy(grey: Grey) -> bool:
    """Whether few pixels along the rim of a frame (H, W) equal the next one, as those of a drawn background do."""
    line = _line(grey, 0)
    return bool(np.count_nonzero(line[1:] == line[:-1]) < _EQUAL_SHARE * len(line))


def _header_level(grey: Grey) -> int | None:
    """The level of a flat bar along the top, where scanners never show a dark part of their echo."""
    top = grey[0]
    counts = np.bincount(top, minlength=256)
    level = int(counts.argmax())
    near = counts[max(0, level - 1) : level + 2].sum()
    return level if near >= _HEADER_SHARE * len(top) else None


def _flat_rim(grey: Grey) -> Grey:
    """The pixels (N,) along the rim of a frame (H, W) that equal those within and beside to a level or two."""
    line = _line(grey, 0)
    beside, inner = line[None], _line(grey, 1)
    high = np.maximum(cv2.dilate(beside, _BEFORE, anchor=(4, 0))[0], inner)
    low = np.minimum(cv2.erode(beside, _BEFORE, anchor=(4, 0))[0], inner)
    rim: Grey = line[np.maximum(high - line, line - low) <= _FLAT_TOLERANCE]
    return rim


def _line(grey: Grey, depth: int) -> Grey:
    """The first and the last row and column of a frame (H, W), or those `depth` pixels within, one after the other."""
    return np.concatenate((grey[depth], grey[-1 - depth], grey[:, depth], grey[:, -1 - depth]))


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


def _strokes(lost: Grey, mean: Grey) -> NDArray[np.bool_]:
    """Cells (h, w) round which half of the brightness or more is fine strokes: words, rulers, traces.

    Args:
        lost: what a median takes away, mean over the cell.
        mean: brightness over the background, mean over the cell.
    """
    lost, mean = cv2.blur(lost, _AROUND), cv2.blur(mean, _AROUND)
    strokes: NDArray[np.bool_] = (lost >= mean - mean // 2) & (mean >= _STROKE_FLOOR)
    return strokes


def _shrink(picture: Grey, cols: int, rows: int) -> Grey:
    """(H, W) to (rows, cols) by area."""
    small: Grey = cv2.resize(picture, (cols, rows), interpolation=cv2.INTER_AREA)
    return small


def _flat(plain: Grey) -> NDArray[np.bool_]:
    """Cells (h, w) that equal all their neighbours, over an area."""
    spread = cv2.morphologyEx(plain, cv2.MORPH_GRADIENT, _NEIGHBOURS)
    middles = cv2.erode((spread <= 1).view(np.uint8), _NEIGHBOURS)
    cells: NDArray[np.bool_] = cv2.dilate(middles, _AREA).view(np.bool_)
    return cells
