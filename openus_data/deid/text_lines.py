"""Candidate lines of text: strokes by top-hat, letters by shape, lines by neighbourhood, and what each measures.

    lines = candidate_lines(pixels, inside)
    lines.boxes, lines.features      # (N, 4), (N, len(FEATURES))

A white top-hat keeps what is thinner than a letter's stroke. Two thresholds see different text: one held against the
local contrast of speckle finds faint words on calm ground, an absolute one finds bright words whose letters the first
would join with bright speckle. Dark words on a light ground are looked for in the inverted picture. All work on letters
is counting by label: no loop over letters or lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

STROKE_PX: Final = 9
"""Side of the top-hat's square: thicker than any stroke of a letter, thinner than a layer of tissue."""
FEATURES: Final = (
    *("level", "level_spread", "tophat", "tophat_spread", "usual", "edge", "ground", "ground_spread", "top_level"),
    *("top_share", "chroma", "chroma_spread", "letters", "letter_height", "letter_height_spread", "letter_width"),
    *("letter_width_spread", "baseline_spread", "width", "height", "fill", "tophat_to_usual", "edge_to_tophat"),
    *("level_variation", "height_ratio", "density", "baseline_ratio", "stroke", "calm", "family"),
)
"""What is measured on a line, in this order; `family` is which threshold found it."""
_LETTER_HEIGHT_PX = (4, 44)
_LETTER_WIDTH_PX = 250
_LINE_HEIGHT_PX = (5, 52)
_LEAST_LETTER_PX = 5
_LEAST_STROKE_PX = 14
_LEAST_WIDTH_TO_HEIGHT = 0.8
_GAP_PX = 10
_Reals = NDArray[np.float64]
_Ints = NDArray[np.int64]


class _Threshold(NamedTuple):
    least: float
    factor: float


_THRESHOLDS: Final = (_Threshold(40, 2.9), _Threshold(115, 1.9))
_DARK_ON_LIGHT: Final = _Threshold(70, 4.0)
_LIGHT_GROUND: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Candidates.

    Args:
        boxes: half-open (x0, y0, x1, y1), int (N, 4).
        features: float (N, len(FEATURES)).
    """

    boxes: _Ints = field(repr=False)
    features: _Reals = field(repr=False)


class Relief(NamedTuple):
    """A picture and what stands out of it.

    Args:
        level: brightest channel, uint8 (H, W).
        tophat: how far it rises above anything as wide as `STROKE_PX`, uint8 (H, W).
        usual: mean of the top-hat around, uint8, at a quarter of the size.
        chroma: brightest less darkest channel, uint8 (H, W); None for grey.
    """

    level: NDArray[np.uint8]
    tophat: NDArray[np.uint8]
    usual: NDArray[np.uint8]
    chroma: NDArray[np.uint8] | None


def relief(pixels: Pixels, inside: NDArray[np.bool_] | None = None) -> Relief:
    """What stands out of a picture, uint8 (H, W) or (H, W, 3).

    What lies outside counts as bright, so that a corner of the scan area on black is no stroke.
    """
    level, chroma = pixels, None
    if pixels.ndim == 3:
        red, green, blue = cv2.split(pixels)
        level = cv2.max(cv2.max(red, green), blue)
        chroma = cv2.subtract(level, cv2.min(cv2.min(red, green), blue))
    return _relief_of(np.ascontiguousarray(level), chroma, inside)


def candidate_lines(pixels: Pixels, inside: NDArray[np.bool_] | None = None) -> Lines:
    """Everything that could be a line of text.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        inside: where to look, bool (H, W); None looks everywhere.
    """
    bright = relief(pixels, inside)
    found = [_lines(bright, stands_out(bright, t), inside, family) for family, t in enumerate(_THRESHOLDS)]
    dark = _dark_strokes(bright, inside)
    if dark is not None:
        found.append(_lines(*dark, inside, len(_THRESHOLDS)))
    return Lines(boxes=np.concatenate([f.boxes for f in found]), features=np.concatenate([f.features for f in found]))


def stands_out(picture: Relief, threshold: _Threshold) -> NDArray[np.bool_]:
    """Where the top-hat is above the threshold, bool (H, W)."""
    least = np.clip(picture.usual * np.float32(threshold.factor), threshold.least, 255).astype(np.uint8)
    height, width = picture.level.shape
    return np.asarray(picture.tophat > cv2.resize(least, (width, height), interpolation=cv2.INTER_LINEAR))


def _relief_of(level: NDArray[np.uint8], chroma: NDArray[np.uint8] | None, inside: NDArray[np.bool_] | None) -> Relief:
    walled = level if inside is None else cv2.max(level, cv2.convertScaleAbs(inside.view(np.uint8), None, -255, 255))
    ground = cv2.morphologyEx(walled, cv2.MORPH_OPEN, np.ones((STROKE_PX, STROKE_PX), np.uint8))
    tophat = cv2.subtract(level, ground)
    quarter = (max(1, level.shape[1] // 4), max(1, level.shape[0] // 4))
    usual = cv2.blur(cv2.resize(tophat, quarter, interpolation=cv2.INTER_AREA), (15, 15))
    return Relief(level, np.asarray(tophat), np.asarray(usual), chroma)


def _dark_strokes(bright: Relief, inside: NDArray[np.bool_] | None) -> tuple[Relief, NDArray[np.bool_]] | None:
    """The inverted picture and its strokes, where a light ground is there for dark words to stand on."""
    if np.count_nonzero(bright.level[::4, ::4] > _LIGHT_GROUND) * 16 < 4 * STROKE_PX**2:
        return None
    inverted = _relief_of(cv2.bitwise_not(bright.level), bright.chroma, inside)
    strokes = stands_out(inverted, _DARK_ON_LIGHT)
    strokes &= cv2.add(bright.level, inverted.tophat) > _LIGHT_GROUND
    return inverted, strokes


def _lines(picture: Relief, strokes: NDArray[np.bool_], inside: NDArray[np.bool_] | None, family: int) -> Lines:
    if inside is not None:
        strokes &= inside
    at = np.flatnonzero(strokes)
    if len(at) < _LEAST_STROKE_PX:
        return _no_lines()
    count, labels = cv2.connectedComponents(strokes.view(np.uint8), connectivity=8)
    letter_at = labels.ravel()[at]
    letters = _extents(letter_at, at, strokes.shape[1], count)
    kept = _letters(letters, np.bincount(letter_at, minlength=count))[letter_at]
    at, letter_at = at[kept], letter_at[kept]
    if not len(at):
        return _no_lines()
    line_at, count = _grouped(at, strokes.shape)
    boxes = _extents(line_at, at, strokes.shape[1], count)
    good = _could_be_text(boxes, np.bincount(line_at, minlength=count))
    kept = good[line_at]
    at, letter_at, line_at = at[kept], letter_at[kept], (np.cumsum(good) - 1)[line_at[kept]]
    boxes = boxes[good]
    features = _features(picture, at, line_at, letter_at, letters, boxes)
    return Lines(boxes=boxes, features=np.column_stack([features, np.full(len(boxes), float(family))]))


def _no_lines() -> Lines:
    return Lines(boxes=np.zeros((0, 4), np.int64), features=np.zeros((0, len(FEATURES))))


def _extents(group: _Ints, at: _Ints, width: int, count: int) -> _Ints:
    """Half-open box of each group of pixels, int (count, 4); a group without pixels has an empty one."""
    y, x = np.divmod(at, width)
    boxes = np.zeros((count, 4), np.int64)
    boxes[group, 3] = y + 1  # pixels come row by row: the last one written is the lowest
    boxes[group[::-1], 1] = y[::-1]
    left = np.full(count, width)
    np.minimum.at(left, group, x)
    np.maximum.at(boxes[:, 2], group, x + 1)
    boxes[:, 0] = np.minimum(left, boxes[:, 2])
    return boxes


def _letters(boxes: _Ints, area: _Ints) -> NDArray[np.bool_]:
    """Which components could be a letter, or a word whose letters touch."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LETTER_HEIGHT_PX
    widest = np.minimum(12 * height, _LETTER_WIDTH_PX)
    return np.asarray((height >= lowest) & (height <= highest) & (width <= widest) & (area >= _LEAST_LETTER_PX))


def _could_be_text(boxes: _Ints, area: _Ints) -> NDArray[np.bool_]:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LINE_HEIGHT_PX
    is_flat = width >= _LEAST_WIDTH_TO_HEIGHT * height
    return np.asarray((height >= lowest) & (height <= highest) & is_flat & (area >= _LEAST_STROKE_PX))


def _grouped(at: _Ints, shape: tuple[int, ...]) -> tuple[_Ints, int]:
    """Line of each pixel, and how many labels there are: letters up to `_GAP_PX` apart, found at half the width."""
    y, x = np.divmod(at, shape[1])
    half = np.zeros((shape[0], shape[1] // 2 + 1), np.uint8)
    half[y, x // 2] = 1
    grown = cv2.dilate(half, np.ones((1, _GAP_PX // 2), np.uint8))
    count, labels = cv2.connectedComponents(grown, connectivity=8)
    return labels[y, x // 2].astype(np.int64), count


def _features(picture: Relief, at: _Ints, line_at: _Ints, letter_at: _Ints, letters: _Ints, boxes: _Ints) -> _Reals:
    """All of `FEATURES` but the last, float (N, len(FEATURES) - 1)."""
    size = len(boxes)
    level, tophat = (a.ravel()[at].astype(np.float64) for a in (picture.level, picture.tophat))
    edge = _edges(picture.level, at)
    chroma = np.zeros(len(at)) if picture.chroma is None else picture.chroma.ravel()[at].astype(np.float64)
    usual = _looked_up(picture.usual, at, picture.level.shape)
    area = np.maximum(np.bincount(line_at, minlength=size), 1).astype(np.float64)
    mean_level, level_spread = _mean_spread(line_at, level, area)
    mean_tophat, tophat_spread = _mean_spread(line_at, tophat, area)
    ground, ground_spread = _mean_spread(line_at, level - tophat, area)
    mean_chroma, chroma_spread = _mean_spread(line_at, chroma, area)
    mean_edge, mean_usual = (np.bincount(line_at, v, size) / area for v in (edge, usual))
    top = np.zeros(size)
    np.maximum.at(top, line_at, level)
    top_share = np.bincount(line_at, level >= 0.9 * top[line_at], size) / area
    shape = _letter_shapes(line_at, letter_at, letters, size)
    count, tall, *_, baseline_spread = shape
    width, height = (boxes[:, k + 2] - boxes[:, k] for k in (0, 1))
    columns = (mean_level, level_spread, mean_tophat, tophat_spread, mean_usual, mean_edge, ground, ground_spread, top)
    ratios = (
        area / np.maximum(width * height, 1),
        mean_tophat / (mean_usual + 4),
        mean_edge / (mean_tophat + 4),
        level_spread / (mean_level + 1),
        tall / height,
        count * tall / np.maximum(width, 1),
        baseline_spread / height,
        area / count / np.maximum(tall, 1),
        _calm(picture.level, boxes),
    )
    return np.column_stack([*columns, top_share, mean_chroma, chroma_spread, *shape, width, height, *ratios])


def _edges(level: NDArray[np.uint8], at: _Ints) -> _Reals:
    """Size of the Laplacian at pixels: crisp strokes have much of it, speckle blurred by the beam has little."""
    flat, width, last = level.ravel(), level.shape[1], level.size - 1
    around = sum(flat[np.clip(at + step, 0, last)].astype(np.float64) for step in (-1, 1, -width, width))
    return np.asarray(np.abs(4.0 * flat[at] - around))


def _looked_up(small: NDArray[np.uint8], at: _Ints, shape: tuple[int, ...]) -> _Reals:
    y, x = np.divmod(at, shape[1])
    rows, columns = np.minimum(y // 4, small.shape[0] - 1), np.minimum(x // 4, small.shape[1] - 1)
    return np.asarray(small[rows, columns], np.float64)


def _mean_spread(group: _Ints, values: _Reals, area: _Reals) -> tuple[_Reals, _Reals]:
    mean = np.bincount(group, values, len(area)) / area
    square = np.bincount(group, values * values, len(area)) / area
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def _letter_shapes(line_at: _Ints, letter_at: _Ints, letters: _Ints, size: int) -> tuple[_Reals, ...]:
    """Per line: number of letters, mean and spread of their height and width, spread of their feet."""
    line_of = np.full(len(letters), -1)
    line_of[letter_at] = line_at
    used = np.flatnonzero(line_of >= 0)
    line = line_of[used]
    count = np.maximum(np.bincount(line, minlength=size), 1).astype(np.float64)
    x0, y0, x1, y1 = letters[used].T.astype(np.float64)
    w, h = x1 - x0, y1 - y0
    _, feet_spread = _mean_spread(line, y1, count)
    return count, *_mean_spread(line, h, count), *_mean_spread(line, w, count), feet_spread


def _calm(level: NDArray[np.uint8], boxes: _Ints) -> _Reals:
    """Mean level above and below a line, as tall as half of it: the ground that it stands on."""
    sums = cv2.integral(level)
    x0, y0, x1, y1 = boxes.T
    reach = np.maximum(2, (y1 - y0) // 2)
    top, foot = np.maximum(0, y0 - reach), np.minimum(level.shape[0], y1 + reach)
    outer = sums[foot, x1] - sums[top, x1] - sums[foot, x0] + sums[top, x0]
    inner = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray((outer - inner) / np.maximum(1, (x1 - x0) * (foot - top - (y1 - y0))))
