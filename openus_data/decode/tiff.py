"""The first page of a TIFF, described and verified before it is decoded: its size, its strips, their packing.

OpenCV gives a picture for damaged strips too, with what it could unpack; so packed strips are unpacked here first, by
readers that refuse: zlib with its checksum, and ffmpeg for LZW and PackBits, which have none.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from fractions import Fraction

from openus_data.decode.limits import Limits, amount, check_frame
from openus_data.decode.quiet import quiet_c_libraries
from openus_data.decode.source import guard
from openus_data.errors import DecodeError, UnsupportedFormat

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I"}
_MAX_ENTRIES = 4096
_MAX_VALUES = 1 << 22
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 262, 274, 277
_COMPRESSION, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 259, 273, 279, 324, 325
_FILL_ORDER = 266
WHITE_IS_ZERO, CMYK = 0, 5
_PLAIN, _CCITT, _DEFLATE, _UNSUMMED = {1}, {2, 3, 4}, {8, 32946}, {5, 32773}
_INFLATE_BYTES = 1 << 20
_PIXEL_TAGS = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325}
"""Size, bits, packing, photometric, fill order, strips or tiles, planes, predictor, palette (TIFF 6.0)."""


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
        compression: as the tag says (TIFF 6.0, tag 259).
        strips: (start, end) of each strip or tile.
        is_reversed: bits of every byte are stored in reverse.
    """

    height: int
    width: int
    samples: int
    bits: int
    photometric: int
    orientation: int
    more_pages: bool
    compression: int
    strips: tuple[tuple[int, int], ...] = field(repr=False)
    is_reversed: bool

    @property
    def plain_bytes(self) -> int:
        """Bytes of the page without compression."""
        return self.height * ((self.width * self.samples * self.bits + 7) // 8)


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
        compression=_one(tags, _COMPRESSION, 1),
        strips=_strips(tags),
        is_reversed=_one(tags, _FILL_ORDER, 1) == 2,
    )
    check_frame(page.height, page.width, samples=page.samples, bytes_per_sample=(bits + 7) // 8, limits=limits)
    _check_strips(len(data), page)
    return page


def check_packing(data: bytes, page: TiffPage) -> None:
    """Unpack every packed strip once, and refuse what is damaged.

    Raises:
        DecodeError: damaged, or more than the page can hold.
        UnsupportedFormat: a packing that nothing here can verify.
    """
    if page.compression in _DEFLATE and not page.is_reversed:
        for start, end in page.strips:
            _inflate(data[start:end], page.plain_bytes)
    elif page.compression in _UNSUMMED:
        _unpack_with_ffmpeg(data)
    elif page.compression not in _PLAIN | _CCITT:
        got = f"compression {page.compression}"
        raise UnsupportedFormat("TIFF packed in a way that is not read", got=got, next_step="convert it to PNG")


def _inflate(packed: bytes, most: int) -> None:
    worker, held, size = zlib.decompressobj(), packed, 0
    with guard("TIFF strip is damaged"):
        while held and not worker.eof:
            size += len(worker.decompress(held, _INFLATE_BYTES))
            held = worker.unconsumed_tail
            if size > most + _INFLATE_BYTES:
                raise DecodeError("TIFF strip holds more than the page", expected=f"at most {amount(most)} bytes")
    if not worker.eof:
        raise DecodeError("TIFF strip cut short", next_step="fetch the file again")


def _unpack_with_ffmpeg(data: bytes) -> None:
    plain = _with_pixel_tags_alone(data)
    if not _is_unpacked(plain, {}):  # a layout that ffmpeg does not know: nothing is known against it
        return
    if not _is_unpacked(plain, {"err_detect": "explode"}):
        raise DecodeError("TIFF strip is damaged", next_step="fetch the file again")


def _is_unpacked(data: bytes, options: dict[str, str]) -> bool:
    import av  # takes a sixteenth of a second to load, which pictures of other kinds need not wait for

    context = av.CodecContext.create("tiff", "r")
    context.thread_count = 1
    context.options = options
    packet = av.Packet(data)
    packet.time_base = Fraction(1, 1)
    with quiet_c_libraries():
        try:
            return bool([*context.decode(packet), *context.decode(None)])
        except av.error.FFmpegError:
            return False


def _with_pixel_tags_alone(data: bytes) -> bytes:
    """The same file with a first directory of the tags that ffmpeg needs: a strict ffmpeg refuses those it ignores."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    entries = [data[start : start + 12] for start in range(place + 2, place + 2 + 12 * count, 12)]
    kept = [e for e in entries if struct.unpack_from(order + "H", e)[0] in _PIXEL_TAGS]
    even = data + bytes(len(data) % 2)
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return even[:4] + struct.pack(order + "I", len(even)) + even[8:] + directory


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


def _strips(tags: dict[int, tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    """Start and end of every strip or tile; none where the two lists do not agree."""
    offsets = tags.get(_STRIPS) or tags.get(_TILES) or ()
    counts = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES) or ()
    if len(offsets) != len(counts):
        return ()
    return tuple((offset, offset + count) for offset, count in zip(offsets, counts, strict=True))


def _check_strips(size: int, page: TiffPage) -> None:
    """Refuse pixel data that is absent, lies outside the file, or is too short where it is not compressed."""
    if not page.strips:
        raise DecodeError("TIFF without pixel data", next_step="fetch the file again")
    if any(end > size for _, end in page.strips):
        raise DecodeError("TIFF cut short", expected="strips inside the file", next_step="fetch the file again")
    there = sum(end - start for start, end in page.strips)
    if page.compression in _PLAIN and there < page.plain_bytes:
        raise DecodeError(
            "TIFF holds less than it declares", expected=f"{amount(page.plain_bytes)} bytes", got=amount(there)
        )
