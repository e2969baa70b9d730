"""EXIF orientation, all that is read of EXIF: it is applied, since shards carry no EXIF that could say it later."""

from __future__ import annotations

import struct

import numpy as np

from openus_data.records import Pixels

ORIENTATION_TAG = 0x0112


def orientation(tiff_bytes: bytes) -> int:
    """The orientation of an EXIF block (without its "Exif" prefix), 1 where it is absent or makes no sense."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff_bytes[:4])
    if order is None or len(tiff_bytes) < 10:
        return 1
    (first,) = struct.unpack_from(order + "I", tiff_bytes, 4)
    if first + 2 > len(tiff_bytes):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff_bytes, first)
    for place in range(first + 2, min(first + 2 + 12 * entries, len(tiff_bytes) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff_bytes, place)
        if tag == ORIENTATION_TAG and kind == 3 and count == 1:
            (value,) = struct.unpack_from(order + "H", tiff_bytes, place + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(pixels: Pixels, value: int) -> Pixels:
    """Turn a picture, (H, W) or (H, W, 3), as orientation 1 to 8 says (TIFF 6.0, tag 274)."""
    if value in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
