"""A clip as two pictures: the brightest each pixel gets, and how much it changes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Grey

_FRAMES = 8


def project(frames: NDArray[np.uint8]) -> tuple[Grey, Grey | None]:
    """Brightness and spread over time of a picture or a clip.

    Args:
        frames: uint8 (H, W), (H, W, 3), (T, H, W) or (T, H, W, 3); up to eight frames, evenly apart, are looked at.

    Returns:
        uint8 (H, W), the maximum over time; and maximum less minimum, or None for a single picture.

    Raises:
        ValueError: another type or number of axes.
    """
    if frames.dtype != np.uint8 or frames.ndim not in (2, 3, 4):
        raise ValueError(f"Expected uint8 frames of 2 to 4 axes, got {frames.dtype} of {frames.ndim}")
    if frames.ndim == 2 or (frames.ndim == 3 and frames.shape[2] == 3):
        return _grey(frames), None
    count = len(frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(np.intp))
    highest = lowest = _grey(frames[chosen[0]])
    for index in chosen[1:]:
        grey = _grey(frames[index])
        highest, lowest = cv2.max(highest, grey), cv2.min(lowest, grey)
    return highest, (cv2.subtract(highest, lowest) if len(chosen) > 1 else None)


def _grey(frame: NDArray[np.uint8]) -> Grey:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else np.ascontiguousarray(frame)
