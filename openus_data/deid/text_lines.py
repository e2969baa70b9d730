"""Candidate lines of text: strokes joined to letters by touch, and letters to lines by neighbourhood.

    lines = candidate_lines(relief(pixels, inside), inside)
    lines.boxes, lines.features      # (N, 4), (N, len(FEATURES))

The families of strokes are stacked into one tall picture without its empty rows, so that letters, lines and what they
measure are each found in one go. All work is counting by label: no loop over letters or lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_features import FEATURES, LinePixels, measured
from openus_data.deid.text_strokes import Relief, Strokes, stroke_families

_LETTER_HEIGHT_PX = (4, 44)
_LETTER_WIDTH_PX = 250
_LINE_HEIGHT_PX = (5, 52)
_LEAST_LETTER_PX = 5
_LEAST_STROKE_PX = 14
_LEAST_WIDTH_TO_HEIGHT = 0.8
_GAP: Final = np.ones((1, 5), np.uint8)
"""Letters up to 10 px apart make a line; at half the width."""
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Candidates.

    Args:
        boxes: half-open (x0, y0, x1, y1), int (N, 4).
        features: float (N, len(FEATURES)).
    """

    boxes: _Ints = field(repr=False)
    features: NDArray[np.float64] = field(repr=False)


class _Stack(NamedTuple):
    """All families one above the other, empty rows left out but for one after each run of others.

    Args:
        mask: bool (R, W), true on strokes.
        row: of the picture, for each row of the mask.
        family: number, for each row of the mask.
    """

    mask: NDArray[np.bool_]
    row: _Ints
    family: _Ints


def candidate_lines(picture: Relief, inside: NDArray[np.bool_] | None = None) -> Lines:
    """Everything that could be a line of text.

    Args:
        picture: of `relief`.
        inside: where to look, bool (H, W); None looks everywhere.
    """
    families = stroke_families(picture, inside)
    stack = _stacked(families)
    width = stack.mask.shape[1]
    at = np.flatnonzero(stack.mask)
    if len(at) < _LEAST_STROKE_PX:
        return _no_lines()
    count, labels = cv2.connectedComponents(stack.mask.view(np.uint8), connectivity=8)
    letter = labels.ravel()[at]
    letters = _extents(letter, at, width, count)
    kept = _could_be_letters(letters, np.bincount(letter, minlength=count))[letter]
    at, letter = at[kept], letter[kept]
    line, count = _grouped(at, stack.mask.shape)
    boxes = _extents(line, at, width, count)
    good = _could_be_lines(boxes, np.bincount(line, minlength=count))
    kept = good[line]
    at, letter, line, boxes = at[kept], letter[kept], (np.cumsum(good) - 1)[line[kept]], boxes[good]
    if not len(boxes):
        return _no_lines()
    row, column = np.divmod(at, width)
    family = stack.family[boxes[:, 1]]
    boxes[:, 1], boxes[:, 3] = stack.row[boxes[:, 1]], stack.row[boxes[:, 3] - 1] + 1
    pixels = LinePixels(row=stack.row[row], column=column, line=line, letter=letter)
    features = measured(families, pixels, boxes, family, letters)
    return Lines(boxes=boxes, features=features)


def _no_lines() -> Lines:
    return Lines(boxes=np.zeros((0, 4), np.int64), features=np.zeros((0, len(FEATURES))))


def _stacked(families: list[Strokes]) -> _Stack:
    masks, rows, numbers = [], [], []
    for number, strokes in enumerate(families):
        height = len(strokes.mask)
        used = np.zeros(height + 1, bool)
        used[:-1] = strokes.mask.any(axis=1)
        kept = np.flatnonzero(used | np.roll(used, 1))
        part = strokes.mask[np.minimum(kept, height - 1)]
        part[~used[kept]] = False
        masks.append(part)
        rows.append(kept)
        numbers.append(np.full(len(kept), number))
    return _Stack(np.concatenate(masks), np.concatenate(rows), np.concatenate(numbers))


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


def _could_be_letters(boxes: _Ints, area: _Ints) -> NDArray[np.bool_]:
    """Which components could be a letter, or a word whose letters touch."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LETTER_HEIGHT_PX
    widest = np.minimum(12 * height, _LETTER_WIDTH_PX)
    return np.asarray((height >= lowest) & (height <= highest) & (width <= widest) & (area >= _LEAST_LETTER_PX))


def _could_be_lines(boxes: _Ints, area: _Ints) -> NDArray[np.bool_]:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LINE_HEIGHT_PX
    is_flat = width >= _LEAST_WIDTH_TO_HEIGHT * height
    return np.asarray((height >= lowest) & (height <= highest) & is_flat & (area >= _LEAST_STROKE_PX))


def _grouped(at: _Ints, shape: tuple[int, ...]) -> tuple[_Ints, int]:
    """Line of each pixel, and how many labels there are: letters next to each other, found at half the width."""
    y, x = np.divmod(at, shape[1])
    half = np.zeros((shape[0], shape[1] // 2 + 1), np.uint8)
    half[y, x // 2] = 1
    count, labels = cv2.connectedComponents(cv2.dilate(half, _GAP), connectivity=8)
    return labels[y, x // 2], count
