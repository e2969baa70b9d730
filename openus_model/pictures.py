"""A user's folder of pictures, for the commands that take `--images`: which files it holds, and the pixels of one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_model.errors import DataError

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def find_pictures(folder: Path, *, next_step: str = "") -> list[Path]:
    """Files anywhere below the folder that have a picture's suffix, by path; at least one.

    Args:
        folder: the user's.
        next_step: said where there is none.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError("no such folder", where="--images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DataError("no picture in the folder", where="--images", expected=", ".join(SUFFIXES), next_step=next_step)
    return found


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """Pixels (H, W, 3) in RGB of an encoded picture, grey ones too; None where these bytes are none."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
