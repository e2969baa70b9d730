"""What is measured on a candidate line of text: 32 numbers that the trees of `text_gate` decide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.colour_flow import STEP, broad_colour
from openus_data.deid.text_runs import Ints, spread
from openus_data.deid.text_strokes import Strokes, looked_up

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
_CALM_STEP: Final = 2
"""The ground of a line is measured at half the size."""
_Reals = NDArray[np.float64]


class LineRuns(NamedTuple):
    """The strokes of all lines as runs of pixels along a row; int arrays of one length.

    Args:
        row: of the picture.
        x0, x1: half-open columns.
        line: number of the line.
        letter: number of the letter.
    """

    row: Ints
    x0: Ints
    x1: Ints
    line: Ints
    letter: Ints


class _Shown(NamedTuple):
    """What the pictures show at runs or pixels; inverted or coloured where the family's strokes are.

    Args:
        level, tophat: uint8 (P,), one a pixel.
        edge: int16 (P,), one a pixel.
        chroma: uint8 (P,), one a pixel; zeros in grey.
        usual: uint8 (R,), one a run.
    """

    level: NDArray[np.uint8]
    tophat: NDArray[np.uint8]
    edge: NDArray[np.int16]
    chroma: NDArray[np.uint8]
    usual: NDArray[np.uint8]


def measured(families: Sequence[Strokes], runs: LineRuns, boxes: Ints, family: Ints, letters: Ints) -> _Reals:
    """All of `FEATURES`, float (N, len(FEATURES)).

    Args:
        families: of strokes.
        runs: of the lines; each line has some.
        boxes: of the lines, half-open, int (N, 4).
        family: of each line, rising, int (N,).
        letters: boxes of the letters that `runs` names; only the width, height and relative foot count.
    """
    order = np.argsort(runs.line, kind="stable")
    runs = LineRuns(*(part[order] for part in runs))
    lengths = runs.x1 - runs.x0
    first_run = np.searchsorted(runs.line, np.arange(len(boxes)))
    first = (np.cumsum(lengths) - lengths)[first_run]
    count = np.add.reduceat(lengths, first_run)
    area = count.astype(np.float64)
    shown = _shown(families, runs, lengths, family[runs.line])
    of_pixels = np.stack([shown.level, shown.tophat, shown.level - shown.tophat, shown.chroma]).astype(np.float64)
    (mean_level, mean_tophat, ground, mean_chroma), spreads = _mean_spread(of_pixels, first, area)
    level_spread, tophat_spread, ground_spread, chroma_spread = spreads
    mean_edge = np.add.reduceat(shown.edge, first, dtype=np.int64) / area
    mean_usual = np.add.reduceat(shown.usual * lengths, first_run) / area
    top = np.maximum.reduceat(shown.level, first)
    top_share = np.add.reduceat(shown.level >= np.repeat(0.9 * top, count), first, dtype=np.int64) / area
    shape = _letter_shapes(runs.line, runs.letter, letters)
    letter_count, tall, *_, baseline_spread = shape
    width, height = (boxes[:, k + 2] - boxes[:, k] for k in (0, 1))
    columns = (mean_level, level_spread, mean_tophat, tophat_spread, mean_usual, mean_edge, ground, ground_spread, top)
    ratios = (
        area / (width * height),
        mean_tophat / (mean_usual + 4),
        mean_edge / (mean_tophat + 4),
        level_spread / (mean_level + 1),
        tall / height,
        letter_count * tall / width,
        baseline_spread / height,
        area / letter_count / tall,
        _calm(families, boxes, family),
        *_colour_around(families[0].picture.chroma, boxes),
        family,
    )
    return np.array([*columns, top_share, mean_chroma, chroma_spread, *shape, width, height, *ratios], np.float64).T


def _shown(families: Sequence[Strokes], runs: LineRuns, lengths: Ints, family: Ints) -> _Shown:
    """At all pixels of the runs, whose family is rising."""
    picture = families[0].picture
    at = spread(runs.row * picture.level.shape[1] + runs.x0, lengths)
    middle = (runs.x0 + runs.x1) // 2  # of a run: what is usual changes slowly
    level, tophat = picture.level.ravel()[at], picture.tophat.ravel()[at]
    usual = looked_up(picture.usual, runs.row, middle)
    bounds = np.searchsorted(family, np.arange(len(families) + 1)).tolist()
    for (other, *_), start, stop in zip(families, bounds, bounds[1:], strict=False):
        if other is not picture and start < stop:
            here = slice(lengths[:start].sum(), lengths[:stop].sum())
            level[here], tophat[here] = other.level.ravel()[at[here]], other.tophat.ravel()[at[here]]
            usual[start:stop] = looked_up(other.usual, runs.row[start:stop], middle[start:stop])
    chroma = np.zeros_like(level) if picture.chroma is None else picture.chroma.ravel()[at]
    return _Shown(level, tophat, _edges(picture.level, at), chroma, usual)


def _edges(level: NDArray[np.uint8], at: Ints) -> NDArray[np.int16]:
    """Size of the Laplacian at pixels: crisp strokes have much of it, speckle blurred by the beam has little."""
    flat, width = level.ravel(), level.shape[1]
    edge = flat[at].astype(np.int16) << 2
    for step in (-1, 1, -width, width):
        edge -= flat.take(at + step, mode="clip")
    return np.asarray(np.abs(edge))


def _mean_spread(values: _Reals, first: Ints, count: _Reals) -> tuple[_Reals, _Reals]:
    """Mean and standard deviation of each row of values (K, P) in groups that start at `first`, (K, N) each."""
    mean = np.add.reduceat(values, first, axis=1) / count
    square = np.add.reduceat(values * values, first, axis=1) / count
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def _letter_shapes(line_at: Ints, letter_at: Ints, letters: Ints) -> tuple[_Reals, ...]:
    """Per line: number of letters, mean and spread of their height and width, spread of their feet.

    Args:
        line_at, letter_at: of each run, line by line.
        letters: boxes, (L, 4).
    """
    line_of = np.full(len(letters), -1)
    line_of[letter_at] = line_at
    used = np.flatnonzero(line_of >= 0)
    used = used[np.argsort(line_of[used], kind="stable")]
    first = np.searchsorted(line_of[used], np.arange(line_at[-1] + 1))
    count = np.diff(np.append(first, len(used))).astype(np.float64)
    x0, y0, x1, y1 = letters[used].T
    (tall, wide, _), (tall_spread, wide_spread, feet_spread) = _mean_spread(
        np.stack([y1 - y0, x1 - x0, y1]).astype(np.float64), first, count
    )
    return count, tall, tall_spread, wide, wide_spread, feet_spread


def _colour_around(chroma: NDArray[np.uint8] | None, boxes: Ints) -> tuple[_Reals, _Reals]:
    """Mean chroma of the boxes, and how much of them is broad colour: flow is coloured between its strokes too."""
    none = np.zeros(len(boxes))
    if chroma is None:
        return none, none
    broad = broad_colour(chroma)
    mean = _box_means(np.ascontiguousarray(chroma[::STEP, ::STEP]), boxes)
    return mean, none if broad is None else _box_means(broad, boxes)


def _box_means(small: NDArray[np.uint8], boxes: Ints) -> _Reals:
    """Mean of a picture of a `STEP`th of the size in each box."""
    x0, y0, x1, y1 = (*(boxes[:, :2].T // STEP), *(-(-boxes[:, 2:].T // STEP)))
    return np.asarray(_sums(cv2.integral(small), x0, y0, x1, y1) / ((x1 - x0) * (y1 - y0)))


def _sums(integral: NDArray[np.int32], x0: Ints, y0: Ints, x1: Ints, y1: Ints) -> Ints:
    """Sum of a picture in half-open boxes."""
    flat, width = integral.ravel(), integral.shape[1]
    top, foot = y0 * width, y1 * width
    return np.asarray(flat[foot + x1] - flat[top + x1] - flat[foot + x0] + flat[top + x0])


def _calm(families: Sequence[Strokes], boxes: Ints, family: Ints) -> _Reals:
    """Mean level above and below a line, as tall as half of it: the ground that it stands on."""
    level = families[0].picture.level
    height, width = (side // _CALM_STEP for side in level.shape)
    whole = level[: height * _CALM_STEP, : width * _CALM_STEP]  # of a whole step's size: several times faster
    sums = cv2.integral(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    x0, y0 = boxes[:, :2].T // _CALM_STEP
    x1, y1 = np.minimum(-(-boxes[:, 2:].T // _CALM_STEP), np.array([[width], [height]]))
    reach = np.maximum(1, (y1 - y0) // 2)
    top, foot = np.maximum(0, y0 - reach), np.minimum(height, y1 + reach)
    calm = (_sums(sums, x0, top, x1, foot) - _sums(sums, x0, y0, x1, y1)) / np.maximum(
        1, (x1 - x0) * (foot - top - (y1 - y0))
    )
    is_dark = np.array([strokes.is_dark for strokes in families])
    return np.asarray(np.where(is_dark[family], 255 - calm, calm))
