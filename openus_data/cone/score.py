"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from openus_data.cone.outline import Polygon, clockwise, rolled
from openus_data.cone.profile import Mask

_STEP = 1.6
_SPACING = 1.5
_SUB = 6
_RIM_WORTH = 0.8
_INWARD_OUTWARD = np.array([[-1.0], [1.0]])


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


def score(outline: Polygon, mask: Mask) -> Score:
    """Judge an outline (P, 2), in cells, by a mask of echo (h, w)."""
    h, w = mask.shape
    outline = clockwise(outline)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [((outline - 0.5) * (1 << _SUB)).round().astype(np.int32)], 1, cv2.LINE_8, _SUB)
    area = max(1, int(cv2.countNonZero(inside)))
    echo = mask.view(np.uint8)
    both = cv2.countNonZero(cv2.bitwise_and(inside, echo))
    within, beyond, off_rim = _walk(outline, mask)
    points, off = len(off_rim), int(np.count_nonzero(off_rim))
    echo_off = int(np.count_nonzero(within & off_rim))
    breached = int(np.count_nonzero(beyond & within & off_rim))
    n = max(1, off)
    return Score(
        support=(echo_off - breached) / n,
        breach=breached / n,
        rim=1 - n / points,
        rim_echo=(int(np.count_nonzero(within)) - echo_off) / points,
        cover=both / area,
        spill=min(1.0, (cv2.countNonZero(echo) - both) / area),
        area=area,
    )


def _walk(outline: Polygon, mask: Mask) -> tuple[Mask, Mask, Mask]:
    """Along an outline, at points (N,) about a cell apart: echo within, echo beyond, and whether it is off the rim."""
    h, w = mask.shape
    x, y = outline[:, 0], outline[:, 1]
    dx, dy = rolled(x) - x, rolled(y) - y
    length = np.hypot(dx, dy)
    counts = np.maximum(1, (length / _SPACING).astype(np.intp))
    ends = counts.cumsum()
    which = np.arange(len(outline)).repeat(counts)
    share = (np.arange(len(which)) - (ends - counts - 0.5)[which]) / counts[which]
    step = _STEP / np.maximum(length, 1e-9)
    px, py = x[which] + dx[which] * share, y[which] + dy[which] * share
    off_rim = (px > 1) & (py > 1) & (px < w - 1) & (py < h - 1)
    across = _INWARD_OUTWARD * (dy * step)[which], _INWARD_OUTWARD * (dx * step)[which]
    column = np.minimum(np.maximum(px + across[0], 0), w - 1).astype(np.intp)
    row = np.minimum(np.maximum(py - across[1], 0), h - 1).astype(np.intp)
    echo = mask[row, column]
    return echo[0], echo[1], off_rim
