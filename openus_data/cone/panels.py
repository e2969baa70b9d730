"""Several scan areas side by side in one frame: dual screens, biplane."""

from __future__ import annotations

import numpy as np

from openus_data.cone.evidence import Evidence
from openus_data.cone.parts import Part, Parts, find_parts
from openus_data.cone.profile import Mask
from openus_data.cone.search import Found, prior, search_mask
from openus_data.cone.shape import Slab

_LEAST_AREA, _MOST_SLENDER, _LEAST_HALF, _MOST_TALLER = 0.2, 3.0, 0.5, 1.5
_LEAST_OVERLAP = 0.6
_LEAST_MERIT = 0.9
_GAIN = 0.08
_LEFT_OUT = 0.15
_DOUBTFUL = 1.3
_STRICT_LEVEL = 12
"""Bars and words that touch a panel often come loose at this level."""
_MOST_PANELS = 4
_SEAM = 0.85
"""How full the seam of two panels that touch may be, beside their other columns."""


def find_panels(evidence: Evidence, single: Found, allowed: Mask | None = None) -> list[Found]:
    """The panels, left to right, if they explain the frame better than one scan area does; else an empty list."""
    for level in sorted({single.level, _STRICT_LEVEL} if single.merit < _DOUBTFUL else {single.level}):
        parts = single.parts if level == single.level else find_parts(evidence, level, allowed)
        panels = [] if parts is None else _fitted(separate(parts, single.mask))
        if len(panels) >= 2 and _better(panels, single):
            return panels
    if single.merit < _DOUBTFUL:
        panels = _fitted(_halves(single.mask))
        if len(panels) == 2 and min(prior(panel.shape) for panel in panels) >= 0 and _better(panels, single):
            return panels
    return []


def _fitted(masks: list[Mask]) -> list[Found]:
    """The best shapes of some masks; none if one of them has no good one."""
    found: list[Found] = []
    for mask in masks:
        panel = search_mask(mask)
        if panel is None or panel.merit < _LEAST_MERIT:
            return []
        found.append(panel)
    return found


def _better(panels: list[Found], single: Found) -> bool:
    """Whether panels fit well, and better than the single shape unless that leaves much of them out."""
    merits = [panel.merit for panel in panels]
    left_out = sum(int((panel.mask & ~single.mask).sum()) for panel in panels)
    total = sum(int(panel.mask.sum()) for panel in panels)
    straight = min(merits) > _DOUBTFUL and all(isinstance(panel.shape, Slab) for panel in panels)
    return left_out > _LEFT_OUT * total or float(np.mean(merits)) > single.merit + (0.0 if straight else _GAIN)


def separate(parts: Parts, known: Mask) -> list[Mask]:
    """The part that is known best and those of like size and height beside it, left to right; or two rows of two."""
    sizes = np.sort(parts.area[parts.order])
    if len(sizes) < 2 or sizes[-2] <= _LEAST_AREA * sizes[-1]:
        return []
    four = _two_by_two([parts.part(label) for label in parts.order[parts.area[parts.order] > _LEAST_AREA * sizes[-1]]])
    if four:
        return [parts.mask([part.label]) for part in four]
    main = parts.part(int(np.bincount(parts.labels[known], minlength=len(parts.area))[1:].argmax()) + 1)
    x0, y0, x1, y1 = main.box
    beside = [main]
    for label in parts.order[parts.area[parts.order] > _LEAST_AREA * main.area].tolist():
        other = parts.part(label)
        left, top, right, bottom = other.box
        shared = min(y1, bottom) - max(y0, top)
        longer, shorter = max(other.width, other.height), min(other.width, other.height)
        unlike = other.area < _LEAST_HALF * main.area or other.height > _MOST_TALLER * main.height
        slender = longer > _MOST_SLENDER * shorter and unlike  # a bar, a button, a column of thumbnails
        if (
            not slender
            and (left >= x1 - 2 or right <= x0 + 2)
            and shared > _LEAST_OVERLAP * min(main.height, other.height)
        ):
            beside.append(other)
    if not 2 <= len(beside) <= _MOST_PANELS:
        return []
    return [parts.mask([part.label]) for part in sorted(beside, key=lambda part: part.box[0])]


def _two_by_two(alike: list[Part]) -> list[Part]:
    """Four parts if they stand in two rows of two, the upper row first; else none."""
    if len(alike) != 4:
        return []
    rows = sorted(alike, key=lambda part: part.box[1] + part.box[3])
    a, b, c, d = sorted(rows[:2], key=lambda part: part.box[0]) + sorted(rows[2:], key=lambda part: part.box[0])
    beside = all(_in_line(one, other, 0) for one, other in ((a, b), (c, d)))
    return [a, b, c, d] if beside and all(_in_line(one, other, 1) for one, other in ((a, c), (b, d))) else []


def _in_line(one: Part, other: Part, axis: int) -> bool:
    """Whether one part ends before the other starts along an axis, and they share most of the other axis."""
    across = 1 - axis
    shared = min(one.box[across + 2], other.box[across + 2]) - max(one.box[across], other.box[across])
    least = min(part.box[across + 2] - part.box[across] for part in (one, other))
    return one.box[axis + 2] <= other.box[axis] + 2 and shared > _LEAST_OVERLAP * least


def _halves(mask: Mask) -> list[Mask]:
    """A mask cut at the emptiest column near its middle."""
    columns = np.flatnonzero(mask.any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    middle, reach = (left + right) // 2, max(2, (right - left) // 10)
    if right - left <= 2 * reach:
        return []
    filled = mask[:, left:right].sum(axis=0)
    near = slice(middle - reach - left, middle + reach + 1 - left)
    seam = int((filled[near] + 0.5 * np.abs(np.arange(-reach, reach + 1))).argmin()) + near.start
    if filled[seam] > _SEAM * np.median(filled):
        return []
    seam += left
    one, other = mask.copy(), mask.copy()
    one[:, seam:], other[:, :seam] = False, False
    smaller = min(int(one.sum()), int(other.sum()))
    return [one, other] if smaller > 0.35 * int(mask.sum()) else []
