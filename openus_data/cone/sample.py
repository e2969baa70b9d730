"""The picture read at points, many at once."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Grey
from openus_data.cone.outline import Polygon

MOST_SIDE_PX = 2**15 - 2
"""OpenCV reads no larger pictures at points."""
_HALF = np.float32(0.4995)
"""Pixel i covers [i, i + 1); a little less than a half, so that its first point is its own."""


def levels_at(
    picture: Grey, x: NDArray[np.float32], y: NDArray[np.float32], *, border: int = cv2.BORDER_CONSTANT
) -> Grey:
    """Levels (N, M) of a picture (H, W) at points x, y (N, M) in px; 0 beyond the frame, or what `border` says."""
    found: Grey = cv2.remap(picture, x - _HALF, y - _HALF, cv2.INTER_NEAREST, borderMode=border)
    return found


def levels_along(picture: Grey, start: Polygon, way: Polygon, steps: NDArray[np.float32]) -> Grey:
    """Levels (N, M) of a picture (H, W) at `start` + `steps` (M,) times `way`, both (N, 2) px; 0 beyond the frame."""
    first = start.T.astype(np.float32)[:, :, None] - _HALF
    at = first + way.T.astype(np.float32)[:, :, None] * steps
    found: Grey = cv2.remap(picture, at[0], at[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return found
