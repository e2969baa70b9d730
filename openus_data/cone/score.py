"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import Polygon, clockwise, rolled
from openus_data.cone.profile import Mask

_STEP = 1.6
_SPACING = 1.5
_SUB = 6
_RIM_WORTH = 0.8
_TURN = np.array([1.0, -1.0])
"""Along (x, y) becomes inward (-y, x) for a clockwise outline, once its columns are exchanged."""


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
    """Judge outlines (P, 2), in cells, by a mask of echo (h, w); all in one pass."""
    echo = mask.view(np.uint8)
    total = cv2.countNonZero(echo)
    turned = [clockwise(outline) for outline in outlines]
    walks = _walk(turned, mask)
    return [
        _score(*_area(outline, echo), total, counts) for outline, counts in zip(turned, walks.tolist(), strict=True)
    ]


def _area(outline: Polygon, echo: NDArray[np.uint8]) -> tuple[int, int]:
    """Cells within an outline, and those of them that are echo."""
    inside = np.zeros(echo.shape, np.uint8)
    cv2.fillPoly(inside, [((outline - 0.5) * (1 << _SUB)).round().astype(np.int32)], 1, cv2.LINE_8, _SUB)
    area = max(1, cv2.countNonZero(inside))
    return area, cv2.countNonZero(cv2.bitwise_and(inside, echo))


def _score(area: int, both: int, total: int, counts: list[int]) -> Score:
    points, within, off, echo_off, breached = counts
    n = max(1, off)
    return Score(
        support=(echo_off - breached) / n,
        breach=breached / n,
        rim=1 - n / points,
        rim_echo=(within - echo_off) / points,
        cover=both / area,
        spill=min(1.0, (total - both) / area),
        area=area,
    )


def _walk(outlines: Sequence[Polygon], mask: Mask) -> NDArray[np.intp]:
    """Counts (K, 5) along K outlines, at points about a cell apart.

    Points; those with echo within; those off the rim; those off the rim with echo within; of these those with echo
    beyond as well.
    """
    h, w = mask.shape
    start = np.concatenate(outlines)
    along = np.concatenate([rolled(outline) for outline in outlines]) - start
    length = np.hypot(along[:, 0], along[:, 1])
    counts = np.maximum(1, (length / _SPACING).astype(np.intp))
    ends = counts.cumsum()
    which = np.arange(len(start)).repeat(counts)
    share = (np.arange(len(which)) - (ends - counts - 0.5)[which]) / counts[which]
    point = start[which] + along[which] * share[:, None]
    inward = (along * (_STEP / np.maximum(length, 1e-9))[:, None] * _TURN)[which, ::-1]
    off_rim = ((point > 1) & (point < (w - 1, h - 1))).all(axis=1)
    within, beyond = (_at(mask, point + inward), _at(mask, point - inward))
    seen = within & off_rim
    firsts = np.cumsum([0, *map(len, outlines[:-1])])
    table = np.stack((np.ones_like(seen), within, off_rim, seen, seen & beyond), axis=1)
    sums: NDArray[np.intp] = np.add.reduceat(table, (ends - counts)[firsts], axis=0, dtype=np.intp)
    return sums


def _at(mask: Mask, point: Polygon) -> Mask:
    """The mask (h, w) at points (N, 2), those outside moved to its rim."""
    h, w = mask.shape
    column = np.minimum(np.maximum(point[:, 0], 0), w - 1).astype(np.intp)
    row = np.minimum(np.maximum(point[:, 1], 0), h - 1).astype(np.intp)
    found: Mask = mask[row, column]
    return found
