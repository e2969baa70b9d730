"""From lines that are likely text to boxes that hold whole strings: merge what belongs together, add missed letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.text_strokes import Relief
from openus_data.records import Box, TextBox

MARGIN_PX: Final = 2
"""Room around a line for the soft edge of its letters."""
_WORD_GAP: Final = 1.4
"""A space between words at most, as a part of the line's height."""
_LETTER_SHARE: Final = 0.8
"""A missed letter's pixels are at least this bright, as a part of the line's."""
_COLOURED: Final = 60
"""Chroma from which a stroke is not white."""
_RULE: Final = 1.25
"""A horizontal stroke longer than this, as a part of the line's height, is no letter's."""
_FURTHEST: Final = 4.0
"""How far missed letters are looked for, in line heights."""
_Ints = NDArray[np.int64]


def merged(boxes: _Ints, scores: NDArray[np.float64], *, least: float, part: float) -> list[tuple[Box, float]]:
    """Likely lines, each with the possible lines that continue it.

    Args:
        boxes: half-open candidates, int (N, 4).
        scores: their probability, (N,).
        least: probability that a line starts with.
        part: probability that a continuation needs.

    Returns:
        Box and greatest probability, the most likely first.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= part]
    left, chance = boxes[order], scores[order]
    found: list[tuple[Box, float]] = []
    while len(left) and chance[0] >= least:
        box, best = left[0], float(chance[0])
        left, chance = left[1:], chance[1:]
        while (joins := _continues(box, left)).any():
            together = np.vstack([box[None], left[joins]])
            box = np.concatenate([together[:, :2].min(axis=0), together[:, 2:].max(axis=0)])
            left, chance = left[~joins], chance[~joins]
        x0, y0, x1, y1 = box.tolist()
        found.append(((x0, y0, x1, y1), best))
    return found


def _continues(box: _Ints, others: _Ints) -> NDArray[np.bool_]:
    """Which lines stand in the same row as the box, are about as tall, and touch it or follow after a space."""
    height, heights = box[3] - box[1], others[:, 3] - others[:, 1]
    shared = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    gap = np.maximum(box[0], others[:, 0]) - np.minimum(box[2], others[:, 2])
    smaller, larger = np.minimum(height, heights), np.maximum(height, heights)
    return np.asarray((shared >= 0.6 * smaller) & (larger <= 1.8 * smaller) & (gap <= _WORD_GAP * smaller))


def completed(picture: Relief, box: Box) -> Box:
    """The box with letters of the same brightness to its left and right, and a margin; cut at the picture."""
    x0, y0, x1, y1 = box
    height, width = picture.level.shape
    reach = int(_FURTHEST * (y1 - y0))
    left, right = max(0, x0 - reach), min(width, x1 + reach)
    rows = slice(y0, y1)
    usual = _quantile(picture.tophat[rows, x0:x1], 0.85)
    bright = picture.tophat[rows, left:right] >= max(40.0, _LETTER_SHARE * usual)
    if picture.chroma is not None and _is_white(picture, box, usual):
        bright &= picture.chroma[rows, left:right] < _COLOURED
    is_letter = _without_rules(bright).sum(axis=0) >= 2
    gap = max(4, round(_WORD_GAP * (y1 - y0)))
    x0 -= _run(is_letter[: x0 - left][::-1], gap)
    x1 += _run(is_letter[x1 - left :], gap)
    return (
        max(0, x0 - MARGIN_PX),
        max(0, y0 - MARGIN_PX),
        min(width, x1 + MARGIN_PX),
        min(height, y1 + MARGIN_PX),
    )


def _quantile(values: NDArray[np.uint8], part: float) -> int:
    """The value that so many are not above: exact, and ten times faster than numpy's, which is for any numbers."""
    sizes = np.cumsum(np.bincount(values.ravel(), minlength=256))
    return int(np.searchsorted(sizes, part * sizes[-1]))


def _without_rules(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The strokes less horizontal ones that are longer than a letter is: the frame of a colour window, a ruler."""
    level = bright.view(np.uint8)
    rules = cv2.morphologyEx(level, cv2.MORPH_OPEN, np.ones((1, round(_RULE * len(level))), np.uint8))
    return np.asarray(bright & (rules == 0))


def _is_white(picture: Relief, box: Box, usual: float) -> bool:
    """Whether most of a line's strokes are without colour, so that flow beside it is no letter of it."""
    x0, y0, x1, y1 = box
    chroma = np.zeros_like(picture.tophat) if picture.chroma is None else picture.chroma
    return bool(np.mean(chroma[y0:y1, x0:x1][picture.tophat[y0:y1, x0:x1] >= usual] < _COLOURED) > 0.5)


def without_repeats(boxes: Sequence[TextBox]) -> list[TextBox]:
    """Boxes that do not lie in another one, each with the greatest score of what lies in it; the most likely first."""
    kept: list[TextBox] = []
    for found in sorted(boxes, key=lambda b: (-_area(b.box), b.box)):
        holder = next((k for k, other in enumerate(kept) if _holds(other.box, found.box)), None)
        if holder is None:
            kept.append(found)
        elif found.score > kept[holder].score:
            kept[holder] = replace(kept[holder], score=found.score)
    return sorted(kept, key=lambda b: (-b.score, b.box))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def _run(is_letter: NDArray[np.bool_], gap: int) -> int:
    """How far letters go on from the start without a gap that is too wide."""
    at = np.flatnonzero(is_letter)
    if not len(at) or at[0] >= gap:
        return 0
    wide = np.flatnonzero(at[1:] - at[:-1] > gap)
    return int(at[wide[0]] if len(wide) else at[-1]) + 1
