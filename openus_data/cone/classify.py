"""The name of a shape and the record made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from openus_data.cone.outline import Polygon, frame_polygon, make_cone
from openus_data.cone.shape import Fan, Shape, Slab
from openus_data.records import Cone, Geometry

_PARALLEL = math.radians(1.7)
_WIDE = math.radians(22.0)
_NARROW_TOP = 0.15
_NARROW_NEAR = 0.12
_PHASED = math.radians(115.0)
_FULL_PART = 0.985


def to_cone(shape: Shape, height: int, width: int, *, confidence: float, method: str) -> Cone:
    """The Cone of a shape in pixels of a frame of (height, width)."""
    outline = shape.outline()
    geometry = name(shape, outline, height, width)
    if geometry == "full":
        outline = frame_polygon(height, width)
    parameters = _fan_parameters(shape) if isinstance(shape, Fan) else _slab_parameters(shape)
    return make_cone(
        geometry, outline, height=height, width=width, confidence=confidence, method=method, parameters=parameters
    )


def name(shape: Shape, outline: Polygon, height: int, width: int) -> Geometry:
    """What sonographers call a shape that shows this outline (P, 2)."""
    if isinstance(shape, Slab):
        area = (
            (shape.bottom - shape.top) * (shape.top_right - shape.top_left + shape.bottom_right - shape.bottom_left) / 2
        )
        if area >= _FULL_PART * height * width:
            return "full"
        opening = _slab_opening(shape)
        if abs(opening) < _PARALLEL:
            return "linear"
        return "curvilinear" if abs(opening) > _WIDE and (shape.top <= 2 or shape.bottom >= height - 2) else "trapezoid"
    opening = shape.right - shape.left
    if opening < _PARALLEL:
        return "linear"
    near_end = (height - shape.box[3]) if shape.inverted else shape.box[1]
    if opening < _WIDE or (near_end > 2 and _near_is_flat(shape, near_end)):
        return "trapezoid"
    near_apex = shape.near < _NARROW_NEAR * shape.far and opening < _PHASED
    return "sector" if near_apex and _top_width(outline, inverted=shape.inverted) < _NARROW_TOP else "curvilinear"


def _slab_opening(slab: Slab) -> float:
    height = max(1e-6, slab.bottom - slab.top)
    left = math.atan2(slab.bottom_left - slab.top_left, height)
    return math.atan2(slab.bottom_right - slab.top_right, height) - left


def _near_is_flat(fan: Fan, near_end: float) -> bool:
    """Whether the box cuts the near arc away."""
    lowest = abs(near_end - fan.apex_y) if not fan.inverted else 0.0
    return lowest > fan.near


def _top_width(outline: Polygon, *, inverted: bool) -> float:
    """Width of the near end of an outline (P, 2), as a part of all of its width."""
    x, y = outline.T.copy()
    (left, top), (right, bottom) = (float(x.min()), float(y.min())), (float(x.max()), float(y.max()))
    margin = 0.03 * (bottom - top)
    end = x[y >= bottom - margin] if inverted else x[y <= top + margin]
    return float(end.max() - end.min()) / max(1e-6, right - left)


def _fan_parameters(fan: Fan) -> Mapping[str, float]:
    return {
        "apex_x": fan.apex_x,
        "apex_y": fan.apex_y,
        "radius_near": fan.near,
        "radius_far": fan.far,
        "angle_left": fan.left,
        "angle_right": fan.right,
        "inverted": float(fan.inverted),
    }


def _slab_parameters(slab: Slab) -> Mapping[str, float]:
    return {
        "top_left_x": slab.top_left,
        "top_right_x": slab.top_right,
        "bottom_right_x": slab.bottom_right,
        "bottom_left_x": slab.bottom_left,
        "top_y": slab.top,
        "bottom_y": slab.bottom,
    }
