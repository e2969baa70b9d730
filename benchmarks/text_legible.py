"""Whether a string can still be read: the recogniser of rapidocr on the place where it stood."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from text_scenes import Scene

_ALIKE = 0.6
"""A reading counts from this likeness of letters and digits on."""
_MARGIN_PX = 4


class Reader:
    """Reads strings.

    Args:
        engine: of rapidocr.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @classmethod
    def installed(cls) -> Reader | None:
        """The reader, or None without the `[ocr]` extra."""
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError:
            return None
        return cls(RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1))

    def reads(self, pixels: NDArray[np.uint8], scene: Scene) -> bool:
        """Whether the scene's string is read in the picture, uint8 (H, W) or (H, W, 3)."""
        x0, y0, x1, y1 = scene.box
        crop = pixels[max(0, y0 - _MARGIN_PX) : y1 + _MARGIN_PX, max(0, x0 - _MARGIN_PX) : x1 + _MARGIN_PX]
        crop = crop if crop.ndim == 3 else cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
        larger = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        found, _ = self._engine(larger, use_det=False, use_cls=False, use_rec=True)
        text = "".join(str(line[0]) for line in found or [])
        return SequenceMatcher(None, _plain(text), _plain(scene.text)).ratio() >= _ALIKE


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
