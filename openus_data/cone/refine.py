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
from openus_data.cone.outline import Polygon
from openus_data.cone.sample import levels_at
from openus_data.cone.shape import Fan, Shape, Slab

_SAMPLES = 40
_SHARES = np.arange(1, _SAMPLES + 1) / (_SAMPLES + 1)
_CLIP = np.uint8(14)
_LEAST_STEP = 1.5
_LEAST_LEAN = 0.015
_LEAN, _LEAN_DAMP = np.stack([1 - _SHARES, _SHARES], 1), 0.5
_SLAB_NORMALS = np.repeat(np.array([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)]), _SAMPLES, axis=0)
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
    if isinstance(shape, Slab):
        for reach in (reach_px, max(3.0, reach_px / 2)):
            shape = _refine_slab(shape, distance, reach)
        return shape
    for reach in (reach_px, max(3.0, reach_px / 2)):
        shape = _refine_fan(shape, distance, reach)
    return shape


def steps(point: Polygon, normal: Polygon, distance: Grey, reach: float) -> _Steps:
    """Where brightness falls to the background across an outline.

    Args:
        point: (N, 2) on the outline, px.
        normal: (N, 2) outward.
        distance: uint8 (H, W).
        reach: px on either side.

    Returns:
        Offsets outward (N,) and weights (N,), zero where no step is seen or the point is on the rim.
    """
    h, w = distance.shape
    half = max(3, math.ceil(reach)) + 2
    offsets = np.arange(half, -half - 1, -1, dtype=np.float32)  # from outside inward, so that the outermost wins
    start, way = point.astype(np.float32), normal.astype(np.float32)
    level = levels_at(distance, start[:, :1] + way[:, :1] * offsets, start[:, 1:] + way[:, 1:] * offsets)
    level = np.minimum(level, _CLIP)
    pair = (level[:, 1:] + level[:, :-1]).astype(np.float32)
    fall = pair[:, 2:] - np.float32(1.3) * pair[:, :-2]
    first = fall.argmax(axis=1)
    size = fall[np.arange(len(fall)), first] / 2
    offset = half - 1.5 - first
    x, y = point.T
    off_rim = (x > 1) & (y > 1) & (x < w - 1) & (y < h - 1)
    weight = np.sqrt(np.maximum(size, 0)) * ((size >= _LEAST_STEP) & off_rim)
    return offset, weight


def _solve(design: _Reals, offset: _Reals, weight: _Reals, damp: _Reals) -> _Reals:
    """Damped, weighted and reweighted least squares; the move (K,) of K numbers.

    The weights forget what is far from the rest, so that a dark stretch or a word at the border moves nothing.
    """
    seen = np.flatnonzero(weight)
    if not len(seen):
        return np.zeros(design.shape[1])
    design, weight = design[seen], weight[seen]
    target = offset[seen].astype(np.float64)[:, None]
    residual = target[:, 0] - _median(target[:, 0])
    damping = np.diag(damp)
    for _ in range(3):
        spread = max(0.6, 1.5 * _median(np.abs(residual)))
        weighted = design.T * (weight / (1 + (residual / spread) ** 2) ** 2)
        move = cv2.solve(weighted @ design + damping, weighted @ target, flags=cv2.DECOMP_CHOLESKY)[1]
        residual = (target - design @ move)[:, 0]
    found: _Reals = move[:, 0].astype(np.float64, copy=False)
    return found


def _median(values: NDArray[np.float64]) -> float:
    """Of (N,), N at least 1; np.median takes several times as long for so few."""
    half = len(values) // 2
    ordered = values.copy()
    ordered.sort()
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _refine_fan(fan: Fan, distance: Grey, reach: float) -> Fan:
    image = distance[::-1] if fan.inverted else distance
    h = distance.shape[0]
    ax, ay = fan.apex_x, (h - fan.apex_y if fan.inverted else fan.apex_y)
    x0, y0, x1, y1 = fan.box
    if fan.inverted:
        y0, y1 = h - y1, h - y0
    inner = (x0 + reach, y0 + reach, x1 - reach, y1 - reach)
    apex = np.array([ax, ay])
    point, design = _fan_border(fan, apex)
    offset, weight = steps(point, design[:, :2], image, reach)
    within = (point[:, 0] > inner[0]) & (point[:, 0] < inner[2]) & (point[:, 1] > inner[1]) & (point[:, 1] < inner[3])
    weight = weight * within
    scale = max(1.0, fan.far)
    damp = np.array([0.02, 0.02, 0.02 * scale**2, 0.02 * scale**2, 0.5, 0.5])
    move = np.clip(_solve(design, offset, weight, damp), -3 * reach, 3 * reach)
    ax, ay = ax + move[0], ay + move[1]
    left, right = fan.left + float(move[2]), fan.right + float(move[3])
    return Fan(
        apex_x=float(ax),
        apex_y=float(h - ay if fan.inverted else ay),
        left=max(left, -math.pi * 0.95),
        right=min(right, math.pi * 0.95),
        near=max(0.0, fan.near + float(move[4])),
        far=fan.far + float(move[5]),
        box=_refine_box(fan, distance, reach),
        inverted=fan.inverted,
    )


def _fan_border(fan: Fan, apex: _Reals) -> tuple[Polygon, _Reals]:
    """Points (4 N, 2) on the left and right border, the near and far arc of an upright fan, and how they move outward.

    The moves (4 N, 6) are those for a step of the apex (which are the normals as well), of the two angles, of the two
    radii.
    """
    n = _SAMPLES
    point, design = np.empty((4 * n, 2)), np.zeros((4 * n, 6))
    radius = fan.near + (fan.far - fan.near) * _SHARES
    for number, (angle, side) in enumerate(((fan.left, -1.0), (fan.right, 1.0))):
        here = slice(number * n, (number + 1) * n)
        sin, cos = math.sin(angle), math.cos(angle)
        point[here, 0], point[here, 1] = radius * sin, radius * cos
        design[here, 0], design[here, 1], design[here, 2 + number] = side * cos, -side * sin, side * radius
    angles = fan.left + (fan.right - fan.left) * _SHARES
    rays = np.empty((n, 2))
    rays[:, 0], rays[:, 1] = np.sin(angles), np.cos(angles)
    for number, (r, side) in enumerate(((fan.near, -1.0), (fan.far, 1.0)), start=2):
        here = slice(number * n, (number + 1) * n)
        point[here] = r * rays
        design[here, :2], design[here, 2 + number] = side * rays, side
    point += apex
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
    offset, weight = steps(point, normal, distance, reach)
    return _weighted_median(offset, weight)


def _weighted_median(offset: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    if np.count_nonzero(weight) < 4:
        return 0.0
    order = offset.argsort()
    total = weight[order].cumsum()
    return float(offset[order[total.searchsorted(total[-1] / 2)]])


def _refine_slab(slab: Slab, distance: Grey, reach: float) -> Slab:
    """The slab on its edges; the sides are free to lean, top and bottom stay flat."""
    n = _SAMPLES
    point = np.empty((4, n, 2))
    point[:2, :, 1] = slab.top + (slab.bottom - slab.top) * _SHARES
    point[0, :, 0] = slab.top_left + (slab.bottom_left - slab.top_left) * _SHARES
    point[1, :, 0] = slab.top_right + (slab.bottom_right - slab.top_right) * _SHARES
    point[2:, :, 1] = np.array([[slab.top], [slab.bottom]])
    point[2, :, 0] = slab.top_left + (slab.top_right - slab.top_left) * _SHARES
    point[3, :, 0] = slab.bottom_left + (slab.bottom_right - slab.bottom_left) * _SHARES
    offsets, weights = steps(point.reshape(-1, 2), _SLAB_NORMALS, distance, reach)
    offset, weight = offsets.reshape(4, n), weights.reshape(4, n)
    (left_above, left_below), (right_above, right_below) = _leaning(offset[:2], weight[:2]).tolist()
    left = slab.top_left - left_above, slab.bottom_left - left_below
    right = slab.top_right + right_above, slab.bottom_right + right_below
    (top_left, bottom_left), (top_right, bottom_right) = _snapped(left, right, slab.bottom - slab.top)
    return Slab(
        top_left=top_left,
        top_right=top_right,
        bottom_right=bottom_right,
        bottom_left=bottom_left,
        top=slab.top - _weighted_median(offset[2], weight[2]),
        bottom=slab.bottom + _weighted_median(offset[3], weight[3]),
    )


_Side = tuple[float, float]
"""x at the top and at the bottom."""


def _leaning(offset: _Reals, weight: _Reals) -> _Reals:
    """How far outward the ends (2, 2) of both sides move, above and below, for offsets (2, N) seen along them.

    The same least squares as `_solve` has, both sides at once, whose two unknowns need no matrices.
    """
    seen = weight > 0
    count = seen.sum(axis=1)
    residual = offset - _medians(offset, seen, count)
    above, below = _LEAN.T
    move = np.zeros((2, 2))
    for _ in range(3):
        spread = np.maximum(0.6, 1.5 * _medians(np.abs(residual), seen, count))
        w = weight / (1 + (residual / spread) ** 2) ** 2
        aa, ab, bb = w @ (above * above) + _LEAN_DAMP, w @ (above * below), w @ (below * below) + _LEAN_DAMP
        ta, tb = (w * offset) @ above, (w * offset) @ below
        det = aa * bb - ab * ab
        move[:, 0], move[:, 1] = (ta * bb - tb * ab) / det, (tb * aa - ta * ab) / det
        residual = offset - move @ _LEAN.T
    move[count < 4] = 0.0
    return move


def _medians(values: _Reals, seen: NDArray[np.bool_], count: NDArray[np.intp]) -> _Reals:
    """Medians (2, 1) of what is seen of (2, N)."""
    ordered = np.where(seen, values, np.inf)
    ordered.sort(axis=1)
    both = np.array([0, 1])
    middle = (ordered[both, (count - 1) // 2] + ordered[both, count // 2]) / 2
    return np.where(count > 0, middle, 0.0)[:, None]


def _snapped(left: _Side, right: _Side, height: float) -> tuple[_Side, _Side]:
    """Both sides upright, unless they lean alike: mirrored (trapezoid) or parallel (steered)."""
    lean_left, lean_right = (left[1] - left[0]) / height, (right[1] - right[0]) / height
    mirrored = abs(lean_left + lean_right) < 0.5 * (lean_right - lean_left)  # wider on the far side
    parallel = abs(lean_left - lean_right) < 0.5 * abs(lean_left + lean_right) / 2
    if (mirrored and lean_right - lean_left > 2 * _LEAST_LEAN) or (parallel and abs(lean_left) > 3 * _LEAST_LEAN):
        return left, right
    mean_left, mean_right = (left[0] + left[1]) / 2, (right[0] + right[1]) / 2
    return (mean_left, mean_left), (mean_right, mean_right)
