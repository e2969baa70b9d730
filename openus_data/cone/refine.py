"""A shape found on the grid, moved to where the echo ends in the picture, to a fraction of a pixel.

At points along the outline the brightness is read across it, and the outermost step down to the background found. The
steps of all points then move the shape's few numbers together, by weighted least squares, so that a dark stretch or a
word at the border moves nothing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Grey
from openus_data.cone.outline import Bounds, Polygon
from openus_data.cone.sample import levels_along
from openus_data.cone.shape import Fan, Shape, Slab

_SAMPLES = 40
_SHARES = np.arange(1, _SAMPLES + 1) / (_SAMPLES + 1)
_CLIP = np.uint8(14)
_LEAST_STEP = 1.5
_LEAST_LEAN = 0.015
_LEFT, _RIGHT, _NEAR, _FAR = (slice(number * _SAMPLES, (number + 1) * _SAMPLES) for number in range(4))
_Reals = NDArray[np.float64]
_Steps = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Offsets outward in px (N,), and weights (N,)."""


def refine(shape: Shape, distance: Grey, reach_px: float) -> Shape:
    """The shape (in pixels) on the nearest edges.

    Args:
        shape: within `reach_px` of the truth.
        distance: uint8 (H, W), 0 on the background.
        reach_px: how far to look on either side.
    """
    for reach, turns in ((reach_px, 1), (max(3.0, reach_px / 2), 2)):
        if isinstance(shape, Slab):
            shape = _refine_slab(shape, distance, reach, turns)
        else:
            shape = _refine_fan(shape, distance, reach, turns)
    return shape


def steps(point: Polygon, normal: Polygon, distance: Grey, reach: float, within: Bounds) -> _Steps:
    """Where brightness falls to the background across an outline.

    Args:
        point: (N, 2) on the outline, px.
        normal: (N, 2) outward.
        distance: uint8 (H, W).
        reach: px on either side.
        within: points that lie elsewhere show nothing.

    Returns:
        Offsets outward (N,) and weights (N,), zero where no step is seen.
    """
    half = max(3, math.ceil(reach)) + 2
    offsets = np.arange(half, -half - 1, -1, dtype=np.float32)  # from outside inward, so that the outermost wins
    level = np.minimum(levels_along(distance, point, normal, offsets), _CLIP)
    pair = (level[:, 1:] + level[:, :-1]).astype(np.float32)
    fall = pair[:, 2:] - np.float32(1.3) * pair[:, :-2]
    first = fall.argmax(axis=1)
    size = fall[np.arange(len(fall)), first] * np.float32(0.5)
    x0, y0, x1, y1 = within
    middle, room = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), np.array([(x1 - x0) / 2, (y1 - y0) / 2])
    inside = np.abs(point - middle) < room
    seen = (size >= _LEAST_STEP) & inside[:, 0] & inside[:, 1]
    return half - 1.5 - first, np.sqrt(np.where(seen, size, 0.0))


def _solve(design: _Reals, offset: _Reals, weight: _Reals, damp: _Reals, turns: int) -> list[float]:
    """Damped, weighted and reweighted least squares over four borders of N points; the move (K,) of K numbers.

    The weights, found again `turns` times, forget what is far from the rest, so that a dark stretch or a word at the
    border moves nothing.
    """
    count = design.shape[1]
    seen = weight.nonzero()[0]
    if not len(seen):
        return [0.0] * count
    known = np.empty((len(seen), count + 1))
    known[:, :count], known[:, count] = design[seen], offset[seen]
    residual = known[:, count] - _medians(offset, weight)[seen]
    design, target, weight = known[:, :count], known[:, count], weight[seen]
    for _ in range(turns):
        spread = max(0.6, 1.5 * _median(np.abs(residual)))
        residual /= spread
        residual *= residual
        residual += 1
        residual *= residual
        system = (design.T * (weight / residual)) @ known
        left, right = system[:, :count] + damp, system[:, count:]
        move = cv2.solve(left, right, flags=cv2.DECOMP_CHOLESKY)[1][:, 0]
        residual = target - design @ move
    found: list[float] = move.tolist()
    return found


def _medians(offset: _Reals, weight: _Reals) -> _Reals:
    """For each of the offsets (4 N,) along four borders the median of those seen along its own."""
    ordered = np.where(weight > 0, offset, np.inf).reshape(4, _SAMPLES)
    ordered.sort(axis=1)
    last = np.maximum(np.count_nonzero(weight.reshape(4, _SAMPLES), axis=1) - 1, 0)
    four = np.arange(4)
    medians: _Reals = (ordered[four, last // 2] + ordered[four, (last + 1) // 2]) / 2
    return medians.repeat(_SAMPLES)


def _median(values: _Reals) -> float:
    """Of (N,), N at least 1; np.median takes several times as long for so few."""
    half = len(values) // 2
    ordered = values.copy()
    ordered.sort()
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _refine_fan(fan: Fan, distance: Grey, reach: float, turns: int) -> Fan:
    x0, y0, x1, y1 = fan.box
    point, design = _fan_border(fan)
    inner = (x0 + reach, y0 + reach, x1 - reach, y1 - reach)
    offset, weight = steps(point, design[:, :2], distance, reach, inner)
    turn = 0.02 * max(1.0, fan.far) ** 2
    damp = np.diag((0.02, 0.02, turn, turn, 0.5, 0.5))
    moves = (min(max(move, -3 * reach), 3 * reach) for move in _solve(design, offset, weight, damp, turns))
    x, y, left, right, near, far = moves
    return Fan(
        apex_x=fan.apex_x + x,
        apex_y=fan.apex_y + y,
        left=max(fan.left + left, -math.pi * 0.95),
        right=min(fan.right + right, math.pi * 0.95),
        near=max(0.0, fan.near + near),
        far=fan.far + far,
        box=_refine_box(fan, distance, reach),
        inverted=fan.inverted,
    )


def _fan_border(fan: Fan) -> tuple[Polygon, _Reals]:
    """Points (4 N, 2) on the left and right border, the near and far arc of a fan, and how they move outward.

    The moves (4 N, 6) are those for a step of the apex (which are the normals as well), of the two angles, of the two
    radii.
    """
    down = -1.0 if fan.inverted else 1.0
    point, design = np.empty((4 * _SAMPLES, 2)), np.zeros((4 * _SAMPLES, 6))
    radius = fan.near + (fan.far - fan.near) * _SHARES
    for number, (here, angle, side) in enumerate(((_LEFT, fan.left, -1.0), (_RIGHT, fan.right, 1.0)), start=2):
        sin, cos = math.sin(angle), down * math.cos(angle)
        point[here, 0], point[here, 1] = radius * sin, radius * cos
        design[here, 0], design[here, 1] = side * math.cos(angle), -side * down * sin
        design[here, number] = side * radius
    angles = fan.left + (fan.right - fan.left) * _SHARES
    rays = np.empty((_SAMPLES, 2))
    rays[:, 0], rays[:, 1] = np.sin(angles), down * np.cos(angles)
    point[_NEAR], point[_FAR] = fan.near * rays, fan.far * rays
    design[_NEAR, :2], design[_NEAR, 4] = -rays, -1
    design[_FAR, :2], design[_FAR, 5] = rays, 1
    point += (fan.apex_x, fan.apex_y)
    return point, design


def _refine_box(fan: Fan, distance: Grey, reach: float) -> tuple[float, float, float, float]:
    """The sides of the box that cut the fan within the frame, on their edges."""
    h, w = distance.shape
    if fan.box == (0.0, 0.0, w, h):
        return fan.box
    outline = fan.outline()
    sides = list(fan.box)
    for side, (axis, sign, rim) in enumerate(((0, -1.0, 0.0), (1, -1.0, 0.0), (0, 1.0, float(w)), (1, 1.0, float(h)))):
        if abs(sides[side] - rim) < 1:
            continue
        on = outline[np.abs(outline[:, axis] - sides[side]) < 0.5]
        if len(on) < 2:
            continue
        first, last = float(on[:, 1 - axis].min()), float(on[:, 1 - axis].max())
        along = first + (last - first) * _SHARES
        sides[side] += sign * _shift(axis, sides[side], along, sign, distance, reach)
    return sides[0], sides[1], sides[2], sides[3]


def _shift(axis: int, level: float, along: NDArray[np.float64], sign: float, distance: Grey, reach: float) -> float:
    """How far outward the edge lies of an upright or flat border."""
    point = np.empty((len(along), 2))
    point[:, axis], point[:, 1 - axis] = level, along
    normal = np.zeros((len(along), 2))
    normal[:, axis] = sign
    h, w = distance.shape
    offset, weight = steps(point, normal, distance, reach, (1, 1, w - 1, h - 1))
    return _weighted_median(offset, weight)


def _weighted_median(offset: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    if np.count_nonzero(weight) < 4:
        return 0.0
    order = offset.argsort()
    total = weight[order].cumsum()
    return float(offset[order[total.searchsorted(total[-1] / 2)]])


def _slab_moves() -> _Reals:
    """How points (4 N,) on the left and right border, top and bottom of a slab move outward for a step of its numbers.

    These are the upper and the lower end of the left border, of the right one, the top and the bottom.
    """
    design = np.zeros((4 * _SAMPLES, 6))
    design[_LEFT, 0], design[_LEFT, 1] = 1 - _SHARES, _SHARES
    design[_RIGHT, 2], design[_RIGHT, 3] = 1 - _SHARES, _SHARES
    design[_NEAR, 4], design[_FAR, 5] = 1, 1
    return design


_SLAB_MOVES = _slab_moves()
_SLAB_DAMP = np.diag((0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
_SLAB_NORMALS = np.array([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)]).repeat(_SAMPLES, axis=0)


def _refine_slab(slab: Slab, distance: Grey, reach: float, turns: int) -> Slab:
    """The slab on its edges; the sides are free to lean, top and bottom stay flat."""
    h, w = distance.shape
    x0, x1, x2, x3 = slab.top_left, slab.top_right, slab.bottom_left, slab.bottom_right
    depth = slab.top + (slab.bottom - slab.top) * _SHARES
    point = np.empty((4 * _SAMPLES, 2))
    point[_LEFT, 0], point[_LEFT, 1] = x0 + (x2 - x0) * _SHARES, depth
    point[_RIGHT, 0], point[_RIGHT, 1] = x1 + (x3 - x1) * _SHARES, depth
    point[_NEAR, 0], point[_NEAR, 1] = x0 + (x1 - x0) * _SHARES, slab.top
    point[_FAR, 0], point[_FAR, 1] = x2 + (x3 - x2) * _SHARES, slab.bottom
    offset, weight = steps(point, _SLAB_NORMALS, distance, reach, (1, 1, w - 1, h - 1))
    move = _solve(_SLAB_MOVES, offset, weight, _SLAB_DAMP, turns)
    sides = (x0 - move[0], x2 - move[1]), (x1 + move[2], x3 + move[3])
    (top_left, bottom_left), (top_right, bottom_right) = _snapped(*sides, slab.bottom - slab.top)
    return Slab(
        top_left=top_left,
        top_right=top_right,
        bottom_right=bottom_right,
        bottom_left=bottom_left,
        top=slab.top - move[4],
        bottom=slab.bottom + move[5],
    )


_Side = tuple[float, float]
"""x at the top and at the bottom."""


def _snapped(left: _Side, right: _Side, height: float) -> tuple[_Side, _Side]:
    """Both sides upright, unless they lean alike: mirrored (trapezoid) or parallel (steered)."""
    lean_left, lean_right = (left[1] - left[0]) / height, (right[1] - right[0]) / height
    mirrored = abs(lean_left + lean_right) < 0.5 * (lean_right - lean_left)  # wider on the far side
    parallel = abs(lean_left - lean_right) < 0.5 * abs(lean_left + lean_right) / 2
    if (mirrored and lean_right - lean_left > 2 * _LEAST_LEAN) or (parallel and abs(lean_left) > 3 * _LEAST_LEAN):
        return left, right
    mean_left, mean_right = (left[0] + left[1]) / 2, (right[0] + right[1]) / 2
    return (mean_left, mean_left), (mean_right, mean_right)
