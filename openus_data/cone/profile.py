"""The outer border of a mask as points, and straight borders found among them by one-sided votes.

A border may have echo missing inside it (shadow, fluid), never echo outside it. So a line gains a vote for each border
point on it, loses for each point beyond it, and does not mind points within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
"""(N, 2) of x, y in cells."""
_BEYOND_COST = 2.0
_RIM_CELLS = 1.0
_LEAST_POINTS, _POINTS = 5, 100
_NEAR, _MOST_TURN = 1.6, 0.15
_FLATTEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Border points of a mask (h, w), those on the rim of the frame left out; x, y in cells.

    Args:
        left, right: per row, the outermost cell borders.
        top, bottom: per column.
        size: (h, w).
        rows, cols: rows and columns that have echo.
        rim: rows whose echo reaches the left and the right rim, columns whose echo reaches the top and the bottom one.
    """

    left: Points
    right: Points
    top: Points
    bottom: Points
    size: tuple[int, int]
    rows: int
    cols: int
    rim: tuple[int, int, int, int]

    def outer(self) -> Points:
        """All points (N, 2); those of the top come last."""
        return np.concatenate((self.bottom, self.left, self.right, self.top))


def profile(mask: Mask) -> Profile:
    """The border points of a mask that has at least one cell."""
    h, w = mask.shape
    left, right, rows = _ends(mask)
    top, bottom, cols = _ends(cv2.transpose(mask.view(np.uint8)).view(np.bool_))
    points = (
        _off_rim(left, rows, left >= _RIM_CELLS),
        _off_rim(right, rows, right <= w - _RIM_CELLS),
        _off_rim(cols, top, top >= _RIM_CELLS),
        _off_rim(cols, bottom, bottom <= h - _RIM_CELLS),
    )
    on_rim = (
        len(rows) - len(points[0]),
        len(rows) - len(points[1]),
        len(cols) - len(points[2]),
        len(cols) - len(points[3]),
    )
    return Profile(
        left=points[0],
        right=points[1],
        top=points[2],
        bottom=points[3],
        size=(h, w),
        rows=len(rows),
        cols=len(cols),
        rim=on_rim,
    )


def _ends(mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Start and end of the echo of each row that has some, and the middles of these rows."""
    start = mask.argmax(axis=1)
    rows = np.flatnonzero(mask[np.arange(len(mask)), start])
    end = mask.shape[1] - mask[:, ::-1].argmax(axis=1)[rows]
    middle = np.add(rows, 0.5, dtype=np.float64)
    return start[rows].astype(np.float64), end.astype(np.float64), middle


def _off_rim(x: NDArray[np.float64], y: NDArray[np.float64], keep: Mask) -> Points:
    x, y = x[keep], y[keep]
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A border on the left: points p with normal . p <= offset are inside.

    Args:
        angle: of the line to the vertical, radians; negative when it runs to the left on the way down.
        offset: along the outward normal (-cos angle, sin angle), cells.
        count: border points on the line.
    """

    angle: float
    offset: float
    count: float


def best_lines(
    sets: Sequence[Points], angles: NDArray[np.float64], ranges: Sequence[tuple[int, slice]]
) -> list[Line | None]:
    """The left borders with the most votes, refined by least squares; all are looked for together.

    Args:
        sets: points (N, 2) each.
        angles: (A,) of all lines that are tried, radians.
        ranges: for each line that is wanted, the number of its set and its part of `angles`.

    Returns:
        A line for each of `ranges`, None where its set has too few points.
    """
    enough = [len(points) >= _LEAST_POINTS for points in sets]
    if not any(enough):
        return [None] * len(ranges)
    some = np.zeros((len(sets), 2, _POINTS))
    for number, points in enumerate(sets):
        if enough[number]:
            some[number] = points[np.arange(_POINTS) * len(points) // _POINTS].T
    votes, low = _votes(some, angles)
    guesses = np.empty((len(ranges), 2))
    for number, (which, part) in enumerate(ranges):
        angle, level = divmod(int(votes[which, part].argmax()), votes.shape[2])
        guesses[number] = angles[part][angle], low[which] + level + 1
    own = [which for which, _ in ranges]
    lines = _refined(some[own], guesses, [len(sets[which]) / _POINTS for which in own])
    return [line if enough[which] else None for line, which in zip(lines, own, strict=True)]


def _votes(some: NDArray[np.float64], angles: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Votes (S, A, B) for the lines at each angle and offset, and the offsets (S,) of bin 0, for points (S, 2, N)."""
    depth = (np.stack((-np.cos(angles), np.sin(angles)), axis=1) @ some).astype(np.float32)
    low = depth.min(axis=(1, 2))
    depth -= low[:, None, None]
    bins = depth.astype(np.int32)
    width, lines = int(bins.max()) + 3, len(some) * len(angles)
    bins += np.arange(0, lines * width, width, dtype=np.int32).reshape(len(some), len(angles), 1)
    hist = np.bincount(bins.ravel(), minlength=lines * width).astype(np.int16).reshape(len(some), len(angles), width)
    # Points on the line, less twice those beyond; up to a constant, that is hist[b] + hist[b + 1] + 2 total[b + 1].
    votes = hist.cumsum(axis=2, dtype=np.int16)[..., 1:]
    votes *= np.int16(_BEYOND_COST)
    votes += hist[..., :-1]
    votes += hist[..., 1:]
    return votes, low.astype(np.float64)


def _refined(points: NDArray[np.float64], guesses: NDArray[np.float64], per_point: Sequence[float]) -> list[Line]:
    """Lines (L, 2) of angle and offset, each moved onto those of its points (L, 2, N) that are near.

    Each of the points stands for `per_point` (L,) border points.
    """
    x, y = points[:, 0], points[:, 1]
    angle, offset = guesses[:, 0], guesses[:, 1]
    near = np.abs(_depth(x, y, angle) - offset[:, None]) <= _NEAR
    count = near.sum(axis=1)
    fresh_angle, fresh_offset = _least_squares(x, y, near, count)
    better = (count >= 4) & (np.abs(fresh_angle - angle) <= _MOST_TURN)
    angle, offset = np.where(better, fresh_angle, angle), np.where(better, fresh_offset, offset)
    on = (np.abs(_depth(x, y, angle) - offset[:, None]) <= 1.2).sum(axis=1) * per_point
    return [
        Line(angle=a, offset=o, count=c) for a, o, c in zip(angle.tolist(), offset.tolist(), on.tolist(), strict=True)
    ]


def _depth(x: NDArray[np.float64], y: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far outward points (L, N) lie, for lines at angles (L,)."""
    depth: NDArray[np.float64] = y * np.sin(angle)[:, None] - x * np.cos(angle)[:, None]
    return depth


def _least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64], near: Mask, count: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angles and offsets (L,) of the lines through the near points of (L, N)."""
    share = near / np.maximum(1, count)[:, None]
    cx, cy = np.einsum("ln,ln->l", x, share), np.einsum("ln,ln->l", y, share)
    dx, dy = x - cx[:, None], y - cy[:, None]
    across, upright, flat = (np.einsum("ln,ln,ln->l", a, b, share) for a, b in ((dx, dy), (dy, dy), (dx, dx)))
    angle = 0.5 * np.arctan2(2 * across, upright - flat)
    return angle, cy * np.sin(angle) - cx * np.cos(angle)


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
