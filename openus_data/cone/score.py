"""How well a shape explains the evidence: edges along its outline, echo inside it, echo beyond it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from openus_data.cone.outline import Polygon
from openus_data.cone.profile import Mask

_STEP = 1.6
_SUB = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """All in [0, 1].

    Args:
        support: part of the outline, off the rim, where echo ends.
        breach: part of the outline, off the rim, where echo goes on.
        cover: part of the shape that is echo.
        spill: echo beyond the shape, over the shape's area.
    """

    support: float
    breach: float
    cover: float
    spill: float
    rim: float

    @property
    def total(self) -> float:
        """The larger, the better."""
        return self.support - self.breach + 0.6 * self.cover - 2.0 * self.spill


def score(outline: Polygon, mask: Mask) -> Score:
    """Judge an outline (P, 2), in cells, by a mask of echo (h, w)."""
    h, w = mask.shape
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.round((outline - 0.5) * (1 << _SUB)).astype(np.int32)], 1, cv2.LINE_8, _SUB)
    area = max(1, int(cv2.countNonZero(inside)))
    echo = mask.view(np.uint8)
    both = cv2.countNonZero(cv2.bitwise_and(inside, echo))
    spill = (cv2.countNonZero(echo) - both) / area
    within, beyond, rim = _sides(outline, mask)
    n = max(1, len(within))
    return Score(
        support=float((within & ~beyond).sum() / n),
        breach=float((within & beyond).sum() / n),
        cover=both / area,
        spill=min(1.0, spill),
        rim=rim,
    )


def _sides(outline: Polygon, mask: Mask) -> tuple[Mask, Mask, float]:
    """Echo just within and just beyond the outline at points about a cell apart, those on the rim left out."""
    h, w = mask.shape
    end = np.roll(outline, -1, axis=0)
    length = np.hypot(*(end - outline).T)
    counts = np.maximum(1, length.astype(np.intp))
    which = np.repeat(np.arange(len(outline)), counts)
    share = (np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[which]
    direction = (end - outline) / np.maximum(length, 1e-9)[:, None]
    point = outline[which] + (end - outline)[which] * share[:, None]
    normal = np.stack([direction[:, 1], -direction[:, 0]], 1)[which]
    off_rim = (point[:, 0] > 1) & (point[:, 1] > 1) & (point[:, 0] < w - 1) & (point[:, 1] < h - 1)
    point, normal = point[off_rim], normal[off_rim]
    return _at(mask, point - _STEP * normal), _at(mask, point + _STEP * normal), 1 - float(off_rim.mean())


def _at(mask: Mask, points: Polygon) -> Mask:
    h, w = mask.shape
    x = np.clip(points[:, 0].astype(np.intp), 0, w - 1)
    y = np.clip(points[:, 1].astype(np.intp), 0, h - 1)
    return mask[y, x]
