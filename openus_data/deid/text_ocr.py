"""A closer look at what the gate proposes, by the text detector of the `[ocr]` extra (PP-OCR, models in its wheel).

    boxes = confirmed(pixels, boxes, likely=0.3, sure=0.8)

Only the detector runs, on small crops: nothing is read, and what stands there is never held as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.errors import MissingExtra
from openus_data.records import Box, Pixels, TextBox

_AROUND_PX: Final = 24
_SMALL_PX: Final = 22
"""A line up to this tall is shown to the detector at twice its size."""
_MOST_CROPS: Final = 12
"""Crops a picture: the rest keeps the gate's word, so that a still costs a bounded time."""


def confirmed(pixels: Pixels, boxes: Sequence[TextBox], *, likely: float, sure: float) -> list[TextBox]:
    """Boxes after a closer look, the most likely first.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: what the gate proposes, the most likely first.
        likely: score from which a box that was not looked at is kept.
        sure: score from which a box is kept without the detector's agreement.

    Raises:
        MissingExtra: the extra is not installed.
    """
    detector = _detector()
    kept = []
    for number, found in enumerate(boxes):
        if number >= _MOST_CROPS:
            kept += [found] if found.score >= likely else []
            continue
        seen = [box for box in _look(detector, pixels, found.box) if _share(box, found.box) > 0.3]
        if seen:
            kept.append(TextBox(box=_union([found.box, *seen], pixels.shape), score=1.0, detector="ocr"))
        elif found.score >= sure:
            kept.append(found)
    return kept


def _look(detector: Any, pixels: Pixels, box: Box) -> list[Box]:
    """Boxes that the detector finds around a box, in pixels of the picture."""
    x0, y0, x1, y1 = box
    x, y = max(0, x0 - _AROUND_PX), max(0, y0 - _AROUND_PX)
    crop = pixels[y : y1 + _AROUND_PX, x : x1 + _AROUND_PX]
    if crop.ndim == 2:
        crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
    factor = 2 if y1 - y0 <= _SMALL_PX else 1
    shown = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    quads, _ = detector(shown)
    if quads is None or not len(quads):
        return []
    corners: NDArray[np.float64] = np.asarray(quads, np.float64) / factor
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    return [
        (int(a) + x, int(b) + y, int(c) + x, int(d) + y)
        for (a, b), (c, d) in zip(low.tolist(), high.tolist(), strict=True)
    ]


def _share(one: Box, other: Box) -> float:
    """Common area as a part of the smaller box."""
    width, height = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return max(0, width) * max(0, height) / max(1, min(areas))


def _union(boxes: list[Box], shape: tuple[int, ...]) -> Box:
    sides = np.asarray(boxes)
    (x0, y0), (x1, y1) = sides[:, :2].min(axis=0).tolist(), sides[:, 2:].max(axis=0).tolist()
    return max(0, x0), max(0, y0), min(shape[1], x1), min(shape[0], y1)


@cache
def _detector() -> Any:
    """The detector alone, on one thread, without enlarging small crops."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        raise MissingExtra("the OCR detector is not installed", next_step="pip install 'openus[ocr]'") from None
    whole = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, det_limit_side_len=32, det_limit_type="min")
    return whole.text_det
