"""From pixels to a scan area: `detect`, which reads as the steps it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from openus_data.cone.classify import to_cone
from openus_data.cone.complete import complete
from openus_data.cone.confidence import REGION_ONLY, confidence
from openus_data.cone.consensus import settle
from openus_data.cone.evidence import Evidence, gather
from openus_data.cone.outline import box_polygon, extent, join, make_cone, no_cone
from openus_data.cone.panels import find_panels
from openus_data.cone.profile import Mask
from openus_data.cone.refine import refine
from openus_data.cone.regions import scan_boxes
from openus_data.cone.sample import MOST_SIDE_PX
from openus_data.cone.search import HAZE_PRICE, Found, is_hazy, search
from openus_data.cone.shape import Fan, Shape, to_frame
from openus_data.cone.temporal import Frames, project
from openus_data.records import Box, Cone, Region

_REACH_CELLS = 2.0
_LEAST_SIDE_PX = 16
_LEAST_PART, _LEAST_EXTENT, _LARGE_PART = 0.02, 0.1, 0.15
_SURE = 0.9
_LEAST_OF_BARS, _LEAST_IN_BARS = 0.3, 0.75


def detect(frames: Frames, *, regions: Sequence[Region] = (), prior: Cone | None = None) -> Cone:
    """Find the scan area of a picture or a clip.

    Args:
        frames: uint8 (H, W), (H, W, 3), (T, H, W) or (T, H, W, 3); alpha is ignored, real numbers become levels.
        regions: DICOM ultrasound regions of the frame.
        prior: scan area known for this device and frame size, for example of `Consensus`.

    Returns:
        The scan area, in pixels of the frame.

    Raises:
        ValueError: frames of another type or number of axes.
    """
    grey, spread = project(frames)
    height, width = grey.shape
    if min(height, width) < _LEAST_SIDE_PX or max(height, width) > MOST_SIDE_PX:
        return no_cone("image")
    boxes = scan_boxes(regions, height, width)
    cone = _look(gather(grey, spread), boxes, "image" if spread is None else "temporal")
    if spread is not None and cone.confidence < _SURE:  # frames of several layouts, perhaps
        for index in ((len(frames) - 1) // 2, 0):  # the first frames may be of a title or of another setting
            single, _ = project(frames[index])
            cone = max(cone, _look(gather(single), boxes, "image"), key=lambda candidate: candidate.confidence)
            if cone.geometry != "none":
                break
    return cone if prior is None else settle(cone, prior, height, width)


def _look(evidence: Evidence, boxes: Sequence[Box], seen: str) -> Cone:
    """The scan area of one picture, in the boxes of its regions or anywhere."""
    height, width = evidence.grey.shape
    if boxes:
        return join([_within(evidence, box, f"regions+{seen}") for box in boxes], height, width)
    single = search(evidence)
    if single is None or _too_small(single, evidence):
        return no_cone(seen)
    between = _between_bars(single, evidence, seen) if is_hazy(single, evidence) else None
    if between is not None:
        return between
    panels = find_panels(evidence, single) or [single]
    return join([_found_cone(panel, evidence, seen) for panel in panels], height, width)


def _between_bars(hazy: Found, evidence: Evidence, seen: str) -> Cone | None:
    """The fan in a frame whose own background is not exact, and which bars of another level make look like a slab."""
    if hazy.score.area < _LEAST_OF_BARS * evidence.level.size:
        return None
    height, width = evidence.grey.shape
    x, y = evidence.scale
    left, top, right, bottom = extent(hazy.outline)
    x0, y0 = max(0, round((left + 1) * x)), max(0, round((top + 1) * y))  # the slab is known to a cell
    x1, y1 = min(width, round((right - 1) * x)), min(height, round((bottom - 1) * y))
    if min(x1 - x0, y1 - y0) < _LEAST_SIDE_PX:
        return None
    inner = gather(np.ascontiguousarray(evidence.grey[y0:y1, x0:x1]))
    found = search(inner)
    if found is None or not isinstance(found.shape, Fan) or found.merit < _LEAST_IN_BARS:
        return None
    shape = _refined(found, inner)
    if not isinstance(shape, Fan):
        return None
    left, top, right, bottom = shape.box
    box = (left + x0, top + y0, right + x0, bottom + y0)
    shape = replace(shape, apex_x=shape.apex_x + x0, apex_y=shape.apex_y + y0, box=box)
    return to_cone(shape, height, width, confidence=confidence(found.merit), method=seen)


def _too_small(found: Found, evidence: Evidence) -> bool:
    """Whether this is a bar or a button rather than a scan area."""
    height, width = evidence.level.shape
    if found.score.area > _LARGE_PART * height * width:
        return False
    x0, y0, x1, y1 = extent(found.outline)
    small: bool = min(x1 - x0, y1 - y0) < _LEAST_EXTENT * min(height, width)
    return small or found.score.area < _LEAST_PART * height * width


def _within(evidence: Evidence, box: Box, method: str) -> Cone:
    """The scan area in a region's box; the box itself where the picture says little."""
    height, width = evidence.grey.shape
    x0, y0, x1, y1 = box
    found = search(evidence, _cells(evidence, box))
    if found is not None:
        cone = _found_cone(found, evidence, method)
        if (cone.box[2] - cone.box[0]) * (cone.box[3] - cone.box[1]) >= 0.4 * (x1 - x0) * (y1 - y0):
            return cone
    return make_cone("linear", box_polygon(box), height=height, width=width, confidence=REGION_ONLY, method="regions")


def _cells(evidence: Evidence, box: Box) -> Mask:
    allowed = np.zeros(evidence.level.shape, np.bool_)
    sx, sy = evidence.scale
    x0, y0, x1, y1 = box
    allowed[int(y0 / sy) : int(np.ceil(y1 / sy)), int(x0 / sx) : int(np.ceil(x1 / sx))] = True
    return allowed


def _found_cone(found: Found, evidence: Evidence, method: str) -> Cone:
    height, width = evidence.grey.shape
    merit = found.merit - HAZE_PRICE * is_hazy(found, evidence)
    return to_cone(_refined(found, evidence), height, width, confidence=confidence(merit), method=method)


def _refined(found: Found, evidence: Evidence) -> Shape:
    """The shape in pixels, on its edges, with what shadow and depth hide."""
    shape = to_frame(found.shape, evidence.level.shape, evidence.scale, evidence.grey.shape)
    shape = refine(shape, evidence.distance, _REACH_CELLS * max(evidence.scale))
    return complete(shape, evidence.distance, faint=not evidence.noisy)
