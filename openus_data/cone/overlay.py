"""A picture with its scan area and words drawn on it, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from openus_data.records import Cone, Pixels, TextBox

_OUTLINE, _UNSURE, _TEXT = (0, 220, 90), (255, 170, 0), (230, 40, 60)
_SURE = 0.5


def draw(pixels: Pixels, cone: Cone, text_boxes: Iterable[TextBox] = ()) -> Pixels:
    """A copy with the outline (green; orange below a confidence of 0.5) and the boxes of words (red).

    Args:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        cone: what to outline; every panel of a `multi`.
        text_boxes: words.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    picture = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels.copy()
    thick = max(1, round(max(picture.shape[:2]) / 500))
    colour = _OUTLINE if cone.confidence >= _SURE else _UNSURE
    for part in cone.panels or (cone,):
        if part.polygon:
            points = np.round(np.array(part.polygon) - 0.5).astype(np.int32)
            cv2.polylines(picture, [points], True, colour, thick, cv2.LINE_AA)
    for text in text_boxes:
        x0, y0, x1, y1 = text.box
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), _TEXT, thick)
    label = f"{cone.geometry} {cone.confidence:.2f} {cone.method}"
    size = max(0.35, picture.shape[0] / 1200)
    cv2.putText(picture, label, (4, picture.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
    drawn: Pixels = picture
    return drawn
