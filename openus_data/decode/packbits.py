"""PackBits at the speed of C: the packed bytes get a TIFF header around them and go to OpenCV's libtiff.

DICOM's RLE (PS3.5 annex G) packs each byte plane this way, and so does TIFF's compression 32773.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.decode.source import guard
from openus_data.errors import DecodeError

_LONG, _SHORT = 4, 3
_ENTRIES = 9
_DATA_AT = 8 + 2 + 12 * _ENTRIES + 4


def unpack(packed: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Unpack one plane.

    Args:
        packed: PackBits; what follows the last sample is ignored.
        height, width: of the plane, already checked against the limits.

    Returns:
        uint8 (height, width).

    Raises:
        DecodeError: the bytes do not give a whole plane.
    """
    fields = (
        (256, _LONG, width),
        (257, _LONG, height),
        (258, _SHORT, 8),
        (259, _SHORT, 32773),
        (262, _SHORT, 1),
        (273, _LONG, _DATA_AT),
        (277, _SHORT, 1),
        (278, _LONG, height),
        (279, _LONG, len(packed)),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    file = b"II*\0\x08\0\0\0" + struct.pack("<H", _ENTRIES) + entries + bytes(4) + packed
    with guard("RLE frame is damaged"):
        plane: NDArray[Any] | None = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if plane is None or plane.shape != (height, width):
        raise DecodeError("RLE frame cut short or damaged", expected=f"{height * width:,} bytes a plane")
    return plane
