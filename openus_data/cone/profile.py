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

from openus_data.cone.outline import Bounds

Mask = NDArray[np.bool_]
Reals = NDArray[np.float64]
Reals32 = NDArray[np.float32]
Points = Reals
"""(N, 2) of x, y in cells."""
_BEYOND_COST = 2.0
_MOST_ON_RIM = 0.25
_LEAST_POINTS, _POINTS = 5, 100
_SPREAD = np.arange(_POINTS)
_NEAR, _MOST_TURN = 1.6, 0.15
_FLATTEST, _ON_CIRCLE = 4.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Border points of a mask (h, w), those on the rim of the frame left out; x, y in cells.

    Args:
        points: (N, 2), the outermost cell borders: per column at the bottom, per row on the left and on the right, per
            column at the top.
        ends: where each of these four ends in `points`.
        size: (h, w).
        box: robust sides.
    """

    points: Points
    ends: tuple[int, int, int, int]
    size: tuple[int, int]
    box: Bounds

    @property
    def bottom(self) -> Points:
        """Per column."""
        return self.points[: self.ends[0]]

    @property
    def left(self) -> Points:
        """Per row."""
        return self.points[self.ends[0] : self.ends[1]]

    @property
    def right(self) -> Points:
        """Per row."""
        return self.points[self.ends[1] : self.ends[2]]

    @property
    def top(self) -> Points:
        """Per column."""
        return self.points[self.ends[2] :]

    def flipped(self) -> Profile:
        """That of the mask upside down."""
        h = self.size[0]
        points = np.concatenate((self.top, self.points[self.ends[0] : self.ends[2]], self.bottom))
        points[:, 1] = h - points[:, 1]
        shift = len(self.top) - self.ends[0]
        ends = (len(self.top), self.ends[1] + shift, self.ends[2] + shift, len(points))
        x0, y0, x1, y1 = self.box
        return Profile(points=points, ends=ends, size=self.size, box=(x0, h - y1, x1, h - y0))


def profile(mask: Mask) -> Profile:
    """The border points of a mask that has at least one cell."""
    h, w = mask.shape
    cells = mask.view(np.uint8)
    span = max(h, w) + 1
    seen = np.zeros((4, span, span), np.uint8)  # from below, the left, the right, above
    seen[3, :w, :h] = cv2.transpose(cells)
    seen[1, :h, :w] = cells
    seen[0, :w, :h] = cv2.flip(seen[3, :w, :h], 1)
    seen[2, :h, :w] = cv2.flip(cells, 1)
    depth = seen.view(np.bool_).argmax(axis=2)  # 0 where there is no echo as well
    side, along = depth.nonzero()
    inward = depth[side, along]
    counts = np.bincount(side * span + inward, minlength=4 * span).reshape(4, span)
    ends = counts.sum(axis=1).cumsum().tolist()
    a, b, c, d = ends
    points = np.empty((d, 2))
    middle = along + 0.5
    points[:a, 0], points[a:c, 1], points[c:, 0] = middle[:a], middle[a:c], middle[c:]
    points[:a, 1], points[a:b, 0] = h - inward[:a], inward[a:b]
    points[b:c, 0], points[c:, 1] = w - inward[b:c], inward[c:]
    on_rim = [cv2.countNonZero(line) for line in (cells[-1], cells[:, 0], cells[:, -1], cells[0])]
    bottom, left, right, top = _levels(counts, on_rim)
    return Profile(points=points, ends=(a, b, c, d), size=(h, w), box=(left, top, w - right, h - bottom))


def _levels(counts: NDArray[np.intp], on_rim: Sequence[int]) -> list[float]:
    """How far from each side of the frame many border points lie and few nearer to it; 0 where echo reaches the side.

    Args:
        counts: (4, D), border points at each distance, 0 at a distance of 0.
        on_rim: (4,), rows or columns whose echo reaches the side.
    """
    total = counts.cumsum(axis=1)
    votes = total[:, 2:] - 3 * total[:, :-2]  # those at a distance and at the next, less twice those nearer
    levels = []
    for side, (best, rim) in enumerate(zip(votes.argmax(axis=1).tolist(), on_rim, strict=True)):
        near, far = counts[side, best + 1 : best + 3].tolist()
        reaches = rim > _MOST_ON_RIM * (rim + int(total[side, -1])) or near + far == 0
        levels.append(0.0 if reaches else best + 1 + far / (near + far))
    return levels


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


def best_lines(left: Points, right: Points, normals: Reals32) -> tuple[Line | None, Line | None]:
    """The borders with the most votes on the left and, mirrored, on the right, refined by least squares.

    Args:
        left: points (N, 2).
        right: points (M, 2), mirrored.
        normals: (A, 2), outward on the left, of all lines that are tried.

    Returns:
        None for a border of too few points.
    """
    sets = (left, right)
    enough = [len(points) >= _LEAST_POINTS for points in sets]
    if not any(enough):
        return None, None
    some = np.zeros((2, 2, _POINTS), np.float32)
    for number, points in enumerate(sets):
        if enough[number]:
            some[number] = points[_SPREAD * len(points) // _POINTS].T
    votes, low = _votes(some, normals)
    guesses = []
    for each, lowest in zip(votes, low, strict=True):
        number, level = divmod(int(each.argmax()), votes.shape[2])
        guesses.append((*normals[number].tolist(), lowest + level + 1))
    one, other = _refined(some, np.array(guesses), [len(points) / _POINTS for points in sets])
    return one if enough[0] else None, other if enough[1] else None


def _votes(some: Reals32, normals: Reals32) -> tuple[NDArray[np.int32], list[float]]:
    """Votes (2, A, B) for the lines of each normal and offset, and the offsets (2,) of bin 0, for points (2, 2, N)."""
    depth = normals @ some
    low = depth.reshape(len(some), -1).min(axis=1)
    depth -= low[:, None, None]
    bins = depth.astype(np.int32)
    width, lines = int(bins.max()) + 3, len(some) * len(normals)
    bins += np.arange(0, lines * width, width, dtype=np.int32).reshape(len(some), len(normals), 1)
    counts = np.bincount(bins.ravel(), minlength=lines * width).astype(np.uint8).reshape(lines, width)
    sums = cv2.integral(counts, sdepth=cv2.CV_32S)  # which sums rows in an eighth of the time of cumsum
    before = sums[1:] - sums[:-1]  # of each line, the points below each bin
    # On the line, less twice those beyond; up to a constant that is three times those up to it, less those below it.
    votes = before[:, 2:] * np.int32(1 + _BEYOND_COST)
    votes -= before[:, :-2]
    return votes.reshape(len(some), len(normals), width - 1), low.tolist()


def _refined(points: Reals32, guesses: Reals, per_point: Sequence[float]) -> list[Line]:
    """Lines, each moved onto those of its points that are near.

    Args:
        points: (2, 2, N).
        guesses: (2, 3) of the outward normals and offsets.
        per_point: (2,) border points that each of the points stands for.
    """
    moments = np.empty((len(points), 5, points.shape[2]))
    moments[:, :2] = points
    x, y = moments[:, 0], moments[:, 1]
    np.multiply(x, x, out=moments[:, 2])
    np.multiply(y, y, out=moments[:, 3])
    np.multiply(x, y, out=moments[:, 4])
    near = np.abs(guesses[:, None, :2] @ moments[:, :2] - guesses[:, 2:, None]) <= _NEAR
    sums = (moments @ near.transpose(0, 2, 1).astype(np.float64))[:, :, 0].tolist()
    fresh = guesses.tolist()
    for number, (count, (sx, sy, xx, yy, xy)) in enumerate(zip(near.sum(axis=(1, 2)).tolist(), sums, strict=True)):
        if count < 4:
            continue
        mx, my = sx / count, sy / count
        angle = 0.5 * math.atan2(2 * (xy / count - mx * my), (yy - xx) / count - my * my + mx * mx)
        a, b, _ = fresh[number]
        if abs(angle - math.atan2(b, -a)) <= _MOST_TURN:
            a, b = -math.cos(angle), math.sin(angle)
            fresh[number] = [a, b, a * mx + b * my]
    lines = np.array(fresh)
    on = np.count_nonzero(np.abs(lines[:, None, :2] @ moments[:, :2] - lines[:, 2:, None]) <= 1.2, axis=(1, 2))
    return [
        Line(angle=math.atan2(b, -a), offset=offset, count=count * each)
        for (a, b, offset), count, each in zip(fresh, on.tolist(), per_point, strict=True)
    ]


def best_level(values: Reals, *, cost: int = 1) -> tuple[float, int]:
    """The level with the most of `values` (N,) on it and few above; (level, number within a cell of it).

    Used for arcs, whose radius is the value. (0.0, 0) for none.
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
    return float(inside.sum()) / len(inside), len(inside)


def best_circle(points: Points) -> tuple[float, float, float] | None:
    """The circle (x, y, radius) that most of the border points (N, 2) lie on and few beyond; None if there is none.

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
    found = np.count_nonzero(np.abs(away) < 1.2) >= _ON_CIRCLE * len(points)
    return (x, y, radius) if found and radius < _FLATTEST * len(points) and y < points[:, 1].max() else None


def _solve3(system: Reals, target: Reals) -> tuple[float, float, float] | None:
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
