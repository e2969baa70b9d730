"""Single pictures: PNG, JPEG, BMP, TIFF, WebP.

Sizes come from the header before anything is decoded; chunks of a PNG that are not pixels (text, profiles) never reach
a decoder. One mapping for all: palettes are expanded, alpha is laid over black, CMYK becomes RGB, EXIF orientation is
applied, other types than uint8 follow `tone`, and only the first page of a TIFF or picture of an animation is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.decode import exif, grey, jpeg, tiff
from openus_data.decode.limits import Limits, amount, check_frame
from openus_data.decode.source import Decoder, Options, Source, guard, pick
from openus_data.decode.tone import KEEP, find_tone
from openus_data.errors import DecodeError, UnsupportedFormat
from openus_data.records import Media, Pixels

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}
_BMP_PLAIN = {0, 3, 6}


def still(pixels: Pixels, notes: Sequence[str] = ()) -> Media:
    """A Media of one decoded picture."""

    def read(indices: Sequence[int] | None = None) -> Iterator[tuple[int, Pixels]]:
        for index in pick(indices, 1):
            yield index, pixels

    height, width = pixels.shape[:2]
    return Media(
        kind="still",
        frame_count=1,
        height_px=height,
        width_px=width,
        read=read,
        notes=tuple(note for note in notes if note),
    )


def decode_png(source: Source, options: Options) -> Media:
    """Read a PNG; every chunk's checksum is verified."""
    pixels_only, turned = _png_chunks(source.data[:], options.limits)
    samples = _imdecode(pixels_only, "PNG is damaged or cut short")
    return _finish(samples, turned)


def _png_chunks(data: bytes, limits: Limits) -> tuple[bytes, int]:
    """The PNG with only its pixel chunks, and its orientation."""
    kept: list[bytes] = [PNG_MAGIC]
    turned, place, kind = 1, 8, b""
    while kind != b"IEND":
        if place + 12 > len(data):
            raise DecodeError("PNG cut short", expected="an IEND chunk", next_step="fetch the file again")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise DecodeError("PNG cut short", expected="whole chunks", next_step="fetch the file again")
        if place == 8:
            _check_png_header(kind, data[place + 8 : end - 4], limits)
        if kind in _PNG_PIXELS:
            if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise DecodeError("PNG is damaged", expected="matching checksums", next_step="fetch the file again")
            kept.append(data[place:end])
        elif kind == b"eXIf":
            turned = exif.orientation(data[place + 8 : end - 4])
        elif not kind[0] & 0x20:
            raise UnsupportedFormat("PNG with an unknown critical chunk", next_step="convert it")
        place = end
    return b"".join(kept), turned


def _check_png_header(kind: bytes, header: bytes, limits: Limits) -> None:
    if kind != b"IHDR" or len(header) != 13:
        raise DecodeError("PNG without a header", next_step="fetch the file again")
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    samples = _PNG_SAMPLES.get(colour, 4)
    check_frame(height, width, samples=samples, bytes_per_sample=2 if depth == 16 else 1, limits=limits)


def decode_jpeg(source: Source, options: Options) -> Media:
    """Read a JPEG; a scan that is not whole and clean is refused."""
    stream = source.data[:]
    header = jpeg.read_header(stream, limits=options.limits)
    pixels = exif.upright(jpeg.decode_stream(stream, header), header.orientation)
    return still(pixels, _notes(header.orientation, "cmyk" if header.components == 4 else ""))


def decode_bmp(source: Source, options: Options) -> Media:
    """Read a BMP; the pixel data must lie inside the file."""
    head = source.head
    if len(head) < 34:
        raise DecodeError("BMP cut short", next_step="fetch the file again")
    start, header_bytes = struct.unpack_from("<II", head, 10)
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", head, 18)
    height = abs(height)
    check_frame(height, width, samples=4, limits=options.limits)
    needed = start + height * ((width * bits + 31) // 32 * 4)
    if packing in _BMP_PLAIN and needed > source.size:
        raise DecodeError("BMP cut short", expected=f"{amount(needed)} bytes", got=f"{source.size:,}")
    return _finish(_imdecode(source.data[:], "BMP is damaged or cut short"), 1)


def decode_webp(source: Source, options: Options) -> Media:
    """Read a WebP, the first picture if it is animated."""
    head = source.head
    if len(head) < 30 or struct.unpack_from("<I", head, 4)[0] + 8 > source.size + 1:
        raise DecodeError("WebP cut short", next_step="fetch the file again")
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", head, 26))
    else:
        raise DecodeError("WebP is damaged", next_step="fetch the file again")
    check_frame(height, width, samples=4, limits=options.limits)
    data = source.data[:]
    return _finish(_imdecode(data, "WebP is damaged or cut short"), _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    place = 12
    while place + 8 <= len(data):
        kind, length = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if kind == b"EXIF":
            body = data[place + 8 : place + 8 + length]
            return exif.orientation(body.removeprefix(b"Exif\0\0"))
        place += 8 + length + length % 2
    return 1


def decode_tiff(source: Source, options: Options) -> Media:
    """Read the first page of a TIFF."""
    data = source.data[:]
    page = tiff.read_page(data, limits=options.limits)
    tiff.check_packing(data, page)
    upright = data if page.orientation == 1 else tiff.without_orientation(data)
    samples = _imdecode(upright, "TIFF is damaged or of a kind that is not read")
    if samples.shape[:2] != (page.height, page.width):
        raise DecodeError("TIFF size disagrees with its header", expected=f"{page.height}x{page.width}")
    notes = ["first page of several"] if page.more_pages else []
    return _finish(samples, page.orientation, *notes)


def _imdecode(data: bytes, what: str) -> NDArray[Any]:
    """Decode with OpenCV as stored: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, of any type."""
    with guard(what):
        samples: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise DecodeError(what, next_step="fetch the file again")
    return samples[..., 0] if samples.ndim == 3 and samples.shape[2] == 1 else samples


def _finish(samples: NDArray[Any], turned: int, *notes: str) -> Media:
    """OpenCV's samples to a Media: alpha, tone, grey, orientation."""
    alpha = None
    if samples.ndim == 3 and samples.shape[2] == 4:
        alpha, samples = samples[..., 3], samples[..., :3]
    tone = KEEP if samples.dtype == np.uint8 else find_tone([samples])
    pixels = tone.apply(samples)
    over_black = alpha is not None and _is_transparent(alpha)
    if alpha is not None and over_black:
        pixels = _over_black(pixels, alpha)
    if pixels.ndim == 3:
        pixels = _rgb(grey.collapse(np.ascontiguousarray(pixels)))
    return still(
        exif.upright(pixels, turned), (tone.note, *_notes(turned, "alpha over black" if over_black else ""), *notes)
    )


def _rgb(pixels: Pixels) -> Pixels:
    """BGR to RGB, or grey as it is. (Luma of a nearly grey BGR picture differs from that of RGB by rounding only.)"""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _is_transparent(alpha: NDArray[Any]) -> bool:
    return bool((alpha != np.iinfo(alpha.dtype).max).any()) if alpha.dtype.kind == "u" else False


def _over_black(pixels: Pixels, alpha: NDArray[Any]) -> Pixels:
    share = alpha.astype(np.float32) / float(np.iinfo(alpha.dtype).max)
    return np.rint(pixels * (share if pixels.ndim == 2 else share[..., None])).astype(np.uint8)


def _notes(turned: int, *others: str) -> tuple[str, ...]:
    return ((f"exif orientation {turned}",) if turned != 1 else ()) + others


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_bmp(head: bytes) -> bool:
    return (
        head[:2] == b"BM"
        and len(head) >= 18
        and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    )


DECODERS: tuple[Decoder, ...] = (
    Decoder(name="PNG", sniff=_starts(PNG_MAGIC), decode=decode_png),
    Decoder(name="JPEG", sniff=_starts(b"\xff\xd8\xff"), decode=decode_jpeg),
    Decoder(name="TIFF", sniff=_starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), decode=decode_tiff),
    Decoder(name="WebP", sniff=_is_webp, decode=decode_webp),
    Decoder(name="BMP", sniff=_is_bmp, decode=decode_bmp),
)
