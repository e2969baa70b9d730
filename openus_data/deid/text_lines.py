"""Candidate lines of text: strokes joined to letters by touch, and letters to lines by neighbourhood.

    lines = candidate_lines(relief(pixels, inside))
    lines.boxes, lines.features      # (N, 4), (N, len(FEATURES))

The families of strokes are stacked into one tall picture, so that letters, lines and what they measure are each found
in one go. Strokes are kept as runs of pixels along a row, and all work is counting by group: no loop over letters or
lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_features import FEATURES, LineRuns, measured
from openus_data.deid.text_runs import Ints, Runs, joined, runs_of
from openus_data.deid.text_strokes import Relief, Strokes, stroke_families

_LETTER_HEIGHT_PX = (4, 44)
_LETTER_WIDTH_PX = 250
SMALLEST_PX: Final = 5
"""Height of the lowest line."""
_TALLEST_PX: Final = 52
_LEAST_LETTER_PX = 5
_LEAST_STROKE_PX = 14
_LEAST_WIDTH_TO_HEIGHT = 0.8
_BELOW_PX: Final = 10
"""Letters of a turned word are at most this far apart."""
_BESIDE_PX: Final = 64
"""Large letters are at most this far apart."""
_LARGE_PX: Final = 16
"""Height of the smallest part of a large letter."""
_WIDEST: Final = 1.6
"""Width of a large letter at most, as a part of its height."""
_SHARED, _LARGER = 0.5, 2.0
"""How far two letters of a word overlap at least, across the word, and how much larger one is at most."""
_MOST_COMPARED: Final = 400
"""More strokes than these are not compared: a quarter of a million pairs."""
_REACH: Final = 2
"""Letters this far left and right of one, at half the width, are of its line: a gap of about 10 px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Candidates.

    Args:
        boxes: half-open (x0, y0, x1, y1), int (N, 4).
        features: float (N, len(FEATURES)).
        may_run_down: whether strokes stand below each other like letters, so that the picture is worth turning.
        may_be_large: whether large strokes stand beside each other, so that it is worth a look at half its size.
    """

    boxes: Ints = field(repr=False)
    features: NDArray[np.float64] = field(repr=False)
    may_run_down: bool = False
    may_be_large: bool = False


def candidate_lines(picture: Relief, least_px: int = SMALLEST_PX, families: list[Strokes] | None = None) -> Lines:
    """Everything that could be a line of text.

    Args:
        picture: of `relief`.
        least_px: height from which it counts.
        families: the picture's strokes, where they are known.
    """
    families = families or stroke_families(picture)
    height, width = picture.level.shape
    runs = _stacked(families)
    letter, count = joined(runs, width)
    letters, area = _extents(letter, runs, count), _areas(letter, runs, count)
    clear = letters[(letters[:, 1] > height) & (area >= _LEAST_LETTER_PX)]  # all but the family of the faintest
    hints = {"may_run_down": _stand_below(clear), "may_be_large": _stand_beside(clear)}
    kept = np.flatnonzero(_could_be_letters(letters, area)[letter])
    runs, letter = runs.only(kept), letter[kept]
    line, count = _grouped(runs, width)
    boxes = _extents(line, runs, count)
    good = _could_be_lines(boxes, _areas(line, runs, count), least_px)
    kept = np.flatnonzero(good[line])
    runs, letter, line, boxes = runs.only(kept), letter[kept], (np.cumsum(good) - 1)[line[kept]], boxes[good]
    if not len(boxes):
        return Lines(boxes=boxes, features=np.zeros((0, len(FEATURES))), **hints)
    family, top = np.divmod(boxes[:, 1], height + 1)
    boxes[:, 3] += top - boxes[:, 1]
    boxes[:, 1] = top
    in_picture = LineRuns(row=runs.y % (height + 1), x0=runs.x0, x1=runs.x1, line=line, letter=letter)
    return Lines(boxes=boxes, features=measured(families, in_picture, boxes, family, letters), **hints)


def _stacked(families: list[Strokes]) -> Runs:
    """The runs of all families, one above the other with an empty row between."""
    height, width = families[0].picture.level.shape
    return runs_of(np.concatenate([f.at + k * (height + 1) * width for k, f in enumerate(families)]), width)


def _areas(group: Ints, runs: Runs, count: int) -> NDArray[np.float64]:
    """Pixels of each group of runs."""
    return np.asarray(np.bincount(group, runs.x1 - runs.x0, minlength=count), np.float64)


def _extents(group: Ints, runs: Runs, count: int) -> Ints:
    """Half-open box of each group of runs, int (count, 4)."""
    boxes = np.zeros((count, 4), np.int64)
    boxes[group, 3] = runs.y + 1  # runs come row by row: the last one written is the lowest
    boxes[group[::-1], 1] = runs.y[::-1]
    left, right = np.full(count, runs.x0.max(initial=0)), np.zeros(count, np.int64)
    np.minimum.at(left, group, runs.x0)
    np.maximum.at(right, group, runs.x1)
    boxes[:, 0], boxes[:, 2] = left, right
    return boxes


def _could_be_letters(boxes: Ints, area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which components could be a letter, or a word whose letters touch."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LETTER_HEIGHT_PX
    widest = np.minimum(12 * height, _LETTER_WIDTH_PX)
    return np.asarray((height >= lowest) & (height <= highest) & (width <= widest) & (area >= _LEAST_LETTER_PX))


def _could_be_lines(boxes: Ints, area: NDArray[np.float64], least_px: int) -> NDArray[np.bool_]:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    is_flat = width >= _LEAST_WIDTH_TO_HEIGHT * height
    is_tall = (height >= least_px) & (height <= _TALLEST_PX)
    return np.asarray(is_tall & is_flat & (area >= _LEAST_STROKE_PX))


def _stand_below(boxes: Ints) -> bool:
    """Whether one of some strokes has one like it just above and one just below, as letters of a turned word have."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lowest, highest = _LETTER_HEIGHT_PX
    boxes = boxes[(width >= lowest) & (width <= highest) & (height > 1) & (height <= _LETTER_WIDTH_PX)]
    if len(boxes) > _MOST_COMPARED:
        return True
    below = _follow(boxes, 1, _BELOW_PX)
    return bool((below.any(axis=0) & below.any(axis=1)).any())


def _stand_beside(boxes: Ints) -> bool:
    """Whether two of some strokes are as tall as large letters, like each other and in one row."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    boxes = boxes[(height >= _LARGE_PX) & (height <= _LETTER_HEIGHT_PX[1]) & (width <= _WIDEST * height)]
    return len(boxes) > _MOST_COMPARED or bool(_follow(boxes, 0, _BESIDE_PX).any())


def _follow(boxes: Ints, along: int, most_px: int) -> NDArray[np.bool_]:
    """Which box (columns) follows on which (rows) along x (0) or y (1): like it, and at most so many pixels away."""
    start, end = boxes[:, along], boxes[:, along + 2]
    near, far = boxes[:, 1 - along], boxes[:, 3 - along]
    size = far - near
    shared = np.minimum(far[:, None], far) - np.maximum(near[:, None], near)
    smaller, larger = np.minimum(size[:, None], size), np.maximum(size[:, None], size)
    apart = start - end[:, None]
    is_alike = (shared >= _SHARED * smaller) & (larger <= _LARGER * smaller)
    return np.asarray(is_alike & (apart >= -1) & (apart <= most_px))


def _grouped(runs: Runs, width: int) -> tuple[Ints, int]:
    """Line of each run, and how many there are: letters next to each other, found at half the width."""
    x0, x1 = runs.x0 // 2, (runs.x1 - 1) // 2 + 1 + 2 * _REACH  # made longer to both sides
    goes_on = np.zeros(len(x0), bool)
    goes_on[1:] = (runs.y[1:] == runs.y[:-1]) & (x0[1:] <= x1[:-1])
    first = np.flatnonzero(~goes_on)
    last = np.append(first, len(x0))[1:] - 1
    line, count = joined(Runs(runs.y[first], x0[first], x1[last]), width // 2 + 2 * _REACH + 1)
    return line[np.cumsum(~goes_on) - 1], count
