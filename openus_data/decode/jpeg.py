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
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
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
    is_progressive = False
    turned, adobe, jfif, place = 1, None, False, 2
    while True:
        marker, body, place = _segment(stream, place)
        if marker == 0xDA:
            break
        if marker in _FRAMES and frame is None:
            frame, is_progressive = _frame(marker, body), marker in _PROGRESSIVE
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            turned = exif.orientation(body[6:])
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
    if frame is None:
        raise DecodeError("JPEG without a frame header", next_step="fetch the file again")
    height, width, components, precision, lossless, ids = frame
    is_one_scan = not is_progressive and body[:1] == bytes([components])
    if not is_one_scan and stream.count(b"\xff\xda", place) > MAX_SCANS:
        raise DecodeLimit("JPEG with too many scans", expected=f"at most {MAX_SCANS}")
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


def decode_stream(stream: bytes, header: JpegHeader, *, as_grey: bool = False) -> Pixels:
    """Decode one lossy 8-bit JPEG wholly.

    Args:
        stream: from SOI to EOI.
        header: of this stream.
        as_grey: take the luma and leave the chroma out, for less than the price of a colour decode.

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
        if header.components == 1 or (header.components == 3 and as_grey):
            return _exact(simplejpeg.decode_jpeg(stream, "GRAY")[..., 0], header)
        if header.components == 3:
            return grey.collapse(_exact(simplejpeg.decode_jpeg(stream, "RGB"), header))
        if header.components == 4:
            return grey.collapse(_from_cmyk(_exact(simplejpeg.decode_jpeg(stream, "CMYK"), header), header))
    raise UnsupportedFormat("JPEG of a kind that is not read", got=f"{header.components} components")


def has_tint(stream: bytes, header: JpegHeader) -> bool:
    """Whether the mean of any 8x8 block has a tint: a decode at an eighth of the size, for half the price.

    Raises:
        DecodeError: a damaged or cut scan.
    """
    if header.components == 1 or header.lossless or header.precision != 8:
        return False
    if header.components != 3:
        return True
    with guard("JPEG scan is damaged or cut short"):
        small = simplejpeg.decode_jpeg(stream, "RGB", min_height=1, min_width=1, min_factor=8)
    first, second, third = small[..., 0], small[..., 1], small[..., 2]
    spread = np.maximum(np.maximum(first, second), third) - np.minimum(np.minimum(first, second), third)
    return bool(spread.max() > _BLOCK_TINT)


_BLOCK_TINT = 4


def _exact(pixels: Pixels, header: JpegHeader) -> Pixels:
    if pixels.shape[:2] != (header.height, header.width):
        raise DecodeError("JPEG size disagrees with its header", expected=f"{header.height}x{header.width}")
    return pixels


def _from_cmyk(cmyk: Pixels, header: JpegHeader) -> Pixels:
    """(H, W, 4) to RGB by R = C K / 255, with Adobe's inverted inks as they are and others inverted first."""
    inks = cmyk if header.adobe is not None else 255 - cmyk
    product = inks[..., :3].astype(np.uint16) * inks[..., 3:].astype(np.uint16)
    return ((product + 127) // 255).astype(np.uint8)
