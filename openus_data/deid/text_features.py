"""What is measured on a candidate line of text: 32 numbers that the trees of `text_gate` decide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.colour_flow import STEP, broad_colour
from openus_data.deid.text_strokes import Relief, Strokes, looked_up

FEATURES: Final = (
    *("level", "level_spread", "tophat", "tophat_spread", "usual", "edge", "ground", "ground_spread", "top_level"),
    *("top_share", "chroma", "chroma_spread", "letters", "letter_height", "letter_height_spread", "letter_width"),
    *("letter_width_spread", "baseline_spread", "width", "height", "fill", "tophat_to_usual", "edge_to_tophat"),
    *(
        "level_variation",
        "height_ratio",
        "density",
        "baseline_ratio",
        "stroke",
        "calm",
        "chroma_around",
        "broad_colour",
        "family",
    ),
)
"""What is measured on a line, in this order; `family` is which threshold found it."""
_Reals = NDArray[np.float64]
_Ints = NDArray[np.int64]


class LineRuns(NamedTuple):
    """The strokes of all lines as runs of pixels along a row; int arrays of one length.

    Args:
        row: of the picture.
        x0, x1: half-open columns.
        line: number of the line.
        letter: number of the letter.
    """

    row: _Ints
    x0: _Ints
    x1: _Ints
    line: _Ints
    letter: _Ints


class _Values(NamedTuple):
    """What the pictures show at the pixels, float (P,); inverted or coloured where the family's strokes are."""

    level: _Reals
    tophat: _Reals
    usual: _Reals
    edge: _Reals
    chroma: _Reals | None


def spread(first: _Ints, lengths: _Ints) -> _Ints:
    """Every number of runs of numbers that go up by one."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(first - before, lengths) + np.arange(int(lengths.sum()))


def measured(families: Sequence[Strokes], runs: LineRuns, boxes: _Ints, family: _Ints, letters: _Ints) -> _Reals:
    """All of `FEATURES`, float (N, len(FEATURES)).

    Args:
        families: of strokes.
        runs: of the lines.
        boxes: of the lines, half-open, int (N, 4).
        family: of each line, int (N,).
        letters: boxes of the letters that `runs` names; only the width, height and relative foot count.
    """
    size = len(boxes)
    line = np.repeat(runs.line, runs.x1 - runs.x0)
    shown = _shown([f.picture for f in families], runs, family[runs.line])
    area = np.bincount(line, minlength=size).astype(np.float64)
    mean_level, level_spread = _mean_spread(line, shown.level, area)
    mean_tophat, tophat_spread = _mean_spread(line, shown.tophat, area)
    ground, ground_spread = _mean_spread(line, shown.level - shown.tophat, area)
    none = np.zeros(size)
    mean_chroma, chroma_spread = (none, none) if shown.chroma is None else _mean_spread(line, shown.chroma, area)
    mean_edge, mean_usual = (np.bincount(line, v, size) / area for v in (shown.edge, shown.usual))
    top = np.zeros(size)
    np.maximum.at(top, line, shown.level)
    top_share = np.bincount(line, shown.level >= 0.9 * top[line], size) / area
    shape = _letter_shapes(runs.line, runs.letter, letters, size)
    count, tall, *_, baseline_spread = shape
    width, height = (boxes[:, k + 2] - boxes[:, k] for k in (0, 1))
    columns = (mean_level, level_spread, mean_tophat, tophat_spread, mean_usual, mean_edge, ground, ground_spread, top)
    ratios = (
        area / (width * height),
        mean_tophat / (mean_usual + 4),
        mean_edge / (mean_tophat + 4),
        level_spread / (mean_level + 1),
        tall / height,
        count * tall / width,
        baseline_spread / height,
        area / count / tall,
        _calm(families, boxes, family),
        *_colour_around(families[0].picture.chroma, boxes),
        family,
    )
    return np.stack([*columns, top_share, mean_chroma, chroma_spread, *shape, width, height, *ratios], axis=1)


def _shown(pictures: Sequence[Relief], runs: LineRuns, family: _Ints) -> _Values:
    picture, lengths = pictures[0], runs.x1 - runs.x0
    at = spread(runs.row * picture.level.shape[1] + runs.x0, lengths)
    level, tophat = picture.level.ravel()[at], picture.tophat.ravel()[at]
    middle = (runs.x0 + runs.x1) // 2  # of a run: what is usual changes slowly
    usual = looked_up(picture.usual, runs.row, middle)
    edge = _edges(picture.level, at)
    for number, other in enumerate(pictures):
        if other is not picture and (mine := family == number).any():
            pixels = np.flatnonzero(np.repeat(mine, lengths))
            level[pixels], tophat[pixels] = other.level.ravel()[at[pixels]], other.tophat.ravel()[at[pixels]]
            usual[mine] = looked_up(other.usual, runs.row[mine], middle[mine])
    chroma = None if picture.chroma is None else picture.chroma.ravel()[at].astype(np.float64)
    levels, tophats, usuals, edges = (a.astype(np.float64) for a in (level, tophat, np.repeat(usual, lengths), edge))
    return _Values(levels, tophats, usuals, edges, chroma)


def _edges(level: NDArray[np.uint8], at: _Ints) -> NDArray[np.int16]:
    """Size of the Laplacian at pixels: crisp strokes have much of it, speckle blurred by the beam has little."""
    flat, width = level.ravel(), level.shape[1]
    edge = flat[at].astype(np.int16) << 2
    for step in (-1, 1, -width, width):
        edge -= flat.take(at + step, mode="clip")
    return np.asarray(np.abs(edge))


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


def _colour_around(chroma: NDArray[np.uint8] | None, boxes: _Ints) -> tuple[_Reals, _Reals]:
    """Mean chroma of the boxes, and how much of them is broad colour: flow is coloured between its strokes too."""
    none = np.zeros(len(boxes))
    if chroma is None:
        return none, none
    broad = broad_colour(chroma)
    mean = _box_means(np.ascontiguousarray(chroma[::STEP, ::STEP]), boxes)
    return mean, none if broad is None else _box_means(broad, boxes)


def _box_means(small: NDArray[np.uint8], boxes: _Ints) -> _Reals:
    """Mean of a picture of a `STEP`th of the size in each box."""
    sums = cv2.integral(small)
    (x0, y0), (x1, y1) = boxes[:, :2].T // STEP, -(-boxes[:, 2:].T // STEP)
    return np.asarray((sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / ((x1 - x0) * (y1 - y0)))


def _calm(families: Sequence[Strokes], boxes: _Ints, family: _Ints) -> _Reals:
    """Mean level above and below a line, as tall as half of it: the ground that it stands on."""
    level = families[0].picture.level
    sums = cv2.integral(level)
    x0, y0, x1, y1 = boxes.T
    reach = np.maximum(2, (y1 - y0) // 2)
    top, foot = np.maximum(0, y0 - reach), np.minimum(level.shape[0], y1 + reach)
    outer = sums[foot, x1] - sums[top, x1] - sums[foot, x0] + sums[top, x0]
    inner = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    calm = (outer - inner) / np.maximum(1, (x1 - x0) * (foot - top - (y1 - y0)))
    is_dark = np.array([strokes.is_dark for strokes in families])
    return np.asarray(np.where(is_dark[family], 255 - calm, calm))
