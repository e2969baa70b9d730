"""Polygons of a scan area: order, box, raster, and the record they become.

    raster(cone, height, width)     # bool (H, W), True inside

Coordinates are continuous: pixel i covers [i, i + 1), so a full frame is the polygon (0, 0), (W, 0), (W, H), (0, H).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from openus_data.records import Box, Cone, Geometry

Polygon = NDArray[np.float64]
"""(P, 2) vertices x, y in pixels of the frame."""


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
    """Set to 1 the pixels of `mask` (H, W) whose centre lies inside `polygon` (P, 2), in place, exactly."""
    height, width = mask.shape
    top = max(0, math.floor(polygon[:, 1].min()))
    bottom = min(height, math.ceil(polygon[:, 1].max()))
    if bottom <= top:
        return
    rows = np.arange(top, bottom) + 0.5
    start, end = polygon, np.roll(polygon, -1, axis=0)
    crosses = (start[:, 1:] <= rows) != (end[:, 1:] <= rows)
    edge, row = np.nonzero(crosses)
    share = (rows[row] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
    toggles = np.zeros((bottom - top, width + 1), np.uint8)
    np.bitwise_xor.at(toggles, (row, column), 1)
    mask[top:bottom] |= np.bitwise_xor.accumulate(toggles, axis=1)[:, :width]


def clockwise(polygon: Polygon) -> Polygon:
    """The vertices (P, 2) in clockwise order as seen on the screen (y down)."""
    return polygon if signed_area(polygon) >= 0 else polygon[::-1]


def signed_area(polygon: Polygon) -> float:
    """Area in px^2 of (P, 2) vertices, positive when they run clockwise on the screen."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def clip_to_box(polygon: Polygon, box: Sequence[float]) -> Polygon:
    """The part (P', 2) of a polygon (P, 2) within (x0, y0, x1, y1); Sutherland and Hodgman's method, side by side."""
    x0, y0, x1, y1 = box
    for axis, bound, sign in ((0, x0, 1.0), (0, x1, -1.0), (1, y0, 1.0), (1, y1, -1.0)):
        depth = (polygon[:, axis] - bound) * sign
        inside = depth >= 0
        if inside.all():
            continue
        before, depth_before = np.roll(polygon, 1, axis=0), np.roll(depth, 1)
        crosses = inside != (depth_before >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = depth_before / (depth_before - depth)
        crossing = before + (polygon - before) * np.where(crosses, share, 0.0)[:, None]
        polygon = np.stack([crossing, polygon], 1)[np.stack([crosses, inside], 1)]
        if not len(polygon):
            break
    return polygon


def box_of(polygon: Polygon, height: int, width: int) -> Box:
    """Half-open box (x0, y0, x1, y1) that holds a polygon (P, 2), cut at the frame."""
    (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
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
    rounded = np.round(cut, 2)
    return Cone(
        geometry=geometry,
        polygon=tuple((float(x), float(y)) for x, y in rounded),
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
