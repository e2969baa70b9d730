"""Candidate shapes of one mask of echo: a slab, a fan, an inverted fan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openus_data.cone.profile import Line, Mask, Points, Profile, best_circle, best_level, best_line, profile
from openus_data.cone.shape import Bounds, Fan, Shape, Slab

_SLANTED = np.radians(np.arange(-84.0, -2.9, 3.0))
_SIDES = np.radians(np.concatenate([np.arange(-51.0, -2.9, 3.0), np.arange(-2.0, 2.1), np.arange(3.0, 35.0, 3.0)]))
_CUT_SHARE, _CUT_CHORD = 0.12, 0.6
_ARC_PART = 0.25
_SAME = math.radians(4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A mask (h, w) with at least one cell, as its border points and its robust box."""

    border: Profile
    box: Bounds


def trace(mask: Mask) -> Trace:
    """What the fits need to know of a mask."""
    border = profile(mask)
    return Trace(border=border, box=_box(mask, border))


def slabs(traced: Trace) -> list[Shape]:
    """Slabs, in cells."""
    slab = _slab(traced.border, traced.box)
    return [_upright(traced.box)] if slab is None else [_upright(traced.box), slab]


def fans(traced: Trace) -> Iterator[Shape]:
    """Fans with their apex above, in cells, between straight borders; the likelier first."""
    yield from _fans(traced.border, traced.box)


def arc_fans(traced: Trace) -> list[Shape]:
    """Fans whose centre is that of their far arc, for when the straight borders are dark or beyond the frame."""
    border = traced.border
    points = np.concatenate([border.bottom, border.left, border.right])
    circle = best_circle(points)
    if circle is None:
        return []
    h, w = border.size
    x, y, far = circle
    away = np.concatenate([border.left, border.right, border.top]) - np.array([x, y])
    radius, angle = np.hypot(away[:, 0], away[:, 1]), np.arctan2(away[:, 0], away[:, 1])
    inner = angle[(radius < far - 2) & (radius > 0.15 * far)]
    widest = math.radians(85.0)
    left = min(widest, _side_angle(-inner[inner < 0], far) or widest)
    right = min(widest, _side_angle(inner[inner > 0], far) or widest)
    near = min(0.9 * far, _near_radius(border, (x, y), -left, right))
    frame = (0.0, 0.0, float(w), float(h))
    fan = Fan(apex_x=x, apex_y=y, left=-left, right=right, near=near, far=far, box=frame)
    cut = _cut(fan, border, traced.box)
    return [fan] if cut == fan else [fan, cut]


def _side_angle(angles: NDArray[np.float64], far: float) -> float:
    """The angle on which most border points lie and few beyond, 0 where too few do."""
    level, count = best_level(angles * far / 2)
    return level * 2 / far if count >= 5 else 0.0


def inverted_fans(mask: Mask) -> list[Shape]:
    """Fans with their apex below."""
    upside_down = trace(mask[::-1])
    return [_turned(fan, mask.shape[0]) for fan in _fans(upside_down.border, upside_down.box)]


def _turned(fan: Fan, h: int) -> Fan:
    x0, y0, x1, y1 = fan.box
    return replace(fan, apex_y=h - fan.apex_y, box=(x0, h - y1, x1, h - y0), inverted=True)


def _box(mask: Mask, border: Profile) -> Bounds:
    """Robust sides: where many border points lie and few beyond; the rim of the frame where the mask reaches it."""
    h, w = border.size
    count = np.count_nonzero
    rows, cols = 0.25 * count(mask.any(axis=1)), 0.25 * count(mask.any(axis=0))
    left = 0.0 if count(mask[:, 0]) > rows else -best_level(-border.left[:, 0])[0]
    right = float(w) if count(mask[:, -1]) > rows else best_level(border.right[:, 0])[0]
    top = 0.0 if count(mask[0]) > cols else -best_level(-border.top[:, 1])[0]
    bottom = float(h) if count(mask[-1]) > cols else best_level(border.bottom[:, 1])[0]
    return left, top, right or float(w), bottom or float(h)


def _upright(box: Bounds) -> Slab:
    x0, y0, x1, y1 = box
    return Slab(top_left=x0, top_right=x1, bottom_right=x1, bottom_left=x0, top=y0, bottom=y1)


def _slab(border: Profile, box: Bounds) -> Slab | None:
    """Slanted straight sides between a flat top and bottom."""
    left = best_line(border.left, _SIDES)
    right = best_line(border.mirrored().left, _SIDES)
    if left is None or right is None:
        return None
    w = border.size[1]
    top, bottom = box[1], box[3]
    return Slab(
        top_left=_x_at(left, top),
        top_right=w - _x_at(right, top),
        bottom_right=w - _x_at(right, bottom),
        bottom_left=_x_at(left, bottom),
        top=top,
        bottom=bottom,
    )


def _x_at(line: Line, y: float) -> float:
    return (line.offset - math.sin(line.angle) * y) / -math.cos(line.angle)


def _fans(border: Profile, box: Bounds) -> Iterator[Fan]:
    """Fans between the best lines of either side: among all its points, and among those of its rows alone."""
    h, w = border.size
    mirrored = border.mirrored()
    least = max(6.0, 0.06 * h)
    tried: list[tuple[float, float]] = []
    for pick in (_left_side, _rows_only):
        left, right = best_line(pick(border), _SLANTED), best_line(pick(mirrored), _SLANTED)
        if left is None or right is None or left.count < least or right.count < least:
            continue
        apex = _apex(left, right, w)
        if apex is None or any(abs(left.angle - a) + abs(right.angle - b) < _SAME for a, b in tried):
            continue
        tried.append((left.angle, right.angle))
        lo, hi = left.angle, -right.angle
        near, far = _arcs(border, apex, lo, hi)
        frame = (0.0, 0.0, float(w), float(h))
        fan = Fan(apex_x=apex[0], apex_y=apex[1], left=lo, right=hi, near=near, far=far, box=frame)
        yield fan
        cut = _cut(fan, border, box)
        if cut.box != frame:
            yield cut


def _rows_only(border: Profile) -> Points:
    return border.left


def _left_side(border: Profile) -> Points:
    """Points of the left border, and of the top one left of its middle."""
    middle = border.top[:, 0].mean() if len(border.top) else 0.0
    return np.concatenate([border.left, border.top[border.top[:, 0] < middle]])


def _apex(left: Line, right: Line, w: int) -> tuple[float, float] | None:
    """Where the left border and the right one (given mirrored) meet."""
    normal_right = right.normal * np.array([-1.0, 1.0])
    (a, b), (c, d) = left.normal.tolist(), normal_right.tolist()
    det = a * d - b * c
    if abs(det) < 1e-3:
        return None
    offset_right = right.offset + c * w
    return (left.offset * d - b * offset_right) / det, (a * offset_right - c * left.offset) / det


def _arcs(border: Profile, apex: tuple[float, float], lo: float, hi: float) -> tuple[float, float]:
    """Radii of the near and the far arc."""
    far_points = np.concatenate([border.bottom, border.left, border.right])
    far_r = _radii_within(far_points, apex, lo, hi, 0.03)
    outer = np.concatenate([border.bottom, border.left, border.right, border.top])
    every = np.hypot(outer[:, 0] - apex[0], outer[:, 1] - apex[1])
    far, count = best_level(far_r, cost=1.0)
    if count < 5:
        h, w = border.size
        corners = np.array([(0, h), (w, h)], np.float64) - np.array(apex)
        far = float(max(np.hypot(corners[:, 0], corners[:, 1]).max(), every.max(initial=0.0)))
    near = _near_radius(border, apex, lo, hi)
    return (near, far) if near < far else (0.0, far)


def _near_radius(border: Profile, apex: tuple[float, float], lo: float, hi: float) -> float:
    """Radius of the near arc: where much of the top border lies, or where it starts if it follows no arc."""
    radii = _radii_within(border.top, apex, lo, hi, 0.05)
    level, count = best_level(-radii, cost=1.0)
    near = max(0.0, -level)
    columns = near * (math.sin(min(hi, math.pi / 2)) - math.sin(max(lo, -math.pi / 2)))
    if count >= 4 and count >= _ARC_PART * columns:
        return near
    return float(max(0.0, np.quantile(radii, 0.05))) if len(radii) else 0.0


def _radii_within(
    points: Points, apex: tuple[float, float], lo: float, hi: float, margin: float
) -> NDArray[np.float64]:
    away = points - np.array(apex)
    angle = np.arctan2(away[:, 0], away[:, 1])
    radius: NDArray[np.float64] = np.hypot(away[:, 0], away[:, 1])[(angle > lo + margin) & (angle < hi - margin)]
    return radius


def _cut(fan: Fan, border: Profile, box: Bounds) -> Fan:
    """The fan, cut where border points line up upright or flat along most of a chord well within it."""
    sides = list(fan.box)
    for side, points in enumerate((border.left, border.top, border.right, border.bottom)):
        if _lines_up(points, side % 2, box[side], fan, border.size):
            sides[side] = box[side]
    return replace(fan, box=(sides[0], sides[1], sides[2], sides[3]))


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
