"""Polygons of a scan area: order, box, raster, and the record they become.

    raster(cone, height, width)     # bool (H, W), True inside

Coordinates are continuous: pixel i covers [i, i + 1), so a full frame is the polygon (0, 0), (W, 0), (W, H), (0, H).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from openus_data.records import Box, Cone, Geometry

Polygon = NDArray[np.float64]
"""(P, 2) vertices x, y in pixels of the frame."""
Bounds = tuple[float, float, float, float]
"""(x0, y0, x1, y1), continuous."""
_T = TypeVar("_T", bound=np.generic)
_STEPS = float(1 << 20)
"""Steps of a pixel in which `fill` counts along a row."""


def raster(cone: Cone, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose centre lies inside the scan area.

    Args:
        cone: the scan area; of a `multi` all panels are drawn.
        height, width: size of the frame, px.

    Returns:
        bool (height, width); all False for `none`.
    """
    mask = np.zeros((height, width), np.uint8)
    for part in cone.panels or (cone,):
        if len(part.polygon) >= 3:
            fill(mask, np.asarray(part.polygon, np.float64))
    return mask.view(np.bool_)


def fill(mask: NDArray[np.uint8], polygon: Polygon) -> None:
    """Set to 1, in place, the pixels of a contiguous `mask` (H, W) whose centre lies inside `polygon` (P, 2)."""
    height, width = mask.shape
    x, y = polygon.T.copy()
    start = np.minimum(np.maximum(np.ceil(y - 0.5), 0), height).astype(np.intp)  # the first row below each vertex
    end = rolled(start)
    counts = np.abs(end - start)
    table = np.empty((4, len(x)))  # of each side the first row, less the number of earlier crossings; slope; x; y
    table[0] = np.minimum(start, end) - (counts.cumsum() - counts)
    table[1] = (rolled(x) - x) / np.where(counts > 0, rolled(y) - y, 1.0)
    table[2], table[3] = x, y
    row, slope, at, y_from = table.take(np.arange(len(x)).repeat(counts), axis=1)
    row += np.arange(len(row))
    # in steps so fine that none is seen, but exact: an outline moved by whole pixels covers the same ones, moved
    at += np.rint((row + 0.5 - y_from) * (slope * _STEPS)) / _STEPS
    column = np.minimum(np.maximum(np.ceil(at - 0.5), 0), width)
    crossing = (row * (width + 1) + column).astype(np.intp)
    crossing.sort()  # a closed line crosses every row an even time
    row = crossing[::2] // (width + 1)
    pixels, ones = mask.reshape(-1).data, b"\1" * width
    for left, right in zip((crossing[::2] - row).tolist(), (crossing[1::2] - row).tolist(), strict=True):
        pixels[left:right] = ones[: right - left]  # row by row is faster than what needs a second picture


def clockwise(polygon: Polygon) -> Polygon:
    """The vertices (P, 2) in clockwise order as seen on the screen (y down)."""
    return polygon if signed_area(polygon) >= 0 else polygon[::-1]


def signed_area(polygon: Polygon) -> float:
    """Area in px^2 of (P, 2) vertices, positive when they run clockwise on the screen."""
    x, y = polygon[:, 0], polygon[:, 1]
    inner = float(x[:-1].dot(y[1:]) - x[1:].dot(y[:-1]))
    return (inner + float(x[-1] * y[0] - x[0] * y[-1])) / 2


def rolled(values: NDArray[_T], by: int = 1) -> NDArray[_T]:
    """`values` (N, ...) from number `by` on, and then the first ones; np.roll takes ten times as long for so few."""
    return np.concatenate((values[by:], values[:by]))


def clip_to_box(polygon: Polygon, box: Sequence[float]) -> Polygon:
    """The part (P', 2) of a polygon (P, 2) within (x0, y0, x1, y1); Sutherland and Hodgman's method, side by side."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = extent(polygon)
    sides = ((0, x0, 1.0, left < x0), (0, x1, -1.0, right > x1), (1, y0, 1.0, top < y0), (1, y1, -1.0, bottom > y1))
    for axis, bound, sign, beyond in sides:
        if not beyond:
            continue
        depth = (polygon[:, axis] - bound) * sign
        inside = depth >= 0
        if inside.all():
            continue
        before, depth_before = rolled(polygon, -1), rolled(depth, -1)
        crosses = inside != (depth_before >= 0)
        share = depth_before / np.where(crosses, depth_before - depth, 1.0)
        pairs = np.empty((len(polygon), 2, 2))
        pairs[:, 0] = before + (polygon - before) * share[:, None]
        pairs[:, 1] = polygon
        kept = np.empty((len(polygon), 2), np.bool_)
        kept[:, 0], kept[:, 1] = crosses, inside
        polygon = pairs[kept]
        if not len(polygon):
            break
    return polygon


def extent(polygon: Polygon) -> Bounds:
    """The least and the largest x and y (x0, y0, x1, y1) of vertices (P, 2)."""
    x, y = polygon.T.copy()
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def box_of(polygon: Polygon, height: int, width: int) -> Box:
    """Half-open box (x0, y0, x1, y1) that holds a polygon (P, 2), cut at the frame."""
    left, top, right, bottom = extent(polygon)
    x0, y0 = max(0, math.floor(left + 1e-6)), max(0, math.floor(top + 1e-6))
    return x0, y0, min(width, max(x0, math.ceil(right - 1e-6))), min(height, max(y0, math.ceil(bottom - 1e-6)))


def make_cone(
    geometry: Geometry,
    polygon: Polygon,
    *,
    height: int,
    width: int,
    confidence: float,
    method: str,
    parameters: Mapping[str, float] | None = None,
) -> Cone:
    """A Cone of one panel, cut at the frame of (height, width) px; vertices clockwise, to 1/100 px."""
    cut = clockwise(clip_to_box(polygon, (0, 0, width, height)))
    rounded = cut.round(2)
    return Cone(
        geometry=geometry,
        polygon=tuple((x, y) for x, y in rounded.tolist()),
        box=box_of(rounded, height, width),
        confidence=float(round(min(1.0, max(0.0, confidence)), 4)),
        method=method,
        parameters={name: float(round(value, 4)) for name, value in (parameters or {}).items()},
    )


def no_cone(method: str, confidence: float = 0.5) -> Cone:
    """The Cone of a frame without echo: empty polygon and box."""
    return Cone(geometry="none", polygon=(), box=(0, 0, 0, 0), confidence=confidence, method=method)


def join(panels: Sequence[Cone], height: int, width: int) -> Cone:
    """One Cone of one or several panels; that of several is `multi`, with their common box as polygon."""
    if len(panels) == 1:
        return panels[0]
    corners = np.array([vertex for panel in panels for vertex in panel.polygon]).reshape(-1, 2)
    box = box_of(corners, height, width)
    return Cone(
        geometry="multi",
        polygon=tuple((float(x), float(y)) for x, y in box_polygon(box)),
        box=box,
        confidence=min(panel.confidence for panel in panels),
        method=panels[0].method,
        panels=tuple(sorted(panels, key=lambda panel: panel.box[:2])),
    )


def frame_polygon(height: int, width: int) -> Polygon:
    """The four corners (4, 2) of a frame, clockwise."""
    return box_polygon((0, 0, width, height))


def box_polygon(box: Sequence[float]) -> Polygon:
    """The four corners (4, 2) of (x0, y0, x1, y1), clockwise."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
