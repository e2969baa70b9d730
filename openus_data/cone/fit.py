"""Candidate shapes of one mask of echo: a slab, a fan, an inverted fan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import Bounds
from openus_data.cone.profile import Line, Mask, Points, Profile, Reals, best_circle, best_level, best_lines, profile
from openus_data.cone.shape import Fan, Slab

_ANGLES = np.radians(np.concatenate([np.arange(-84.0, -2.9, 3.0), np.arange(-2.0, 2.1), np.arange(3.0, 35.0, 3.0)]))
_NORMALS = np.stack((-np.cos(_ANGLES), np.sin(_ANGLES)), axis=1).astype(np.float32)
_OF_FANS, _OF_SLABS = _NORMALS[:28], _NORMALS[11:]
"""Parts of the angles: of fans, and of slabs (51 degrees to the left to 33 to the right)."""
_CUT_SHARE, _CUT_CHORD = 0.12, 0.6
_ARC_PART = 0.25
_FAR_MARGIN, _NEAR_MARGIN = 0.03, 0.05
_UPRIGHT = math.radians(0.3)
_FLAT, _ROUND, _WIDE = 0.75, 3.0, 1.2
_WIDEST = math.radians(85.0)


_Pair = tuple[Line | None, Line | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A mask (h, w) with at least one cell, as its border points and its straight sides.

    Args:
        border: points.
        fullness: part of the box that the mask has cells for.
        top, bottom: how far their middles lie beyond their ends, cells; None where the mask shows too little of them.
    """

    border: Profile
    fullness: float
    top: float | None
    bottom: float | None

    @property
    def flat_top(self) -> bool:
        """Whether the top border neither bulges nor sags."""
        return self.top is not None and abs(self.top) < _FLAT

    @property
    def flat_bottom(self) -> bool:
        """Whether the bottom border neither bulges nor sags."""
        return self.bottom is not None and abs(self.bottom) < _FLAT

    @property
    def round_bottom(self) -> bool:
        """Whether the bottom border bulges, as a far arc does."""
        return self.bottom is not None and self.bottom > _ROUND

    @property
    def wide(self) -> bool:
        """Whether more of the outline is seen from above than from both sides."""
        left, right, top = np.diff(self.border.ends).tolist()
        return bool(top > _WIDE * (left + right))


def trace(mask: Mask) -> Trace:
    """What the fits need to know of a mask."""
    border = profile(mask)
    x0, y0, x1, y1 = border.box
    return Trace(
        border=border,
        fullness=cv2.countNonZero(mask.view(np.uint8)) / max(1.0, (x1 - x0) * (y1 - y0)),
        top=_bulge(-border.top[:, 1]),
        bottom=_bulge(border.bottom[:, 1]),
    )


def _bulge(outward: Reals) -> float | None:
    """How far the middle of a border lies beyond its ends, for points (N,) from left to right."""
    sixth = len(outward) // 6
    if sixth < 2:
        return None
    bounds = (0, sixth, 2 * sixth, 4 * sixth, len(outward) - sixth)
    left, _, middle, _, right = np.add.reduceat(outward, bounds).tolist()
    return float(middle / 2 - max(left, right)) / sixth


def _flat_sides(border: Profile) -> _Pair:
    """Sides so flat that the top border, left and right of its middle, shows a part of them."""
    w, top = border.size[1], border.top
    middle = top[:, 0].mean() if len(top) else 0.0
    before = top[:, 0] < middle
    left, right = (np.concatenate(pair) for pair in ((border.left, top[before]), (border.right, top[~before])))
    return best_lines(left, _mirror(right, w), _OF_FANS)


def _mirror(points: Points, w: int) -> Points:
    mirrored = points.copy()
    mirrored[:, 0] = w - mirrored[:, 0]
    return mirrored


def slabs(traced: Trace) -> list[Slab]:
    """Slabs, in cells: an upright one, and one with sides that lean if they do."""
    x0, y0, x1, y1 = traced.border.box
    found = [Slab(top_left=x0, top_right=x1, bottom_right=x1, bottom_left=x0, top=y0, bottom=y1)]
    w = traced.border.size[1]
    left, right = best_lines(traced.border.left, _mirror(traced.border.right, w), _OF_SLABS)
    if left is not None and right is not None and max(abs(left.angle), abs(right.angle)) > _UPRIGHT:
        found.append(
            Slab(
                top_left=_x_at(left, y0),
                top_right=w - _x_at(right, y0),
                bottom_right=w - _x_at(right, y1),
                bottom_left=_x_at(left, y1),
                top=y0,
                bottom=y1,
            )
        )
    return found


def arc_fans(traced: Trace) -> list[Fan]:
    """Fans whose centre is that of their far arc, for when the straight borders are dark or beyond the frame."""
    border = traced.border
    circle = best_circle(border.points[: border.ends[2]])
    if circle is None:
        return []
    h, w = border.size
    x, y, far = circle
    away = border.points[border.ends[0] :] - np.array([x, y])
    radius, angle = np.hypot(away[:, 0], away[:, 1]), np.arctan2(away[:, 0], away[:, 1])
    inner = angle[(radius < far - 2) & (radius > 0.15 * far)] * (far / 2)
    sides = (best_level(-inner[inner < 0], cost=2), best_level(inner[inner > 0], cost=2))
    left, right = (min(_WIDEST, 2 / far * level if count >= 5 else _WIDEST) for level, count in sides)
    top = border.ends[2] - border.ends[0]
    radii = _inner(radius[top:], angle[top:], -left, right)
    near = min(0.9 * far, _near_radius(radii, -left, right))
    frame = (0.0, 0.0, float(w), float(h))
    fan = Fan(apex_x=x, apex_y=y, left=-left, right=right, near=near, far=far, box=frame)
    cut = _cut(fan, border, traced.border.box)
    return [fan] if cut == fan else [fan, cut]


def inverted_fans(traced: Trace) -> list[Fan]:
    """Fans with their apex below."""
    border = traced.border.flipped()
    turned = replace(traced, border=border)
    return [_turned(fan, border.size[0]) for fan in (*fans(turned), *flat_fans(turned), *arc_fans(turned))]


def _turned(fan: Fan, h: int) -> Fan:
    x0, y0, x1, y1 = fan.box
    return replace(fan, apex_y=h - fan.apex_y, box=(x0, h - y1, x1, h - y0), inverted=True)


def _x_at(line: Line, y: float) -> float:
    return (line.offset - math.sin(line.angle) * y) / -math.cos(line.angle)


def fans(traced: Trace) -> list[Fan]:
    """Fans with their apex above, in cells, between straight borders."""
    border = traced.border
    return _between(border, best_lines(border.left, _mirror(border.right, border.size[1]), _OF_FANS))


def flat_fans(traced: Trace) -> list[Fan]:
    """Fans whose sides are so flat that most of them is the top border of the mask."""
    return _between(traced.border, _flat_sides(traced.border))


def _between(border: Profile, sides: _Pair) -> list[Fan]:
    """The fan between two sides, as it is and cut by the box where it is."""
    h, w = border.size
    least = max(6.0, 0.06 * h)
    left, right = sides
    if left is None or right is None or left.count < least or right.count < least:
        return []
    apex = _apex(left, right, w)
    if apex is None:
        return []
    lo, hi = left.angle, -right.angle
    near, far = _arcs(border, apex, lo, hi)
    frame = (0.0, 0.0, float(w), float(h))
    fan = Fan(apex_x=apex[0], apex_y=apex[1], left=lo, right=hi, near=near, far=far, box=frame)
    cut = _cut(fan, border, border.box)
    return [fan] if cut.box == frame else [fan, cut]


def _apex(left: Line, right: Line, w: int) -> tuple[float, float] | None:
    """Where the left border and the right one (given mirrored) meet."""
    a, b = -math.cos(left.angle), math.sin(left.angle)
    c, d = math.cos(right.angle), math.sin(right.angle)
    det = a * d - b * c
    if abs(det) < 1e-3:
        return None
    offset_right = right.offset + c * w
    return (left.offset * d - b * offset_right) / det, (a * offset_right - c * left.offset) / det


def _arcs(border: Profile, apex: tuple[float, float], lo: float, hi: float) -> tuple[float, float]:
    """Radii of the near and the far arc."""
    dx, dy = border.points[:, 0] - apex[0], border.points[:, 1] - apex[1]
    radius, angle = np.hypot(dx, dy), np.arctan2(dx, dy)
    top = border.ends[2]
    r, a = radius[:top], angle[:top]
    outer = r[(a > lo + _FAR_MARGIN) & (a < hi - _FAR_MARGIN)]
    inner = _inner(radius[top:], angle[top:], lo, hi)
    far, count = best_level(outer)
    if count < 5:
        h, w = border.size
        corners = (math.hypot(x - apex[0], h - apex[1]) for x in (0, w))
        far = float(max(*corners, radius.max(initial=0.0)))
    near = _near_radius(inner, lo, hi)
    return (near, far) if near < far else (0.0, far)


def _inner(radius: Reals, angle: Reals, lo: float, hi: float) -> Reals:
    """Radii of the points of the top border, given by radius and angle (N,), well between the straight borders."""
    return radius[(angle > lo + _NEAR_MARGIN) & (angle < hi - _NEAR_MARGIN)]


def _near_radius(radii: Reals, lo: float, hi: float) -> float:
    """Radius of the near arc: where much of the top border lies, or where it starts if it follows no arc.

    Args:
        radii: of the points (N,) of the top border.
        lo, hi: angles of the straight borders.
    """
    level, count = best_level(-radii)
    near = max(0.0, -level)
    columns = near * (math.sin(min(hi, math.pi / 2)) - math.sin(max(lo, -math.pi / 2)))
    if count >= 4 and count >= _ARC_PART * columns:
        return near
    return float(max(0.0, np.sort(radii)[len(radii) // 20])) if len(radii) else 0.0


def _cut(fan: Fan, border: Profile, box: Bounds) -> Fan:
    """The fan, cut where border points line up upright or flat along most of a chord well within it."""
    sides = list(fan.box)
    for side, points in enumerate((border.left, border.top, border.right, border.bottom)):
        if sides[side] != box[side] and _lines_up(points, side % 2, box[side], fan, border.size):
            sides[side] = box[side]
    box = (sides[0], sides[1], sides[2], sides[3])
    return replace(fan, box=box, is_cut=box != fan.box)


def _lines_up(points: Points, axis: int, level: float, fan: Fan, size: tuple[int, int]) -> bool:
    """Whether points lie along most of the chord that a side of the box cuts out of a fan."""
    near = np.abs(points[:, axis] - level) <= 1.0
    length = size[axis]
    if np.count_nonzero(near) < _CUT_SHARE * length:
        return False
    found = np.count_nonzero(_well_within(fan, points[near]))
    if found < _CUT_SHARE * length:
        return False
    chord = np.full((length, 2), level)
    chord[:, 1 - axis] = np.arange(length) + 0.5
    return bool(found >= _CUT_CHORD * np.count_nonzero(_well_within(fan, chord)))


def _well_within(fan: Fan, points: Points) -> NDArray[np.bool_]:
    """Which of the points (N, 2) are more than two cells inside an upright fan."""
    dx, dy = points[:, 0] - fan.apex_x, points[:, 1] - fan.apex_y
    radius, angle, margin = np.hypot(dx, dy), np.arctan2(dx, dy), 2.0
    within: NDArray[np.bool_] = (
        (radius < fan.far - margin)
        & (radius > fan.near + margin)
        & (np.sin(angle - fan.left) * radius > margin)
        & (np.sin(fan.right - angle) * radius > margin)
    )
    return within
