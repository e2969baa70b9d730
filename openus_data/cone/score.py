"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import Polygon
from openus_data.cone.profile import Mask

_STEP = 1.6
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
    walks = _walk(outlines, mask)
    return [
        _score(*_area(outline, echo), total, counts) for outline, counts in zip(outlines, walks.tolist(), strict=True)
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
    """Counts (K, 5) along K clockwise outlines, at points about a cell and a half apart.

    Points; those with echo within; those off the rim; those off the rim with echo within; of these those with echo
    beyond as well.
    """
    h, w = mask.shape
    sizes = [len(outline) for outline in outlines]
    lasts = np.array(sizes).cumsum() - 1
    firsts = lasts + 1 - sizes
    x, y = np.concatenate(outlines).T.copy()
    along_x, along_y = np.empty_like(x), np.empty_like(y)
    for values, along in ((x, along_x), (y, along_y)):
        along[:-1] = values[1:] - values[:-1]
        along[lasts] = values[firsts] - values[lasts]
    length = np.maximum(np.hypot(along_x, along_y), 1e-9)
    counts = np.maximum(1, (length / _SPACING).astype(np.intp))
    ends = counts.cumsum()
    which = np.arange(len(x)).repeat(counts)
    share = (np.arange(len(which)) - (ends - counts - 0.5)[which]) / counts[which]
    in_x, in_y = (along_y * (-_STEP / length))[which], (along_x * (_STEP / length))[which]
    x, y = x[which] + along_x[which] * share, y[which] + along_y[which] * share
    off_rim = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
    within, beyond = _at(mask, x + in_x, y + in_y), _at(mask, x - in_x, y - in_y)
    seen = within & off_rim
    table = np.empty((5, len(which)), np.int32)
    table[0] = 1
    table[1], table[2], table[3], table[4] = within, off_rim, seen, seen & beyond
    sums: NDArray[np.intp] = np.add.reduceat(table, (ends - counts)[firsts], axis=1).T
    return sums


def _at(mask: Mask, x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
    """The mask (h, w) at points (N,), those outside moved to its rim."""
    h, w = mask.shape
    column = np.minimum(np.maximum(x, 0), w - 1).astype(np.intp)
    row = np.minimum(np.maximum(y, 0), h - 1).astype(np.intp)
    found: Mask = mask[row, column]
    return found
