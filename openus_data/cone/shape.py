"""The shapes that scanners paint, as a few numbers, and their outlines.

A Fan lies between two straight borders that meet at an apex and between two arcs round it, cut by a box: sectors,
curved arrays, virtual convex (flat top), cropped fans. A Slab lies between two straight borders, a flat top and a flat
bottom: linear arrays, steered parallelograms, trapezoids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from openus_data.cone.outline import Bounds, Polygon, clip_to_box

_ARC_STEP = math.radians(3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """A part of a ring, cut by a box.

    Args:
        apex_x, apex_y: where the straight borders meet.
        left, right: angles of the borders to the axis that points down (up when inverted), radians; left < right.
        near, far: radii of the arcs.
        box: what cuts it; the frame where nothing does.
        inverted: the apex is below.
        is_cut: the box cuts it within the frame.
    """

    apex_x: float
    apex_y: float
    left: float
    right: float
    near: float
    far: float
    box: Bounds
    inverted: bool = False
    is_cut: bool = False

    def outline(self) -> Polygon:
        """(P, 2) vertices, clockwise, cut by the box."""
        count = max(9, math.ceil((self.right - self.left) / _ARC_STEP))
        angles = self.left + (self.right - self.left) / count * np.arange(count + 1)
        rays = np.empty((count + 1, 2))
        rays[:, 0], rays[:, 1] = np.sin(angles), np.cos(angles)
        if self.inverted:
            rays[:, 1] *= -1
        apex = np.array([self.apex_x, self.apex_y])
        near = apex + self.near * rays if self.near > 0 else apex[None]
        ring = np.concatenate((near, (apex + self.far * rays)[::-1]))
        return clip_to_box(ring[::-1] if self.inverted else ring, self.box)

    def scaled(self, x: float, y: float) -> Fan:
        """In units that are smaller by x and y (which are almost alike)."""
        mean = math.sqrt(x * y)
        return Fan(
            apex_x=self.apex_x * x,
            apex_y=self.apex_y * y,
            left=self.left,
            right=self.right,
            near=self.near * mean,
            far=self.far * mean,
            box=_scaled_box(self.box, x, y),
            inverted=self.inverted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Between two straight borders, a flat top and a flat bottom.

    Args:
        top_left, top_right, bottom_right, bottom_left: x of the corners.
        top, bottom: y.
    """

    top_left: float
    top_right: float
    bottom_right: float
    bottom_left: float
    top: float
    bottom: float

    def outline(self) -> Polygon:
        """(4, 2) vertices, clockwise."""
        return np.array(
            [
                (self.top_left, self.top),
                (self.top_right, self.top),
                (self.bottom_right, self.bottom),
                (self.bottom_left, self.bottom),
            ]
        )

    def scaled(self, x: float, y: float) -> Slab:
        """In units that are smaller by x and y."""
        return Slab(
            top_left=self.top_left * x,
            top_right=self.top_right * x,
            bottom_right=self.bottom_right * x,
            bottom_left=self.bottom_left * x,
            top=self.top * y,
            bottom=self.bottom * y,
        )


Shape = Fan | Slab


def _scaled_box(box: Bounds, x: float, y: float) -> Bounds:
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def to_frame(shape: Shape, grid: tuple[int, int], scale: tuple[float, float], frame: tuple[int, int]) -> Shape:
    """A shape in cells in pixels of the frame; what reaches the end of the grid reaches that of the frame.

    Args:
        shape: in cells.
        grid, frame: (height, width).
        scale: (x, y), pixels per cell.
    """
    height, width = frame
    moved = shape.scaled(*scale)
    right, bottom = grid[1] * scale[0] - 0.01, grid[0] * scale[1] - 0.01
    if isinstance(moved, Fan):
        x0, y0, x1, y1 = moved.box
        return replace(moved, box=(x0, y0, float(width) if x1 > right else x1, float(height) if y1 > bottom else y1))
    return replace(
        moved,
        top_right=float(width) if moved.top_right > right else moved.top_right,
        bottom_right=float(width) if moved.bottom_right > right else moved.bottom_right,
        bottom=float(height) if moved.bottom > bottom else moved.bottom,
    )
