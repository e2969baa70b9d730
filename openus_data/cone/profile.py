"""The outer border of a mask as points, and straight borders found among them by one-sided votes.

A border may have echo missing inside it (shadow, fluid), never echo outside it. So a line gains a vote for each border
point on it, loses for each point beyond it, and does not mind points within.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left = mask[rows].argmax(axis=1).astype(np.float64)
    right = w - mask[rows, ::-1].argmax(axis=1).astype(np.float64)
    top = mask[:, cols].argmax(axis=0).astype(np.float64)
    bottom = h - mask[::-1, cols].argmax(axis=0).astype(np.float64)
    return Profile(
        left=np.stack([left, rows + 0.5], 1)[left >= _RIM_CELLS],
        right=np.stack([right, rows + 0.5], 1)[right <= w - _RIM_CELLS],
        top=np.stack([cols + 0.5, top], 1)[top >= _RIM_CELLS],
        bottom=np.stack([cols + 0.5, bottom], 1)[bottom <= h - _RIM_CELLS],
        size=(h, w),
    )


def _mirror(points: Points, w: int) -> Points:
    return np.stack([w - points[:, 0], points[:, 1]], 1)


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
    normals = np.stack([-np.cos(angles), np.sin(angles)])
    depth = points @ normals
    low = depth.min()
    bins = np.floor(depth - low).astype(np.intp)
    count = int(bins.max()) + 1
    flat = bins + np.arange(len(angles)) * (count + 2)
    hist = np.bincount(flat.ravel(), minlength=len(angles) * (count + 2)).reshape(len(angles), count + 2)
    total = np.cumsum(hist, axis=1)
    on = hist[:, :-1] + hist[:, 1:]
    beyond = len(points) - total[:, 1:]
    votes = on - _BEYOND_COST * beyond
    a, b = np.unravel_index(int(votes.argmax()), votes.shape)
    return _refine(every, float(angles[a]), float(low + b + 1), 1.6)


def _refine(points: Points, angle: float, offset: float, tolerance: float) -> Line:
    for _ in range(2):
        away = points[:, 1] * math.sin(angle) - points[:, 0] * math.cos(angle) - offset
        near = points[np.abs(away) <= tolerance]
        if len(near) < 4:
            break
        cx, cy = near.sum(axis=0) / len(near)
        dx, dy = near[:, 0] - cx, near[:, 1] - cy
        fresh = 0.5 * math.atan2(2 * float(dx @ dy), float(dy @ dy - dx @ dx))
        if abs(fresh - angle) > 0.15:
            break
        angle = fresh
        offset = float(cy * math.sin(angle) - cx * math.cos(angle))
        tolerance = max(0.9, tolerance - 0.3)
    away = points[:, 1] * math.sin(angle) - points[:, 0] * math.cos(angle) - offset
    count = int((np.abs(away) <= 1.2).sum())
    votes = count - _BEYOND_COST * float((away > 1.5).sum())
    return Line(angle=angle, offset=offset, votes=votes, count=count)


def best_level(values: NDArray[np.float64], *, cost: float = _BEYOND_COST) -> tuple[float, int]:
    """The level with the most of `values` (N,) on it and few above; (level, number within a cell of it).

    Used for the sides of a box and for arcs, whose radius is the value.
    """
    if not len(values):
        return 0.0, 0
    low = values.min() - 1
    bins = np.floor((values - low) * 2).astype(np.intp)
    hist = np.bincount(bins, minlength=int(bins.max()) + 4)
    total = np.cumsum(hist)
    on = total[3:] - np.concatenate([[0], total[:-4]])
    beyond = len(values) - total[3:]
    best = int((on - cost * beyond).argmax())
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
    design = np.column_stack([points, np.ones(len(points))])
    target = (points**2).sum(axis=1)
    weight, away = np.ones(len(points)), np.zeros(len(points))
    x = y = radius = 0.0
    for _ in range(8):
        weighted = design * weight[:, None]
        normal = weighted.T @ design
        if abs(np.linalg.det(normal)) < 1e-6:
            return None
        a, b, c = np.linalg.solve(normal, weighted.T @ target)
        x, y = float(a) / 2, float(b) / 2
        radius = math.sqrt(max(0.0, float(c) + x * x + y * y))
        away = np.hypot(points[:, 0] - x, points[:, 1] - y) - radius
        weight = 1 / (1 + (away / np.where(away > 0, 3.0, 1.2)) ** 2)
    on = int((np.abs(away) < 1.2).sum())
    return (x, y, radius) if on >= 10 and radius < _FLATTEST * len(points) and y < points[:, 1].max() else None
