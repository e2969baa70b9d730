"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import Polygon
from openus_data.cone.profile import Mask
from openus_data.cone.sample import levels_at

_TURN = np.array([[-1.6], [1.6]], np.float32)
"""From the way along an outline to the way inward, cells."""
_SPACING = 1.5
_SUB = 6
_RIM_WORTH = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How an outline and a mask agree; all but `area` in [0, 1].

    Args:
        support: part of the outline, off the rim of the frame, where echo ends.
        breach: part of the outline, off the rim, where echo goes on.
        rim: part of the outline on the rim of the frame.
        rim_echo: part of the outline on the rim where there is echo.
        cover: part of the shape that is echo.
        spill: echo beyond the shape, over the shape's area.
        area: of the shape, cells.
    """

    support: float
    breach: float
    rim: float
    rim_echo: float
    cover: float
    spill: float
    area: int

    @property
    def total(self) -> float:
        """The larger, the better; 1.6 at most."""
        edge = (1 - self.rim) * (self.support - self.breach) + _RIM_WORTH * self.rim_echo
        return edge + 0.6 * self.cover - 2.0 * self.spill


def scores(outlines: Sequence[Polygon], mask: Mask) -> list[Score]:
    """Judge clockwise outlines (P, 2), in cells, by a mask of echo (h, w); all in one pass."""
    echo = mask.view(np.uint8)
    total = cv2.countNonZero(echo)
    points = np.concatenate(outlines)
    ends = list(accumulate(len(outline) for outline in outlines))
    fixed = ((points - 0.5) * (1 << _SUB)).round().astype(np.int32)
    areas = [_area(fixed[end - len(outline) : end], echo) for outline, end in zip(outlines, ends, strict=True)]
    return [_score(*area, total, counts) for area, counts in zip(areas, _walk(points, ends, echo), strict=True)]


def _area(polygon: NDArray[np.int32], echo: NDArray[np.uint8]) -> tuple[int, int]:
    """Cells within a polygon (P, 2) in parts of a cell, and those of them that are echo."""
    inside = np.zeros(echo.shape, np.uint8)
    cv2.fillPoly(inside, [polygon], 1, cv2.LINE_8, _SUB)
    return max(1, cv2.countNonZero(inside)), cv2.countNonZero(inside & echo)


def _score(area: int, both: int, total: int, counts: list[int]) -> Score:
    """Of the points along an outline, counted by `_walk`, and the cells within it."""
    rim, off = sum(counts[:4]), sum(counts[4:])
    n, points = max(1, off), rim + off
    return Score(
        support=counts[5] / n,
        breach=counts[7] / n,
        rim=1 - n / points,
        rim_echo=(counts[1] + counts[3]) / points,
        cover=both / area,
        spill=min(1.0, (total - both) / area),
        area=area,
    )


def _walk(points: Polygon, ends: Sequence[int], echo: NDArray[np.uint8]) -> list[list[int]]:
    """Counts (K, 8) along K clockwise outlines, which end in the vertices (N, 2) at `ends` (K,).

    Counted are points about a cell and a half apart, by what is true of them: 1 echo within, 2 echo beyond, 4 off the
    rim; a point of which all three are is counted in column 7.
    """
    h, w = echo.shape
    n = len(points)
    after = np.arange(1, n + 1)
    for first, end in zip((0, *ends), ends, strict=False):
        after[end - 1] = first
    table = np.empty((8, n), np.float32)  # of each side: start, way, way inward, number of its first point, a step
    start, way, inward = table[:2], table[2:4], table[4:6]
    start[:] = points.T
    np.subtract(start.take(after, axis=1), start, out=way)
    length = np.maximum(np.hypot(way[0], way[1]), 1e-9)
    counts = np.maximum((length / _SPACING).astype(np.intp), 1)
    stops = counts.cumsum()
    np.multiply(way[::-1], _TURN / length, out=inward)
    table[6] = stops - counts
    np.divide(1, counts, out=table[7])
    each = table.take(np.arange(n).repeat(counts), axis=1)
    at, inward = each[:2], each[4:6]
    at += each[2:4] * ((np.arange(0.5, each.shape[1], dtype=np.float32) - each[6]) * each[7])
    middle = np.array([[w / 2], [h / 2]], np.float32)
    off_rim = np.abs(at - middle) < middle - 1
    seen = np.empty((2, 2, each.shape[1]), np.float32)
    np.add(at, inward, out=seen[:, 0])
    np.subtract(at, inward, out=seen[:, 1])
    within, beyond = levels_at(echo, seen[0], seen[1], border=cv2.BORDER_REPLICATE)
    code = within | beyond << 1 | (off_rim[0] & off_rim[1]).view(np.uint8) << 2
    last = [0, *stops[np.array(ends) - 1].tolist()]
    return [np.bincount(code[first:end], minlength=8).tolist() for first, end in pairwise(last)]
