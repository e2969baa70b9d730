"""The outer border of a mask as points, and straight borders found among them by one-sided votes.

A border may have echo missing inside it (shadow, fluid), never echo outside it. So a line gains a vote for each border
point on it, loses for each point beyond it, and does not mind points within.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
"""(N, 2) of x, y in cells."""
_BEYOND_COST = 2.0
_RIM_CELLS = 1.0
_MOST_POINTS = 90
_FLATTEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Border points of a mask (h, w), those on the rim of the frame left out; x, y in cells.

    Args:
        left, right: per row, the outermost cell borders.
        top, bottom: per column.
        size: (h, w).
    """

    left: Points
    right: Points
    top: Points
    bottom: Points
    size: tuple[int, int]

    def mirrored(self) -> Profile:
        """Left and right exchanged."""
        w = self.size[1]
        return Profile(
            left=_mirror(self.right, w),
            right=_mirror(self.left, w),
            top=_mirror(self.top, w),
            bottom=_mirror(self.bottom, w),
            size=self.size,
        )


def profile(mask: Mask) -> Profile:
    """The border points of a mask that has at least one cell."""
    h, w = mask.shape
    left, right, rows = _ends(mask)
    top, bottom, cols = _ends(cv2.transpose(mask.view(np.uint8)).view(np.bool_))
    off_left, off_right = left >= _RIM_CELLS, right <= w - _RIM_CELLS
    off_top, off_bottom = top >= _RIM_CELLS, bottom <= h - _RIM_CELLS
    return Profile(
        left=_points(left[off_left], rows[off_left]),
        right=_points(right[off_right], rows[off_right]),
        top=_points(cols[off_top], top[off_top]),
        bottom=_points(cols[off_bottom], bottom[off_bottom]),
        size=(h, w),
    )


def _ends(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Start and end of the echo of each row that has some, and the middles of these rows."""
    start = mask.argmax(axis=1)
    rows = np.flatnonzero(mask[np.arange(len(mask)), start])
    middle = np.add(rows, 0.5, dtype=np.float64)
    return start[rows], mask.shape[1] - mask[:, ::-1].argmax(axis=1)[rows], middle


def _points(x: NDArray[np.float64] | NDArray[np.intp], y: NDArray[np.float64] | NDArray[np.intp]) -> Points:
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _mirror(points: Points, w: int) -> Points:
    return _points(w - points[:, 0], points[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A border on the left: points p with normal . p <= offset are inside.

    Args:
        angle: of the line to the vertical, radians; negative when it runs to the left on the way down.
        offset: along the outward normal (-cos angle, sin angle), cells.
        votes: points on the line less the cost of those beyond.
        count: points on the line.
    """

    angle: float
    offset: float
    votes: float
    count: int

    @property
    def normal(self) -> NDArray[np.float64]:
        """Outward unit normal."""
        return np.array([-np.cos(self.angle), np.sin(self.angle)])


def best_line(points: Points, angles: NDArray[np.float64]) -> Line | None:
    """The left border among `points` (N, 2) with the most votes over `angles` (A,), refined by least squares."""
    if len(points) < 5:
        return None
    every, points = points, points[:: max(1, len(points) // _MOST_POINTS)]
    normals = np.empty((len(angles), 2))
    normals[:, 0], normals[:, 1] = -np.cos(angles), np.sin(angles)
    depth = normals @ points.T
    low = float(depth.min())
    bins = (depth - low).astype(np.intp)
    width = int(bins.max()) + 3
    bins += np.arange(0, len(angles) * width, width)[:, None]
    hist = np.bincount(bins.ravel(), minlength=len(angles) * width).astype(np.int16).reshape(len(angles), width)
    # Points on the line, less twice those beyond; up to a constant, that is hist[b] + hist[b + 1] + 2 total[b + 1].
    votes = hist.cumsum(axis=1, dtype=np.int16)[:, 1:]
    votes *= np.int16(_BEYOND_COST)
    votes += hist[:, :-1]
    votes += hist[:, 1:]
    a, b = divmod(int(votes.argmax()), width - 1)
    return _refine(every, float(angles[a]), low + b + 1, 1.6)


def _refine(points: Points, angle: float, offset: float, tolerance: float) -> Line:
    x, y = points[:, 0], points[:, 1]
    for _ in range(2):
        near = np.abs(y * math.sin(angle) - x * math.cos(angle) - offset) <= tolerance
        dx, dy = x[near], y[near]
        if len(dx) < 4:
            break
        cx, cy = float(dx.sum()) / len(dx), float(dy.sum()) / len(dy)
        dx, dy = dx - cx, dy - cy
        fresh = 0.5 * math.atan2(2 * float(dx @ dy), float(dy @ dy - dx @ dx))
        if abs(fresh - angle) > 0.15:
            break
        angle = fresh
        offset = float(cy * math.sin(angle) - cx * math.cos(angle))
        tolerance = max(0.9, tolerance - 0.3)
    away = y * math.sin(angle) - x * math.cos(angle) - offset
    count = int(np.count_nonzero(np.abs(away) <= 1.2))
    votes = count - _BEYOND_COST * np.count_nonzero(away > 1.5)
    return Line(angle=angle, offset=offset, votes=votes, count=count)


def best_level(values: NDArray[np.float64], *, cost: float = _BEYOND_COST) -> tuple[float, int]:
    """The level with the most of `values` (N,) on it and few above; (level, number within a cell of it).

    Used for the sides of a box and for arcs, whose radius is the value.
    """
    if not len(values):
        return 0.0, 0
    low = float(values.min()) - 1
    bins = ((values - low) * 2).astype(np.intp)
    total = np.bincount(bins, minlength=int(bins.max()) + 4).cumsum()
    votes = (1 + cost) * total[3:]  # on it, less the cost of those beyond, up to a constant
    votes[1:] -= total[:-4]
    best = int(votes.argmax())
    inside = values[(bins >= best) & (bins <= best + 3)]
    if not len(inside):
        return float(low + best / 2 + 1), 0
    return float(inside.sum()) / len(inside), len(inside)


def best_circle(points: Points) -> tuple[float, float, float] | None:
    """The circle (x, y, radius) that most of the border points (N, 2) lie on and few beyond; None for a straight one.

    Reweighted algebraic least squares: points within weigh little, since echo may be missing inside a border.
    """
    if len(points) < 12:
        return None
    px, py = points[:, 0], points[:, 1]
    design = np.ones((len(points), 3))
    design[:, :2] = points
    target = px * px + py * py
    weight, away = np.ones(len(points)), np.zeros(len(points))
    x = y = radius = 0.0
    for _ in range(8):
        weighted = design * weight[:, None]
        normal = weighted.T @ design
        solved = _solve3(normal, weighted.T @ target)
        if solved is None:
            return None
        a, b, c = solved
        x, y = float(a) / 2, float(b) / 2
        radius = math.sqrt(max(0.0, float(c) + x * x + y * y))
        away = np.hypot(px - x, py - y) - radius
        weight = 1 / (1 + (away / np.where(away > 0, 3.0, 1.2)) ** 2)
    on = int((np.abs(away) < 1.2).sum())
    return (x, y, radius) if on >= 10 and radius < _FLATTEST * len(points) and y < points[:, 1].max() else None


def _solve3(system: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Three unknowns by Cramer's rule, None where there is no one answer; numpy's way takes ten times as long."""
    (a, b, c), (d, e, f), (g, h, i) = system.tolist()
    p, q, r = target.tolist()
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    det = a * first + b * second + c * third
    if abs(det) < 1e-6:
        return None
    return (
        (p * first + b * (f * r - q * i) + c * (q * h - e * r)) / det,
        (a * (q * i - f * r) + p * second + c * (d * r - q * g)) / det,
        (a * (e * r - q * h) + b * (q * g - d * r) + p * third) / det,
    )
