"""From pixels to a scan area: `detect`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import box_polygon, frame_polygon, make_cone, no_cone
from openus_data.records import Cone, Region


def detect(frames: NDArray[np.uint8], *, regions: Sequence[Region] = (), prior: Cone | None = None) -> Cone:
    """Find the scan area of a picture or a clip.

    Args:
        frames: uint8 (H, W), (H, W, 3), (T, H, W) or (T, H, W, 3).
        regions: DICOM ultrasound regions of the frame.
        prior: scan area known for this device and frame size, for example of `Consensus`.

    Returns:
        The scan area, in pixels of the frame.
    """
    grey = _brightest(frames)
    height, width = grey.shape
    boxes = [r.box for r in regions if r.spatial_format == 1 and r.data_type in (1, 2)]
    if boxes:
        keep = np.zeros_like(grey)
        for x0, y0, x1, y1 in boxes:
            keep[y0:y1, x0:x1] = 255
        grey = cv2.bitwise_and(grey, keep)
    solid = cv2.morphologyEx((grey > 12).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2 or stats[1:, cv2.CC_STAT_AREA].max() < 0.01 * grey.size:
        return prior if prior else no_cone("image")
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    hull = cv2.convexHull(cv2.findNonZero((labels == best).astype(np.uint8)))[:, 0].astype(np.float64) + 0.5
    if boxes and len(boxes) == 1:
        hull_area = cv2.contourArea(hull.astype(np.float32))
        x0, y0, x1, y1 = boxes[0]
        if hull_area < 0.3 * (x1 - x0) * (y1 - y0):
            return make_cone(
                "linear", box_polygon(boxes[0]), height=height, width=width, confidence=0.4, method="regions"
            )
    if stats[best, cv2.CC_STAT_AREA] > 0.95 * grey.size:
        return make_cone(
            "full", frame_polygon(height, width), height=height, width=width, confidence=0.7, method="image"
        )
    method = "regions+image" if boxes else "image"
    return make_cone("trapezoid", hull, height=height, width=width, confidence=0.4, method=method)


def _brightest(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colour = frames.shape[-1] == 3 and frames.ndim > 2
    grey = frames.max(axis=-1) if colour else frames
    brightest: NDArray[np.uint8] = grey.max(axis=0) if grey.ndim == 3 else grey
    return brightest
