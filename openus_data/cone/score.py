"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from openus_data.cone.outline import Polygon, clockwise
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


def score(outline: Polygon, mask: Mask) -> Score:
    """Judge an outline (P, 2), in cells, by a mask of echo (h, w)."""
    h, w = mask.shape
    outline = clockwise(outline)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.round((outline - 0.5) * (1 << _SUB)).astype(np.int32)], 1, cv2.LINE_8, _SUB)
    area = max(1, int(cv2.countNonZero(inside)))
    echo = mask.view(np.uint8)
    both = cv2.countNonZero(cv2.bitwise_and(inside, echo))
    point, normal, off_rim = _walk(outline, h, w)
    within, beyond = _at(mask, point - _STEP * normal), _at(mask, point + _STEP * normal)
    n = max(1, int(off_rim.sum()))
    return Score(
        support=float((within & ~beyond & off_rim).sum() / n),
        breach=float((within & beyond & off_rim).sum() / n),
        rim=1 - n / len(point),
        rim_echo=float((within & ~off_rim).sum() / len(point)),
        cover=both / area,
        spill=min(1.0, (cv2.countNonZero(echo) - both) / area),
        area=area,
    )


def _walk(outline: Polygon, h: int, w: int) -> tuple[Polygon, Polygon, Mask]:
    """Points about a cell apart along an outline, outward normals, and which are off the rim of the frame."""
    end = np.roll(outline, -1, axis=0)
    length = np.hypot(*(end - outline).T)
    counts = np.maximum(1, (length / _SPACING).astype(np.intp))
    which = np.repeat(np.arange(len(outline)), counts)
    share = (np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[which]
    direction = (end - outline) / np.maximum(length, 1e-9)[:, None]
    point = outline[which] + (end - outline)[which] * share[:, None]
    normal = np.stack([direction[:, 1], -direction[:, 0]], 1)[which]
    off_rim = (point[:, 0] > 1) & (point[:, 1] > 1) & (point[:, 0] < w - 1) & (point[:, 1] < h - 1)
    return point, normal, off_rim


def _at(mask: Mask, points: Polygon) -> Mask:
    h, w = mask.shape
    x = np.clip(points[:, 0].astype(np.intp), 0, w - 1)
    y = np.clip(points[:, 1].astype(np.intp), 0, h - 1)
    return mask[y, x]
