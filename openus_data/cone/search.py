"""From evidence to the shape that explains it best: masks at several levels, candidates for each, one winner."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from openus_data.cone.evidence import Evidence
from openus_data.cone.fit import candidates
from openus_data.cone.profile import Mask
from openus_data.cone.score import Score, score
from openus_data.cone.shape import Shape, Slab

_LEVELS = (0, 2, 6, 12)
_LEAST_CELLS = 60
_OPEN = np.ones((3, 3), np.uint8)
_SIMPLE_BONUS = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A shape in cells with its score, and the mask of echo it was found in."""

    shape: Shape
    score: Score
    merit: float
    mask: Mask


def search(evidence: Evidence, allowed: Mask | None = None) -> Found | None:
    """The best shape, or None where there is no echo.

    Args:
        evidence: of the picture.
        allowed: cells (h, w) that may hold echo; None for all.
    """
    best: Found | None = None
    for level in _LEVELS:
        mask = echo_mask(evidence, level, allowed)
        if mask is None:
            continue
        for shape in candidates(mask):
            found = judge(shape, mask)
            if found is not None and (best is None or found.merit > best.merit):
                best = found
    return best


def judge(shape: Shape, mask: Mask) -> Found | None:
    """A candidate with its merit; None where it has no area."""
    outline = shape.outline()
    if len(outline) < 3:
        return None
    points = score(outline, mask)
    upright = isinstance(shape, Slab) and shape.top_left == shape.bottom_left and shape.top_right == shape.bottom_right
    return Found(shape=shape, score=points, merit=points.total + _SIMPLE_BONUS * upright, mask=mask)


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
