"""From evidence to the shape that explains it best: masks at several levels, candidates for each, one winner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from openus_data.cone.evidence import Evidence
from openus_data.cone.fit import Trace, arc_fans, fans, flat_fans, inverted_fans, slabs, trace
from openus_data.cone.outline import Polygon
from openus_data.cone.parts import BAND_PRICE, Parts, find_parts, groups
from openus_data.cone.profile import Mask
from openus_data.cone.score import Score, scores
from openus_data.cone.shape import Fan, Shape, Slab

_LEVELS = (0, 2, 6, 12)
_NEW_CELLS = 0.97
_AREA_BONUS = 0.08
_LEAST_BREACH, _FULL = 0.02, 0.8
_WORSE = 0.05
_NARROW = np.ones((1, 7), np.uint8)
_LEAST_TRIM, _MOST_TRIM, _TRIM_PRICE = 0.01, 0.3, 0.05
_SAME = math.radians(0.5)
_BOXY, _TOP_HEAVY = 0.8, 0.42
_HAZE, _CLEAR, _LARGE_FAN = 2, 0.5, 0.2
HAZE_PRICE = 0.4
"""What a slab that is all but black loses of its merit."""
_ALL_RIM, _LEFT_OUT = 0.98, 0.03
_NEAR_SIDE, _AT_SIDE = 3.0, 0.5
_FAIR, _POOR, _GOOD, _VERY_GOOD = 0.9, 1.1, 1.2, 1.35
_SUPPORTED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A shape in cells with its score, and the mask of echo, of some parts at a level, that it was found in."""

    shape: Shape
    outline: Polygon
    score: Score
    merit: float
    mask: Mask
    level: int = 0
    parts: Parts | None = None


def search(evidence: Evidence, allowed: Mask | None = None) -> Found | None:
    """The best shape, or None where there is no echo.

    The lower levels come first, since they keep more echo; the others are asked only while nothing fits well.

    Args:
        evidence: of the picture.
        allowed: cells (h, w) that may hold echo; None for all.
    """
    best: Found | None = None
    before: float = math.inf
    for level in _LEVELS:
        cells = int(np.count_nonzero(evidence.level > level))
        parts = find_parts(evidence, level, allowed) if cells <= _NEW_CELLS * before else None
        if parts is None:
            continue
        before = cells
        here = _search_level(parts, level)
        worse = best is not None and here is not None and here.merit < best.merit - _WORSE
        best = _better(best, here)
        if best is not None and (worse or best.merit > (_GOOD if level else _VERY_GOOD) or _is_settled(best, evidence)):
            break
    return best if best is None or not is_hazy(best, evidence) else _clear_fan(best, evidence, allowed) or best


def is_hazy(found: Found, evidence: Evidence) -> bool:
    """Whether a slab is all but black over most of its echo: often a frame whose own background is not exact."""
    if not isinstance(found.shape, Slab):
        return False
    clear = cv2.countNonZero(((evidence.level > _HAZE) & found.mask).view(np.uint8))
    return clear < _CLEAR * cv2.countNonZero(found.mask.view(np.uint8))


def _clear_fan(hazy: Found, evidence: Evidence, allowed: Mask | None) -> Found | None:
    """A fan in what is brighter than haze that fits very well, or better than what is left of the slab's merit."""
    parts = find_parts(evidence, _HAZE, allowed)
    found = None if parts is None else _search_level(parts, _HAZE)
    if found is None or not isinstance(found.shape, Fan):
        return None
    large = found.score.area > _LARGE_FAN * hazy.score.area
    return found if found.merit > (min(_VERY_GOOD, hazy.merit - HAZE_PRICE) if large else _VERY_GOOD) else None


def _search_level(parts: Parts, level: int) -> Found | None:
    """The best shape for the groups of parts at one level."""
    best: Found | None = None
    for group in groups(parts):
        found = search_mask(group.mask)
        if found is not None:
            price = group.price + (group.left_out if found.score.spill > _LEFT_OUT else 0.0)
            if group.below is not None and _goes_on(found.shape, group.below):
                price += BAND_PRICE
            best = _better(best, replace(found, merit=found.merit - price, level=level, parts=parts))
        if best is not None and best.merit > _VERY_GOOD:
            break
    return best


def _goes_on(shape: Shape, below: Mask) -> bool:
    """Whether a band (h, w) starts and ends where the sides of a shape above it lead: the deep part beyond fluid."""
    rows = np.flatnonzero(below.any(axis=1))
    ends = (below[rows].argmax(axis=1), below.shape[1] - below[rows, ::-1].argmax(axis=1))
    if isinstance(shape, Slab):
        tall = max(1.0, shape.bottom - shape.top)
        lean = ((shape.bottom_left - shape.top_left) / tall, (shape.bottom_right - shape.top_right) / tall)
        sides = [
            x + way * (rows - shape.bottom)
            for x, way in zip((shape.bottom_left, shape.bottom_right), lean, strict=True)
        ]
    else:
        deep = np.abs(rows + 0.5 - shape.apex_y)
        sides = [shape.apex_x + deep * math.tan(angle) for angle in (shape.left, shape.right)]
    return all(
        float(np.mean(np.abs(end - side) <= _NEAR_SIDE)) > _AT_SIDE for end, side in zip(ends, sides, strict=True)
    )


def _is_settled(found: Found, evidence: Evidence) -> bool:
    """Whether a higher level has nothing to mend: a fair shape with no echo beyond, or a fan with much that is dark.

    Not so where all of a frame whose rim shows a background is taken for echo, as haze over it would be.
    """
    score = found.score
    if score.rim > _ALL_RIM and evidence.backgrounds:
        return False
    dark = isinstance(found.shape, Fan) and score.cover < _FULL
    return found.merit > _FAIR and (dark or score.breach + score.spill < _LEAST_BREACH * score.cover)


def search_mask(mask: Mask) -> Found | None:
    """The best shape for one mask; the dearer and rarer ones are tried only while nothing fits well."""
    traced = trace(mask)
    best = _common(traced, mask)
    if (best is None or best.merit < _GOOD) and traced.fullness <= _BOXY:
        best = _better(best, _trimmed(mask))
    if (best is None or best.merit < _GOOD) and not traced.flat_bottom:
        best = _better(best, judge(arc_fans(traced), mask))
    unsure = best is None or best.merit < _POOR or (isinstance(best.shape, Slab) and best.score.support < _SUPPORTED)
    if unsure and not traced.flat_bottom and _is_top_heavy(mask, traced):
        best = _better(best, judge(inverted_fans(traced), mask))
    return best


def _is_top_heavy(mask: Mask, traced: Trace) -> bool:
    """Whether there is so much echo in the upper half that the apex may be below."""
    middle = int((traced.border.box[1] + traced.border.box[3]) / 2)
    cells = mask.view(np.uint8)
    return cv2.countNonZero(cells[:middle]) > _TOP_HEAVY * cv2.countNonZero(cells)


def _common(traced: Trace, mask: Mask) -> Found | None:
    """The best of slabs and upright fans; between a flat top and a flat bottom of slabs alone."""
    ways: list[Callable[[Trace], Sequence[Shape]]] = [slabs, fans, flat_fans]
    if traced.flat_bottom:
        ways = [slabs] if traced.flat_top else [slabs, fans]
    elif traced.round_bottom:
        ways = [flat_fans, fans, slabs] if traced.wide else [fans, flat_fans, slabs]
    elif traced.fullness <= _BOXY:
        ways = [fans, slabs, flat_fans]
    best: Found | None = None
    tried: list[Shape] = []
    for way in ways:
        fresh = [shape for shape in way(traced) if not any(_alike(shape, other) for other in tried)]
        tried += fresh
        best = _better(best, judge(fresh, mask))
        if best is not None and best.merit >= _VERY_GOOD:
            break
    return best


def _alike(one: Shape, other: Shape) -> bool:
    """Whether both are fans between nearly the same sides, cut alike."""
    if not isinstance(one, Fan) or not isinstance(other, Fan) or one.is_cut != other.is_cut:
        return False
    return abs(one.left - other.left) + abs(one.right - other.right) < _SAME


def _trimmed(mask: Mask) -> Found | None:
    """The best of the common shapes without what is narrow: colour bars and scales that touch the echo."""
    cells = mask.view(np.uint8)
    wide = cv2.morphologyEx(cells, cv2.MORPH_OPEN, _NARROW)
    kept, before = cv2.countNonZero(wide), cv2.countNonZero(cells)
    if not _LEAST_TRIM * before < before - kept < _MOST_TRIM * before:
        return None
    found = _common(trace(wide.view(np.bool_)), wide.view(np.bool_))
    return None if found is None else replace(found, merit=found.merit - _TRIM_PRICE)


def _better(one: Found | None, other: Found | None) -> Found | None:
    if one is None or other is None:
        return one or other
    return one if one.merit >= other.merit else other


def judge(shapes: Sequence[Shape], mask: Mask) -> Found | None:
    """The best of some candidates, judged together; None where none has an area."""
    drawn = [(shape, outline) for shape, outline in ((s, s.outline()) for s in shapes) if len(outline) >= 3]
    if not drawn:
        return None
    points = scores([outline for _, outline in drawn], mask)
    merits = [
        score.total + _AREA_BONUS * math.log2(score.area / mask.size) + prior(shape)
        for (shape, _), score in zip(drawn, points, strict=True)
    ]
    best = merits.index(max(merits))
    shape, outline = drawn[best]
    return Found(shape=shape, outline=outline, score=points[best], merit=merits[best], mask=mask)


def prior(shape: Shape) -> float:
    """What is known of scanners before looking: most shapes are upright and symmetric, with the probe above."""
    if isinstance(shape, Slab):
        left, right = shape.bottom_left - shape.top_left, shape.bottom_right - shape.top_right
        if left == right == 0:
            return 0.06
        return 0.02 - 0.12 * min(1.0, 4 * abs(left + right) / (shape.bottom - shape.top + 1))
    skew = math.degrees(abs(shape.left + shape.right))
    symmetry = 0.12 - 0.02 * (min(max(skew, 2.0), 8.0) - 2) - 0.15 / 17 * (min(max(skew, 8.0), 25.0) - 8)
    width = min(1.0, max(0.0, (math.degrees(shape.right - shape.left) - 12) / 18))
    unusual = 0.1 * (max(-shape.left, shape.right) > math.radians(76)) + 0.2 * shape.inverted + 0.06 * shape.is_cut
    return min(symmetry, symmetry * width) - unusual
