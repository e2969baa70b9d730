"""Pixels to bytes of a stored image, and source bytes passed through with nothing but the picture left in them.

PNG goes to OpenCV without options: naming a level switches its fast run-length strategy off and made speckle both
slower and larger (docs/explain/build.md has the figures).

    suffix, data = encode(pixels, codec="png")
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

import cv2
import numpy as np

from openus_data.errors import DecodeError
from openus_data.records import Pixels

Codec = Literal["png", "jpeg", "webp", "passthrough"]
CODECS: Final[tuple[Codec, ...]] = ("png", "jpeg", "webp", "passthrough")
CHANGING: Final = frozenset({"jpeg", "webp"})
"""Codecs that give other pixels back, or, as WebP does with grey, another number of channels."""

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_JPEG_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_SCAN, _JPEG_END, _JPEG_COMMENT, _JPEG_ADOBE = 0xDA, 0xD9, 0xFE, 0xEE


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


def strip_source(data: bytes) -> tuple[str, bytes] | None:
    """The picture of a PNG or JPEG file without anything else: no text, EXIF, XMP, profile, thumbnail, trailing byte.

    Returns:
        Suffix and bytes, or None when the file is of another kind or is not well formed.
    """
    if data.startswith(_PNG_MAGIC):
        kept = _strip_png(data)
        return None if kept is None else ("png", kept)
    if data.startswith(_JPEG_MAGIC):
        kept = _strip_jpeg(data)
        return None if kept is None else ("jpg", kept)
    return None


def _strip_png(data: bytes) -> bytes | None:
    """Keep the chunks that hold the picture, each checked against its CRC (PNG specification, section 5)."""
    kept = [_PNG_MAGIC]
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunk = data[at : at + 12 + length]
        kind, crc = chunk[4:8], chunk[-4:]
        if len(chunk) != 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(crc, "big"):
            return None
        if kind in _PNG_KEPT:
            kept.append(chunk)
        elif kind == b"tRNS":  # transparency changes what is seen
            return None
        if kind == b"IEND":
            return b"".join(kept)
        at += len(chunk)
    return None


def _strip_jpeg(data: bytes) -> bytes | None:
    """Keep tables, frame and scans; drop APPn but Adobe's colour flag, and comments (ITU-T T.81, annex B)."""
    kept = [data[:2]]
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _JPEG_END:
            return None if len(kept) == 1 else b"".join([*kept, b"\xff\xd9"])
        if marker in _JPEG_STANDALONE:
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _JPEG_SCAN:
            end = _end_of_scan(data, end)
        if end > len(data):
            return None
        is_metadata = 0xE0 <= marker <= 0xEF or marker == _JPEG_COMMENT
        if not is_metadata or (marker == _JPEG_ADOBE and data[at + 4 : at + 9] == b"Adobe"):
            kept.append(data[at:end])
        at = end
    if data[at : at + 2] == b"\xff\xd9":
        return b"".join([*kept, b"\xff\xd9"])
    return None


def _end_of_scan(data: bytes, start: int) -> int:
    """Offset of the first marker behind the entropy-coded data that starts at `start`."""
    at = start
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data) + 1
        if data[at + 1] == 0x00 or data[at + 1] in _JPEG_STANDALONE:
            at += 2
            continue
        return at


def _run(suffix: str, image: Pixels, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, image, options)
    if not done:
        raise DecodeError(f"cannot encode as {suffix[1:]}", got=f"an image of {image.shape[1]}x{image.shape[0]}")
    return bytes(buffer)
