"""Beam space: a scan area resampled to depth x beam, and back.

    polar = to_polar(image, cone, depths=512, beams=256)
    again = from_polar(polar, cone, *image.shape[:2])

Fans (a cone with an apex) go to depth x angle, slabs to depth x place across. The two maps are inverses of each other
to rounding error; what resampling loses is interpolation.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import raster
from openus_data.records import Cone, Pixels

Reals = NDArray[np.float64]


def to_polar(image: Pixels, cone: Cone, *, depths: int, beams: int) -> Pixels:
    """Resample a scan area to beam space.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        cone: one scan area, with its parameters, in pixels of the image.
        depths: samples along a beam.
        beams: samples across.

    Returns:
        uint8 (depths, beams) or (depths, beams, 3); 0 where the frame cuts the scan area.

    Raises:
        ValueError: the cone is `multi`, `none`, or has no parameters.
    """
    beam, depth = np.meshgrid((np.arange(beams) + 0.5) / beams, (np.arange(depths) + 0.5) / depths)
    x, y = to_frame(cone, beam, depth)
    picture = cv2.remap(
        image,
        (x - 0.5).astype(np.float32),
        (y - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return np.asarray(picture, np.uint8)


def from_polar(polar: Pixels, cone: Cone, height: int, width: int) -> Pixels:
    """The inverse of `to_polar`.

    Args:
        polar: uint8 (depths, beams) or (depths, beams, 3).
        cone: as given to `to_polar`.
        height, width: of the frame, px.

    Returns:
        uint8 (height, width) or (height, width, 3); 0 outside the scan area.

    Raises:
        ValueError: as in `to_polar`.
    """
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    beam, depth = to_beams(cone, x, y)
    depths, beams = polar.shape[:2]
    columns, rows = (beam * beams - 0.5).astype(np.float32), (depth * depths - 0.5).astype(np.float32)
    picture = np.asarray(cv2.remap(polar, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    picture[~raster(cone, height, width)] = 0
    return picture


def to_frame(cone: Cone, beam: Reals, depth: Reals) -> tuple[Reals, Reals]:
    """Pixels (x, y) of places in beam space.

    Args:
        cone: one scan area with parameters.
        beam, depth: from 0 (left, near) to 1 (right, far), of one shape.

    Raises:
        ValueError: the cone has no parameters.
    """
    p = _parameters(cone)
    if "apex_x" in p:
        angle = p["angle_left"] + beam * (p["angle_right"] - p["angle_left"])
        radius = p["radius_near"] + depth * (p["radius_far"] - p["radius_near"])
        return p["apex_x"] + radius * np.sin(angle), p["apex_y"] + _down(cone) * radius * np.cos(angle)
    left, right = _sides(cone, depth)
    return left + beam * (right - left), p["top_y"] + depth * (p["bottom_y"] - p["top_y"])


def to_beams(cone: Cone, x: Reals, y: Reals) -> tuple[Reals, Reals]:
    """Places (beam, depth) of pixels, the inverse of `to_frame`; outside [0, 1] for pixels outside the scan area.

    Raises:
        ValueError: the cone has no parameters.
    """
    p = _parameters(cone)
    if "apex_x" in p:
        dx, dy = x - p["apex_x"], _down(cone) * (y - p["apex_y"])
        beam = (np.arctan2(dx, dy) - p["angle_left"]) / (p["angle_right"] - p["angle_left"])
        return beam, (np.hypot(dx, dy) - p["radius_near"]) / (p["radius_far"] - p["radius_near"])
    depth = (y - p["top_y"]) / (p["bottom_y"] - p["top_y"])
    left, right = _sides(cone, depth)
    return (x - left) / (right - left), depth


def _parameters(cone: Cone) -> dict[str, float]:
    if cone.panels or not cone.parameters:
        raise ValueError(f"Expected one scan area with parameters, got geometry {cone.geometry!r}")
    return dict(cone.parameters)


def _down(cone: Cone) -> float:
    return -1.0 if cone.parameters.get("inverted") else 1.0


def _sides(cone: Cone, depth: Reals) -> tuple[Reals, Reals]:
    p = cone.parameters
    left = p["top_left_x"] + depth * (p["bottom_left_x"] - p["top_left_x"])
    return left, p["top_right_x"] + depth * (p["bottom_right_x"] - p["top_right_x"])
