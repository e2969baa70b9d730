"""A source file as it is, less all that is not its picture, for the codec `passthrough`: PNG and JPEG.

What has room for more than the picture (palettes, unused tables, a stream that goes on) is not passed but coded anew.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset({b"IHDR", b"IDAT", b"IEND"})
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_JPEG_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_SCAN, _JPEG_END, _JPEG_COMMENT, _JPEG_ADOBE = 0xDA, 0xD9, 0xFE, 0xEE
_JPEG_QUANTIZATION, _JPEG_HUFFMAN, _JPEG_RESTART = 0xDB, 0xC4, 0xDD
_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_ADOBE_BYTES: Final = 12


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
    """Keep the chunks that hold the picture, each checked against its CRC (PNG specification, section 5).

    A picture with a palette, interlaced, or of less than 8 bits is not passed: its unused entries and bits are room for
    text. Neither is one whose stream holds more than the rows.
    """
    kept, packed, bytes_of_rows = [_PNG_MAGIC], list[bytes](), -1
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunk = data[at : at + 12 + length]
        kind, crc = chunk[4:8], chunk[-4:]
        if len(chunk) != 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(crc, "big"):
            return None
        if kind == b"IHDR":
            if bytes_of_rows >= 0:
                return None
            bytes_of_rows = _png_rows(chunk[8:-4])
        if kind in _PNG_KEPT:
            kept.append(chunk)
        elif kind == b"tRNS":  # transparency changes what is seen
            return None
        if kind == b"IDAT":
            packed.append(chunk[8:-4])
        if kind == b"IEND":
            return b"".join(kept) if not length and _inflates_to(b"".join(packed), bytes_of_rows) else None
        at += len(chunk)
    return None


def _png_rows(header: bytes) -> int:
    """Bytes of all rows with their filters, by an IHDR; 0 for a kind that is not passed through."""
    if len(header) != 13:
        return 0
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    channels = {0: 1, 2: 3}.get(colour, 0)
    return height * (1 + width * channels) if channels and depth == 8 and not interlaced else 0


def _inflates_to(packed: bytes, size: int) -> bool:
    """Whether a zlib stream holds just so many bytes, and nothing follows it."""
    if size <= 0:
        return False
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(packed, size + 1)
    except zlib.error:
        return False
    return len(whole) == size and stream.eof and not stream.unused_data and not stream.unconsumed_tail


def _strip_jpeg(data: bytes) -> bytes | None:
    """Keep tables, frame and scans; drop APPn but Adobe's colour flag, and comments (ITU-T T.81, annex B).

    A file with any other segment, or with a table that no scan uses, is not passed: decoders skip both.
    """
    kept = [data[:2]]
    tables = _Tables()
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _JPEG_END:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        is_adobe = marker == _JPEG_ADOBE and body[:5] == b"Adobe"
        if is_adobe and len(body) != _ADOBE_BYTES:
            return None
        if not is_adobe and (0xE0 <= marker <= 0xEF or marker == _JPEG_COMMENT):
            at = end
            continue
        if not is_adobe and not tables.takes(marker, body):
            return None
        if marker == _JPEG_SCAN:
            end = _end_of_scan(data, end)
        if end > len(data):
            return None
        kept.append(data[at:end])
        at = end
    is_whole = len(kept) > 1 and not tables.unused and data[at : at + 2] == b"\xff\xd9"
    return b"".join([*kept, b"\xff\xd9"]) if is_whole else None


class _Tables:
    """Which tables of a JPEG are defined and not yet used; an id is its class and its number."""

    def __init__(self) -> None:
        self.unused = set[tuple[str, int]]()
        self._quantization = dict[int, int]()

    def takes(self, marker: int, body: bytes) -> bool:
        """Go on by a segment; False for one that is none of the picture's, or has room for more."""
        if marker == _JPEG_RESTART:
            return len(body) == 2
        if marker == _JPEG_QUANTIZATION:
            return self._define(body, lambda at: ("Q", body[at] & 15, 65 + 64 * (body[at] >> 4 & 1)))
        if marker == _JPEG_HUFFMAN:
            return self._define(body, lambda at: ("AD"[body[at] < 16], body[at] & 15, 17 + sum(body[at + 1 : at + 17])))
        if marker in _JPEG_FRAMES:
            self._quantization |= {body[at]: body[at + 2] for at in range(6, len(body) - 2, 3)}
            return len(body) >= 6 and len(body) == 6 + 3 * body[5]
        if marker != _JPEG_SCAN or not body or len(body) != 4 + 2 * body[0]:
            return False
        first, last = body[-3:-1]  # of the coefficients: a progressive scan reads the first alone, or others
        for at in range(1, 1 + 2 * body[0], 2):
            self.unused.discard(("Q", self._quantization.get(body[at], -1)))
            if first == 0:
                self.unused.discard(("D", body[at + 1] >> 4))
            if last > 0:
                self.unused.discard(("A", body[at + 1] & 15))
        return True

    def _define(self, body: bytes, read: Callable[[int], tuple[str, int, int]]) -> bool:
        at = 0
        while at < len(body):
            kind, number, size = read(at)
            if (kind, number) in self.unused:
                return False
            self.unused.add((kind, number))
            at += size
        return at == len(body)


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
