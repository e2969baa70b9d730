"""Candidate lines of text: strokes joined to letters by touch, and letters to lines by neighbourhood.

    lines = candidate_lines(relief(pixels, inside))
    lines.boxes, lines.features      # (N, 4), (N, len(FEATURES))

The families of strokes are stacked into one tall picture without its empty rows, so that letters, lines and what they
measure are each found in one go. Strokes are kept as runs of pixels along a row, a few times fewer than pixels, and all
work is counting by label: no loop over letters or lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_features import FEATURES, LineRuns, measured, spread
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
        mask: uint8 (R, 1 + W), 1 on strokes; the first column is empty, so that no run goes on in the next row.
        row: of the picture, for each row of the mask.
        family: number, for each row of the mask.
    """

    mask: NDArray[np.uint8]
    row: _Ints
    family: _Ints


class _Runs(NamedTuple):
    """Pixels next to each other in a row of a stack, row by row; int arrays of one length.

    Args:
        y: row of the stack.
        x0, x1: half-open columns of the stack.
        letter: number of the component.
    """

    y: _Ints
    x0: _Ints
    x1: _Ints
    letter: _Ints

    def only(self, kept: NDArray[np.bool_]) -> _Runs:
        """Some of them."""
        return _Runs(*(part[kept] for part in self))


def candidate_lines(picture: Relief) -> Lines:
    """Everything that could be a line of text.

    Args:
        picture: of `relief`.
    """
    families = stroke_families(picture)
    stack = _stacked(families)
    if not len(stack.mask):
        return _no_lines()
    runs, count = _runs(stack.mask)
    letters = _extents(runs.letter, runs, count)
    runs = runs.only(_could_be_letters(letters, _areas(runs.letter, runs, count))[runs.letter])
    if not len(runs.y):
        return _no_lines()
    line, count = _grouped(runs, stack.mask.shape)
    boxes = _extents(line, runs, count)
    good = _could_be_lines(boxes, _areas(line, runs, count))
    kept = good[line]
    runs, line, boxes = runs.only(kept), (np.cumsum(good) - 1)[line[kept]], boxes[good]
    if not len(boxes):
        return _no_lines()
    family = stack.family[boxes[:, 1]]
    boxes -= (1, 0, 1, 0)
    boxes[:, 1], boxes[:, 3] = stack.row[boxes[:, 1]], stack.row[boxes[:, 3] - 1] + 1
    in_picture = LineRuns(row=stack.row[runs.y], x0=runs.x0 - 1, x1=runs.x1 - 1, line=line, letter=runs.letter)
    return Lines(boxes=boxes, features=measured(families, in_picture, boxes, family, letters))


def _no_lines() -> Lines:
    return Lines(boxes=np.zeros((0, 4), np.int64), features=np.zeros((0, len(FEATURES))))


def _stacked(families: list[Strokes]) -> _Stack:
    height, width = families[0].picture.level.shape
    rows: list[_Ints] = []
    for strokes in families:
        used = np.zeros(height + 1, bool)
        if strokes.mask is not None:
            strokes.mask.any(axis=1, out=used[:-1])
        used[1:] |= used[:-1].copy()
        rows.append(np.flatnonzero(used))
    ends = np.cumsum([len(kept) for kept in rows])
    mask = np.zeros((int(ends[-1]), 1 + width), np.uint8)
    for strokes, kept, end in zip(families, rows, ends.tolist(), strict=True):
        if strokes.mask is not None and len(kept):
            part = mask[end - len(kept) : end, 1:]
            np.take(strokes.mask.view(np.uint8), kept, axis=0, mode="clip", out=part)
            part[kept == height] = 0
    return _Stack(mask, np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(kept) for kept in rows]))


def _runs(mask: NDArray[np.uint8]) -> tuple[_Runs, int]:
    """The runs of a stack, and how many components there are, the ground being one."""
    flat = mask.ravel()
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1  # the first and the last pixel are ground
    start, end = turns[::2], turns[1::2]
    y = start // mask.shape[1]
    left = y * mask.shape[1]
    count, label = _components(mask, start)
    return _Runs(y, start - left, end - left, label), count


def _components(mask: NDArray[np.uint8], start: _Ints) -> tuple[int, _Ints]:
    """How many components there are, the ground being one, and the component of each start of a run."""
    kind = cv2.CV_16U if len(start) < np.iinfo(np.uint16).max else cv2.CV_32S  # less memory is faster
    count, labels = cv2.connectedComponents(mask, connectivity=8, ltype=kind)
    return count, labels.ravel()[start].astype(np.int64)


def _areas(group: _Ints, runs: _Runs, count: int) -> _Ints:
    """Pixels of each group of runs."""
    return np.bincount(group, runs.x1 - runs.x0, minlength=count).astype(np.int64)


def _extents(group: _Ints, runs: _Runs, count: int) -> _Ints:
    """Half-open box of each group of runs, int (count, 4); a group without any has an empty one."""
    boxes = np.zeros((count, 4), np.int64)
    boxes[group, 3] = runs.y + 1  # runs come row by row: the last one written is the lowest
    boxes[group[::-1], 1] = runs.y[::-1]
    left, right = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(left, group, runs.x0)
    np.maximum.at(right, group, runs.x1)
    boxes[:, 0], boxes[:, 2] = np.minimum(left, right), right
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


def _grouped(runs: _Runs, shape: tuple[int, ...]) -> tuple[_Ints, int]:
    """Line of each run, and how many labels there are: letters next to each other, found at half the width.

    Rows that have no letter left are left out again, but for one after each run of others.
    """
    used = np.zeros(shape[0] + 1, bool)
    used[runs.y] = True
    used[runs.y + 1] = True
    row = np.cumsum(used) - 1
    half_width = shape[1] // 2 + 1
    half = np.zeros((int(row[-1]) + 1, half_width), np.uint8)
    first = row[runs.y] * half_width + runs.x0 // 2
    half.ravel()[spread(first, (runs.x1 - 1) // 2 - runs.x0 // 2 + 1)] = 1
    count, label = _components(cv2.dilate(half, _GAP), first)
    return label, count
