"""A closer look at what the gate proposes, by the text detector of the `[ocr]` extra (PP-OCR, models in its wheel).

    boxes = confirmed(pixels, boxes, lines, likely=0.5, sure=0.8)

Only the detector runs, on small crops: nothing is read, and what stands there is never held as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.errors import MissingExtra
from openus_data.records import Box, Pixels, TextBox

_AROUND_PX: Final = 24
_SMALL_PX: Final = 22
"""A line up to this tall is shown to the detector at twice its size, and then at four times."""
_CLOSELY_AROUND_PX: Final = 12
_CLOSER_PX: Final = 200_000
"""Pixels a picture that are shown at the closer looks, after enlarging: about 50 ms."""
_CONTRAST: Final = (2.0, 99.5)
"""Percentiles of a crop that are black and white at the closer look."""
_WORTH: Final = 0.1
"""Score from which a box in which nothing is seen gets a closer look."""
_IN_BOX: Final = 0.3
"""Least part of the smaller one that what the detector sees shares with a box."""
_MARGIN: Final = 0.5
"""Room around what the detector sees, as a part of its height, that stays the gate's."""
_MOST_CROPS: Final = 12
"""Crops a picture: the rest keeps the gate's word, so that a still costs a bounded time."""


class _Crop(NamedTuple):
    """A part of a picture and its corner."""

    pixels: Pixels
    x: int
    y: int


def confirmed(
    pixels: Pixels, boxes: Sequence[TextBox], lines: NDArray[np.int64], *, likely: float, sure: float
) -> list[TextBox]:
    """Boxes after a closer look, the most likely first.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: what the gate proposes, the most likely first.
        lines: half-open boxes of lines that are likely by themselves, int (N, 4): no part of them is left out.
        likely: score from which a box is kept that was not looked at, or whose row goes on in what the detector saw.
        sure: score from which a box is kept without the detector's agreement.

    Raises:
        MissingExtra: the extra is not installed.
    """
    detector = _detector()
    looked_at, others = boxes[:_MOST_CROPS], boxes[_MOST_CROPS:]
    seen = _seen(detector, pixels, looked_at)
    texts = [found.box for found, mine in zip(looked_at, seen, strict=True) if mine]
    kept = []
    for found, mine in zip(looked_at, seen, strict=True):
        if mine:
            kept.append(TextBox(box=_tight(found.box, mine, lines, pixels.shape), score=1.0, detector="ocr"))
        elif found.score >= sure:
            kept.append(found)
        elif found.score >= likely and any(_share(found.box, text) for text in texts):
            kept.append(replace(found, box=_tight(found.box, [], lines, pixels.shape)))
    return kept + [found for found in others if found.score >= likely]


def _tight(box: Box, seen: list[Box], lines: NDArray[np.int64], shape: tuple[int, ...]) -> Box:
    """What the detector saw in a gate's box, some of the box around it, and the likely lines in the box.

    The rest of the box is what the gate took for more letters beside them: mostly a layer of tissue.
    """
    parts = [line for line in (_box(row) for row in lines) if _share(line, box) > _IN_BOX]
    if seen:
        whole = _union(seen, shape)
        margin = round(_MARGIN * (whole[3] - whole[1]))
        x0, y0, x1, y1 = (side + step for side, step in zip(whole, (-margin, -margin, margin, margin), strict=True))
        parts += [whole, (max(box[0], x0), max(box[1], y0), min(box[2], x1), min(box[3], y1))]
    return _union(parts, shape) if parts else box


def _box(row: NDArray[np.int64]) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return x0, y0, x1, y1


def _seen(detector: Any, pixels: Pixels, boxes: Sequence[TextBox]) -> list[list[Box]]:
    """What the detector finds in each box and not just near it; it looks twice where the first look sees nothing."""
    seen = [_in_box(_look(detector, pixels, found.box), found.box) for found in boxes]
    left = _CLOSER_PX
    for number, found in enumerate(boxes):
        crop = _crop(pixels, found.box, _CLOSELY_AROUND_PX)
        factor = 4 if _is_small(found.box) else 3
        shown = crop.pixels.shape[0] * crop.pixels.shape[1] * factor**2
        if not seen[number] and found.score >= _WORTH and shown <= left:
            left -= shown
            seen[number] = _in_box(_detected(detector, _clear(crop), factor), found.box)
    return seen


def _in_box(seen: list[Box], box: Box) -> list[Box]:
    return [found for found in seen if _share(found, box) > _IN_BOX]


def _look(detector: Any, pixels: Pixels, box: Box) -> list[Box]:
    """Boxes that the detector finds around a box, in pixels of the picture."""
    return _detected(detector, _crop(pixels, box, _AROUND_PX), 2 if _is_small(box) else 1)


def _is_small(box: Box) -> bool:
    return box[3] - box[1] <= _SMALL_PX


def _crop(pixels: Pixels, box: Box, around: int) -> _Crop:
    x0, y0, x1, y1 = box
    x, y = max(0, x0 - around), max(0, y0 - around)
    return _Crop(pixels[y : y1 + around, x : x1 + around], x, y)


def _clear(crop: _Crop) -> _Crop:
    """The crop's brightest channel with more contrast."""
    level = crop.pixels if crop.pixels.ndim == 2 else crop.pixels.max(axis=2)
    low, high = np.percentile(level, _CONTRAST)
    return crop._replace(pixels=np.clip((level - low) * (255 / max(1.0, high - low)), 0, 255).astype(np.uint8))


def _detected(detector: Any, crop: _Crop, factor: int) -> list[Box]:
    """Boxes that the detector finds in a crop shown at so many times its size, in pixels of the picture."""
    grey = crop.pixels.ndim == 2
    colour = cv2.cvtColor(crop.pixels, cv2.COLOR_GRAY2BGR) if grey else crop.pixels
    quads, _ = detector(cv2.resize(colour, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    if quads is None or not len(quads):
        return []
    corners: NDArray[np.float64] = np.asarray(quads, np.float64) / factor
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    return [
        (int(a) + crop.x, int(b) + crop.y, int(c) + crop.x, int(d) + crop.y)
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
