"""A clip as two pictures: the brightest each pixel gets, and how much it changes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Grey

_FRAMES = 8
_CHANNELS = (3, 4)
Frames = NDArray[np.uint8] | NDArray[np.floating]


def project(frames: Frames) -> tuple[Grey, Grey | None]:
    """Brightness and spread over time of a picture or a clip.

    Args:
        frames: (H, W), (H, W, 3 or 4), (T, H, W) or (T, H, W, 3 or 4), uint8 or real numbers, for example in [0, 1];
            up to eight frames, evenly apart, are looked at, and a fourth channel (alpha) is not.

    Returns:
        uint8 (H, W), the maximum over time; and maximum less minimum, or None for a single picture.

    Raises:
        ValueError: another type or number of axes.
    """
    if not (frames.dtype == np.uint8 or np.issubdtype(frames.dtype, np.floating)) or frames.ndim not in (2, 3, 4):
        raise ValueError(f"Expected uint8 frames of 2 to 4 axes, got {frames.dtype} of {frames.ndim}")
    scale = _scale(frames)
    if frames.ndim == 2 or (frames.ndim == 3 and frames.shape[2] in _CHANNELS):
        return _grey(frames, scale), None
    count = len(frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(np.intp))
    highest = lowest = _grey(frames[chosen[0]], scale)
    for index in chosen[1:]:
        grey = _grey(frames[index], scale)
        highest, lowest = cv2.max(highest, grey), cv2.min(lowest, grey)
    return highest, (cv2.subtract(highest, lowest) if len(chosen) > 1 else None)


def _scale(frames: Frames) -> float:
    """What one unit is of 255 levels: real numbers up to 1 are taken for shares of white."""
    shares = frames.dtype != np.uint8 and frames.size and float(frames.max()) <= 1.0
    return 255.0 if shares else 1.0


def _grey(frame: Frames, scale: float) -> Grey:
    """A frame (H, W) or (H, W, 3 or 4) as levels (H, W)."""
    levels = frame if frame.dtype == np.uint8 else np.clip(np.nan_to_num(frame) * scale, 0, 255).round()
    pixels = np.ascontiguousarray(levels, np.uint8)
    if pixels.ndim == 2:
        return pixels
    grey: Grey = cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_RGB2GRAY)
    return grey
