"""A crop in beam space: depth down, beam across, for `image.view: polar`.

    view = plan_polar(crop)
    stored = cut_polar(cut(frame, crop), view)
    frame_again = from_polar(stored, crop.cone, height, width)

The grid is as fine as the frame everywhere: a row a pixel of depth, a column a pixel across at the widest end, so that
the way there and back loses no more than two interpolations do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.polar import to_beams, to_frame
from openus_data.first_stage.crop import Crop
from openus_data.records import Cone, Pixels, TextBox

MOST_SIDE: Final = 2048
"""Bound on depths and beams, so that no shape costs more than 200 MB; a frame of 1920 x 1440 seldom reaches it."""
_BOX_STEPS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class PolarView:
    """Where every pixel of the picture in beam space comes from.

    Args:
        cone: the scan area, in pixels of the crop.
        x, y: float32 (depths, beams), pixel centres in the crop, as `cv2.remap` counts them.
    """

    cone: Cone
    x: NDArray[np.float32] = field(repr=False)
    y: NDArray[np.float32] = field(repr=False)

    @property
    def polygon(self) -> tuple[tuple[float, float], ...]:
        """The outline: the whole picture, clockwise."""
        depths, beams = self.x.shape
        return (0.0, 0.0), (float(beams), 0.0), (float(beams), float(depths)), (0.0, float(depths))


def plan_polar(crop: Crop, *, least_confidence: float = 0.0) -> PolarView | None:
    """The way of a crop to beam space, or None where its scan area gives none.

    Args:
        crop: one crop of a frame.
        least_confidence: an outline less certain than this is not resampled.
    """
    cone = crop.cone
    is_known = (
        cone.parameters and not cone.panels and cone.geometry != "full"
    )  # who crops to tissue cuts beams anywhere
    if not is_known or cone.confidence < least_confidence:
        return None
    here = _shifted(cone, crop.box[0], crop.box[1])
    depths, beams = _size(cone)
    beam, depth = np.meshgrid((np.arange(beams) + 0.5) / beams, (np.arange(depths) + 0.5) / depths)
    x, y = to_frame(here, beam, depth)
    return PolarView(cone=here, x=(x - 0.5).astype(np.float32), y=(y - 0.5).astype(np.float32))


def cut_polar(picture: Pixels, view: PolarView) -> Pixels:
    """A crop, uint8 (h, w) or (h, w, 3), in beam space; 0 where the frame cuts the scan area."""
    return np.asarray(cv2.remap(picture, view.x, view.y, cv2.INTER_LINEAR), np.uint8)


def cut_polar_mask(mask: Pixels, view: PolarView) -> Pixels:
    """The same of a mask, uint8 (h, w): the nearest label, since labels have no mean."""
    return np.asarray(cv2.remap(mask, view.x, view.y, cv2.INTER_NEAREST), np.uint8)


def polar_boxes(boxes: tuple[TextBox, ...], view: PolarView) -> tuple[TextBox, ...]:
    """Boxes round where boxes of the crop come to lie in beam space; those outside the scan area are left out."""
    depths, beams = view.x.shape
    found = []
    for text in boxes:
        across, down = (np.linspace(text.box[i], text.box[i + 2], _BOX_STEPS) for i in (0, 1))
        beam, depth = to_beams(view.cone, *np.meshgrid(across, down))
        left, right = (
            int(v) for v in np.clip((math.floor(beam.min() * beams), math.ceil(beam.max() * beams)), 0, beams)
        )
        top, bottom = (
            int(v) for v in np.clip((math.floor(depth.min() * depths), math.ceil(depth.max() * depths)), 0, depths)
        )
        if left < right and top < bottom:
            found.append(replace(text, box=(left, top, right, bottom)))
    return tuple(found)


def _shifted(cone: Cone, x: int, y: int) -> Cone:
    """The same scan area in pixels of the crop that begins at (x, y)."""
    offset = {"x": x, "y": y}
    moved = {name: value - offset.get(name.rpartition("_")[2], 0) for name, value in cone.parameters.items()}
    return replace(cone, parameters=moved)


def _size(cone: Cone) -> tuple[int, int]:
    """Depths and beams: a sample a pixel along a beam, and across where beams lie furthest apart."""
    p = cone.parameters
    if "apex_x" in p:
        depth = p["radius_far"] - p["radius_near"]
        across = (p["angle_right"] - p["angle_left"]) * p["radius_far"]
    else:
        depth = p["bottom_y"] - p["top_y"]
        across = max(p["top_right_x"] - p["top_left_x"], p["bottom_right_x"] - p["bottom_left_x"])
    return _bounded(depth), _bounded(across)


def _bounded(length: float) -> int:
    return min(MOST_SIDE, max(1, math.ceil(abs(length))))
