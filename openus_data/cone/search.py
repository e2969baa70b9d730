"""From evidence to the shape that explains it best: masks at several levels, candidates for each, one winner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from openus_data.cone.evidence import Evidence
from openus_data.cone.fit import arc_fans, fans, inverted_fans, slabs
from openus_data.cone.profile import Mask
from openus_data.cone.score import Score, score
from openus_data.cone.shape import Shape, Slab

_LEVELS = (0, 2, 6, 12)
_LEAST_CELLS = 60
_OPEN = np.ones((3, 3), np.uint8)
_AREA_BONUS = 0.08
_GOOD = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A shape in cells with its score, and the mask of echo it was found in."""

    shape: Shape
    score: Score
    merit: float
    mask: Mask


def search(evidence: Evidence, allowed: Mask | None = None) -> Found | None:
    """The best shape, or None where there is no echo.

    The lower levels come first, since they keep more echo; the others are asked only while nothing fits well.

    Args:
        evidence: of the picture.
        allowed: cells (h, w) that may hold echo; None for all.
    """
    best: Found | None = None
    seen = 0
    for level in _LEVELS:
        mask = echo_mask(evidence, level, allowed)
        if mask is None:
            continue
        seen += 1
        best = _better(best, search_mask(mask))
        if best is not None and best.merit > _GOOD and seen >= 2:
            break
    return best


def search_mask(mask: Mask) -> Found | None:
    """The best shape for one mask."""
    best: Found | None = None
    for propose in (slabs, fans, arc_fans, inverted_fans):
        for shape in propose(mask):
            best = _better(best, judge(shape, mask))
        if best is not None and best.merit > _GOOD and propose is not slabs:
            break
    return best


def _better(one: Found | None, other: Found | None) -> Found | None:
    if one is None or other is None:
        return one or other
    return one if one.merit >= other.merit else other


def judge(shape: Shape, mask: Mask) -> Found | None:
    """A candidate with its merit; None where it has no area."""
    outline = shape.outline()
    if len(outline) < 3:
        return None
    points = score(outline, mask)
    merit = points.total + _AREA_BONUS * math.log2(points.area / mask.size) + prior(shape)
    return Found(shape=shape, score=points, merit=merit, mask=mask)


def prior(shape: Shape) -> float:
    """What is known of scanners before looking: most shapes are upright and symmetric, with the probe above."""
    if isinstance(shape, Slab):
        left, right = shape.bottom_left - shape.top_left, shape.bottom_right - shape.top_right
        if left == right == 0:
            return 0.06
        return 0.02 - 0.12 * min(1.0, 4 * abs(left + right) / (shape.bottom - shape.top + 1))
    skew = math.degrees(abs(shape.left + shape.right))
    symmetry = float(np.interp(skew, (2.0, 8.0, 25.0), (0.12, 0.0, -0.15)))
    width = float(np.interp(math.degrees(shape.right - shape.left), (12.0, 30.0), (0.0, 1.0)))
    steep = 0.1 * (max(-shape.left, shape.right) > math.radians(76))
    return min(symmetry, symmetry * width) - steep - 0.2 * shape.inverted


def echo_mask(evidence: Evidence, level: int, allowed: Mask | None = None) -> Mask | None:
    """The main part of what lies more than `level` above the background, with what belongs to it; None if too small."""
    echo = (evidence.level > level) & ~evidence.chrome
    if allowed is not None:
        echo &= allowed
    opened = cv2.morphologyEx(echo.view(np.uint8), cv2.MORPH_OPEN, _OPEN)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return None
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    weight = area.copy()
    if evidence.moving is not None:
        moves = np.bincount(labels.ravel(), weights=evidence.moving.ravel(), minlength=count)
        weight = area * (0.2 + moves / np.maximum(area, 1))
    main = 1 + int(weight[1:].argmax())
    if area[main] < _LEAST_CELLS:
        return None
    keep = np.zeros(count, np.bool_)
    keep[main] = True
    keep[1:] |= _belongs(stats[1:], stats[main])
    mask: Mask = keep[labels]
    return mask


def _belongs(parts: cv2.typing.MatLike, main: cv2.typing.MatLike) -> Mask:
    """Parts above or below the main one, within its width, and no mere words."""
    left, width, area = (parts[:, i] for i in (cv2.CC_STAT_LEFT, cv2.CC_STAT_WIDTH, cv2.CC_STAT_AREA))
    main_left, main_width = main[cv2.CC_STAT_LEFT], main[cv2.CC_STAT_WIDTH]
    overlap = np.minimum(left + width, main_left + main_width) - np.maximum(left, main_left)
    large = (width > 0.35 * main_width) | (area > 0.08 * main[cv2.CC_STAT_AREA])
    belongs: Mask = (overlap > 0.7 * width) & large
    return belongs
