"""Pixels to the bytes of a stored image, and back.

PNG goes to OpenCV without options: naming a level switches its fast run-length strategy off and made speckle both
slower and larger (docs/explain/build.md has the figures).

    suffix, data = encode(pixels, codec="png")
"""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np

from openus_data.errors import DecodeError
from openus_data.records import Pixels

Codec = Literal["png", "jpeg", "webp", "passthrough"]
CODECS: Final[tuple[Codec, ...]] = ("png", "jpeg", "webp", "passthrough")
CHANGING: Final = frozenset({"jpeg", "webp"})
"""Codecs that give other pixels back, or, as WebP does with grey, another number of channels."""


def encode(pixels: Pixels, *, codec: Codec, quality: int = 95) -> tuple[str, bytes]:
    """Encode one image.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        codec: "png" and "webp" are lossless; "passthrough" falls back to PNG for pixels that were changed.
        quality: of JPEG, 1 to 100; colour is stored without chroma subsampling.

    Returns:
        The member's suffix (one of schema.IMAGE_SUFFIXES) and the bytes.
    """
    drawable = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if codec == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if pixels.ndim == 3:
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        return "jpg", _run(".jpg", drawable, options)
    if codec == "webp":
        return "webp", _run(".webp", drawable, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return "png", encode_png(pixels)


def encode_png(pixels: Pixels) -> bytes:
    """Encode losslessly; also used for masks."""
    return _run(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [])


def decode_stored(data: bytes) -> Pixels:
    """Decode a stored member: uint8 (H, W) or (H, W, 3) RGB.

    Raises:
        DecodeError: the bytes are not an image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.dtype != np.uint8:
        raise DecodeError("not a stored image")
    return np.asarray(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _run(suffix: str, image: Pixels, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, image, options)
    if not done:
        raise DecodeError(f"cannot encode as {suffix[1:]}", got=f"an image of {image.shape[1]}x{image.shape[0]}")
    return bytes(buffer)
