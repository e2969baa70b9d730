"""JPEG, strictly: a header read first, a picture only from a whole and clean scan, grey without paying for colour.

libjpeg turns damage into warnings and returns what it has; here every warning refuses the picture. The entropy-coded
data has no checksum, so damage that decodes to a valid stream cannot be seen by any decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

from openus_data.decode import exif, grey
from openus_data.decode.limits import Limits, check_frame
from openus_data.decode.source import guard
from openus_data.errors import DecodeError, DecodeLimit, UnsupportedFormat
from openus_data.records import Pixels

MAX_SCANS = 200
_LONE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """What the markers before the first scan say.

    Args:
        height, width: in pixels.
        components: 1 grey, 3 colour, 4 CMYK.
        precision: bits per sample.
        lossless: predictive (process 14), not DCT.
        orientation: EXIF, 1 to 8.
        adobe: the transform of an Adobe marker (0 none, 1 YCbCr, 2 YCCK), or None.
        jfif: whether a JFIF marker is there.
        component_ids: as stored, for "RGB" by letters.
    """

    height: int
    width: int
    components: int
    precision: int
    lossless: bool
    orientation: int = 1
    adobe: int | None = None
    jfif: bool = False
    component_ids: bytes = b""

    @property
    def states_its_colours(self) -> bool:
        """Whether the stream itself says if its three components are RGB or YCbCr."""
        return self.adobe is not None or self.jfif or self.component_ids == b"RGB"


def read_header(stream: bytes, *, limits: Limits) -> JpegHeader:
    """Walk the markers up to the first scan.

    Raises:
        DecodeError: not a whole header.
        DecodeLimit: declared size, or number of scans, beyond the limits.
    """
    frame: tuple[int, int, int, int, bool, bytes] | None = None
    turned, adobe, jfif, place = 1, None, False, 2
    while True:
        marker, body, place = _segment(stream, place)
        if marker == 0xDA:
            break
        if marker in _FRAMES and frame is None:
            frame = _frame(marker, body)
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            turned = exif.orientation(body[6:])
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
    if frame is None:
        raise DecodeError("JPEG without a frame header", next_step="fetch the file again")
    if stream.count(b"\xff\xda", place) > MAX_SCANS:
        raise DecodeLimit("JPEG with too many scans", expected=f"at most {MAX_SCANS}")
    height, width, components, precision, lossless, ids = frame
    check_frame(height, width, samples=components, limits=limits)
    return JpegHeader(
        height=height,
        width=width,
        components=components,
        precision=precision,
        lossless=lossless,
        orientation=turned,
        adobe=adobe,
        jfif=jfif,
        component_ids=ids,
    )


def _segment(stream: bytes, place: int) -> tuple[int, bytes, int]:
    """The marker at `place`, its body, and where the next one starts."""
    while (
        place + 1 < len(stream) and stream[place] == 0xFF and (stream[place + 1] in _LONE or stream[place + 1] == 0xFF)
    ):
        place += 1 if stream[place + 1] == 0xFF else 2
    if place + 4 > len(stream) or stream[place] != 0xFF:
        raise DecodeError("JPEG header cut short or damaged", next_step="fetch the file again")
    (length,) = struct.unpack_from(">H", stream, place + 2)
    end = place + 2 + length
    if length < 2 or end > len(stream):
        raise DecodeError("JPEG header cut short or damaged", next_step="fetch the file again")
    return stream[place + 1], stream[place + 4 : end], end


def _frame(marker: int, body: bytes) -> tuple[int, int, int, int, bool, bytes]:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise DecodeError("JPEG header cut short or damaged", next_step="fetch the file again")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    ids = bytes(body[6 + 3 * index] for index in range(components))
    return height, width, components, precision, marker in _LOSSLESS, ids


def as_rgb_stream(stream: bytes) -> bytes:
    """The same stream, marked as holding RGB: for DICOM, whose header says it where the stream does not."""
    return stream[:2] + _ADOBE_RGB + stream[2:]


def decode_stream(stream: bytes, header: JpegHeader, *, expect_colour: bool = False) -> Pixels:
    """Decode one lossy 8-bit JPEG wholly.

    Args:
        stream: from SOI to EOI.
        header: of this stream.
        expect_colour: skip the quick look at the chroma (the frame before had colour).

    Returns:
        (H, W) when grey, else (H, W, 3) RGB.

    Raises:
        DecodeError: a damaged or cut scan.
        UnsupportedFormat: 12-bit, lossless, or an odd number of components.
    """
    if header.precision != 8 or header.lossless:
        kind = "lossless" if header.lossless else f"{header.precision}-bit"
        raise UnsupportedFormat("JPEG of a kind that is not read", expected="8-bit DCT", got=kind)
    with guard("JPEG scan is damaged or cut short"):
        if header.components == 1:
            return _exact(simplejpeg.decode_jpeg(stream, "GRAY")[..., 0], header)
        if header.components == 4:
            return grey.collapse(_from_cmyk(_exact(simplejpeg.decode_jpeg(stream, "CMYK"), header), header))
        if header.components != 3:
            raise UnsupportedFormat("JPEG of a kind that is not read", got=f"{header.components} components")
        if not expect_colour and not _hints_at_colour(stream):
            return _exact(simplejpeg.decode_jpeg(stream, "GRAY")[..., 0], header)
        return grey.collapse(_exact(simplejpeg.decode_jpeg(stream, "RGB"), header))


def _hints_at_colour(stream: bytes) -> bool:
    """Whether any 8x8 block's mean has a tint: an eighth of the size costs half of a grey decode."""
    small = simplejpeg.decode_jpeg(stream, "RGB", min_height=1, min_width=1, min_factor=8)
    spread = small.max(axis=2) - small.min(axis=2) if small.size < 3000 else _spread(small)
    return bool(spread.max() > _BLOCK_TINT)


_BLOCK_TINT = 4


def _spread(rgb: Pixels) -> Pixels:
    first, second, third = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.maximum(np.maximum(first, second), third) - np.minimum(np.minimum(first, second), third)


def _exact(pixels: Pixels, header: JpegHeader) -> Pixels:
    if pixels.shape[:2] != (header.height, header.width):
        raise DecodeError("JPEG size disagrees with its header", expected=f"{header.height}x{header.width}")
    return pixels


def _from_cmyk(cmyk: Pixels, header: JpegHeader) -> Pixels:
    """(H, W, 4) to RGB by R = C K / 255, with Adobe's inverted inks as they are and others inverted first."""
    inks = cmyk if header.adobe is not None else 255 - cmyk
    product = inks[..., :3].astype(np.uint16) * inks[..., 3:].astype(np.uint16)
    return ((product + 127) // 255).astype(np.uint8)
