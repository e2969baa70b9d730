"""The first page of a TIFF, described before it is decoded: its size, and that its strips lie inside the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from openus_data.decode.limits import Limits, check_frame
from openus_data.errors import DecodeError, UnsupportedFormat

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I"}
_MAX_ENTRIES = 4096
_MAX_VALUES = 1 << 22
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_COMPRESSION, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 259, 273, 279, 324, 325
WHITE_IS_ZERO, CMYK = 0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffPage:
    """What the first directory says.

    Args:
        height, width: in pixels.
        samples: per pixel.
        bits: per sample.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr.
        orientation: 1 to 8.
        more_pages: whether another page follows; it is not read.
    """

    height: int
    width: int
    samples: int
    bits: int
    photometric: int
    orientation: int
    more_pages: bool


def read_page(data: bytes, *, limits: Limits) -> TiffPage:
    """Read the first directory of a classic TIFF.

    Raises:
        DecodeError: cut short or damaged.
        DecodeLimit: declared size beyond the limits.
        UnsupportedFormat: BigTIFF.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        if struct.unpack_from(order + "H", data, 2)[0] != 42:
            raise UnsupportedFormat("BigTIFF is not read", next_step="convert it to PNG")
        tags, following = _directory(data, order, struct.unpack_from(order + "I", data, 4)[0])
    except struct.error:
        raise DecodeError("TIFF cut short or damaged", next_step="fetch the file again") from None
    bits = max(tags.get(_BITS) or (1,))
    page = TiffPage(
        height=_one(tags, _HEIGHT, 0),
        width=_one(tags, _WIDTH, 0),
        samples=_one(tags, _SAMPLES, 1),
        bits=bits,
        photometric=_one(tags, _PHOTOMETRIC, 1),
        orientation=_one(tags, _ORIENTATION, 1),
        more_pages=following != 0,
    )
    check_frame(page.height, page.width, samples=page.samples, bytes_per_sample=(bits + 7) // 8, limits=limits)
    _check_strips(tags, len(data), page)
    return page


def without_orientation(data: bytes) -> bytes:
    """The same TIFF with its first page stored upright, so that no decoder turns it on its own."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, place)
    changed = bytearray(data)
    for start in range(place + 2, place + 2 + 12 * entries, 12):
        if struct.unpack_from(order + "H", data, start)[0] == _ORIENTATION:
            struct.pack_into(order + "HIHH", changed, start + 2, 3, 1, 1, 0)
    return bytes(changed)


def _directory(data: bytes, order: str, place: int) -> tuple[dict[int, tuple[int, ...]], int]:
    (entries,) = struct.unpack_from(order + "H", data, place)
    if not 0 < entries <= _MAX_ENTRIES:
        raise DecodeError("TIFF cut short or damaged", got=f"{entries} entries in the first page")
    tags: dict[int, tuple[int, ...]] = {}
    for start in range(place + 2, place + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, start)
        letter = _INTEGERS.get(kind)
        if letter is None or count > _MAX_VALUES:
            continue
        at = start + 8 if _SIZES[kind] * count <= 4 else struct.unpack_from(order + "I", data, start + 8)[0]
        tags[tag] = struct.unpack_from(f"{order}{count}{letter}", data, at)
    (following,) = struct.unpack_from(order + "I", data, place + 2 + 12 * entries)
    return tags, following


def _one(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    values = tags.get(tag)
    return values[0] if values else default


def _check_strips(tags: dict[int, tuple[int, ...]], size: int, page: TiffPage) -> None:
    """Refuse pixel data that is absent, lies outside the file, or is too short where it is not compressed."""
    offsets = tags.get(_STRIPS) or tags.get(_TILES) or ()
    counts = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES) or ()
    if not offsets or len(offsets) != len(counts):
        raise DecodeError("TIFF without pixel data", next_step="fetch the file again")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise DecodeError("TIFF cut short", expected="strips inside the file", next_step="fetch the file again")
    needed = page.height * ((page.width * page.samples * page.bits + 7) // 8)
    if _one(tags, _COMPRESSION, 1) == 1 and sum(counts) < needed:
        raise DecodeError("TIFF holds less than it declares", expected=f"{needed} bytes", got=str(sum(counts)))
