"""From a frame and its cone to the stored picture: cut to the box, black outside the scan area, grey where it is grey.

crops = plan_crops(cone, height, width)
stored = cut(frame, crops[0])
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data import cone as cones
from openus_data.records import Box, Cone, Pixels, TextBox

GREY_TOLERANCE: Final = 6
"""Levels by which the channels of a grey picture may differ: what chroma rounding of JPEG and video leaves."""
_PROBE_STEP: Final = 7
_PARTS: Final = 64

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """One stored picture's part of a frame.

    Args:
        cone: the scan area, in pixels of the frame.
        polygon: its outline in pixels of the stored picture.
        box: half-open box of the frame that is stored.
        panel: number of the panel in a frame that shows several, else 0.
        inside: uint8 (H, W) of the box, 1 inside the scan area, else 0; None where nothing is blackened.
        frame_px: pixels of the whole frame.
    """

    cone: Cone
    polygon: Polygon
    box: Box
    panel: int
    inside: Pixels | None = field(repr=False)
    frame_px: int

    @property
    def inside_bool(self) -> NDArray[np.bool_] | None:
        """The scan area as bool (H, W) of the stored picture; None where it fills it."""
        return None if self.inside is None else self.inside.view(np.bool_)

    @property
    def area_px(self) -> int:
        """Pixels of the scan area."""
        height, width = self.box[3] - self.box[1], self.box[2] - self.box[0]
        return height * width if self.inside is None else int(cv2.countNonZero(self.inside))


def plan_crops(
    cone: Cone,
    height: int,
    width: int,
    *,
    by_panel: bool = True,
    blacken_outside: bool = True,
    least_confidence: float = 0.0,
) -> tuple[Crop, ...]:
    """What to cut out of frames of (height, width) that show this cone; empty where there is no scan area.

    Args:
        cone: the scan area.
        height, width: of the frame.
        by_panel: one crop a panel where the frame shows several.
        blacken_outside: whether pixels outside the outline become black.
        least_confidence: an outline less certain than this only gives its box.
    """
    parts = cone.panels if by_panel and cone.panels else (cone,)
    crops = []
    for number, part in enumerate(parts):
        x0, y0, x1, y1 = part.box
        box = (max(0, x0), max(0, y0), min(width, x1), min(height, y1))
        if part.geometry == "none" or box[0] >= box[2] or box[1] >= box[3]:
            continue
        shown = _moved(part, -box[0], -box[1])
        inside = None
        if blacken_outside and part.confidence >= least_confidence:
            inside = _inside(shown, box[3] - box[1], box[2] - box[0])
        crops.append(
            Crop(cone=part, polygon=shown.polygon, box=box, panel=number, inside=inside, frame_px=height * width)
        )
    return tuple(crops)


def on_grid(cone: Cone) -> Cone:
    """The same scan area with its vertices in 64ths of a pixel, which float32 and JSON hold alike, in few digits."""
    polygon = tuple((round(x * _PARTS) / _PARTS, round(y * _PARTS) / _PARTS) for x, y in cone.polygon)
    return replace(cone, polygon=polygon, panels=tuple(on_grid(panel) for panel in cone.panels))


def _moved(cone: Cone, x: int, y: int) -> Cone:
    """The outlines of a scan area, and of its panels, so many pixels further right and down."""
    polygon = tuple((left + x, top + y) for left, top in cone.polygon)
    return replace(cone, polygon=polygon, panels=tuple(_moved(panel, x, y) for panel in cone.panels))


def _inside(cone: Cone, height: int, width: int) -> Pixels | None:
    """The scan area of a crop as 0 and 1, (height, width), or None where it fills it."""
    if cone.geometry == "full" and not cone.panels:
        return None
    mask = cones.raster(cone, height, width)
    return None if mask.all() else mask.view(np.uint8)


def cut(pixels: Pixels, crop: Crop) -> Pixels:
    """The stored picture of a frame, uint8 (h, w) or (h, w, 3): cropped, black outside the scan area."""
    x0, y0, x1, y1 = crop.box
    part = pixels[y0:y1, x0:x1]
    if crop.inside is None:
        return np.ascontiguousarray(part)
    return np.asarray(cv2.copyTo(part, crop.inside), dtype=np.uint8)  # zero elsewhere; half the time of a bitwise_and


def cut_mask(mask: Pixels, crop: Crop) -> Pixels:
    """The same crop of a mask; labels outside the scan area stay, since experts may draw over its edge."""
    x0, y0, x1, y1 = crop.box
    return np.ascontiguousarray(mask[y0:y1, x0:x1])


def to_grey_if_grey(pixels: Pixels) -> Pixels:
    """One channel (H, W) where the three of an RGB picture are the same but for rounding, else the picture."""
    if pixels.ndim == 2 or not _is_grey(pixels[::_PROBE_STEP, ::_PROBE_STEP]) or not _is_grey(pixels):
        return pixels
    first = pixels[..., 0]
    exact = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return np.ascontiguousarray(first) if exact else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _is_grey(pixels: Pixels) -> bool:
    channels = [np.ascontiguousarray(pixels[..., c]) for c in range(3)]
    return all(cv2.norm(channels[0], other, cv2.NORM_INF) <= GREY_TOLERANCE for other in channels[1:])


def boxes_in(boxes: tuple[TextBox, ...], crop: Crop) -> list[list[float]]:
    """Text boxes in pixels of the stored picture, cut at its border; those outside are left out."""
    x0, y0, x1, y1 = crop.box
    found = []
    for left, top, right, bottom in (b.box for b in boxes):
        box = [max(left, x0) - x0, max(top, y0) - y0, min(right, x1) - x0, min(bottom, y1) - y0]
        if box[0] < box[2] and box[1] < box[3]:
            found.append([float(v) for v in box])
    return sorted(found)
