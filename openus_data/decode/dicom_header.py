"""A DICOM header, read without pixels: syntax, class, the shape of the pixels, ultrasound regions, spacing.

Files without preamble or meta header are read too. A deflated data set is inflated under a bound. Nothing here decides
what may pass of a header: that is `read_facts`, which the caller brings.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydicom import Dataset
from pydicom.filereader import read_dataset

from openus_data.decode.limits import Limits, check_frame, check_frames
from openus_data.decode.source import guard
from openus_data.errors import DecodeError, DecodeLimit, UnsupportedFormat
from openus_data.records import Region

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its messages quote values of the header

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
PLAIN = {IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, ""}
_PIXEL_GROUP = 0x7FE00000
ENHANCED_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
_INFLATE_BYTES = 1 << 20
_PHOTOMETRICS = {
    1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"},
    3: {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"},
}
"""By samples per pixel (PS3.3 C.7.6.3.1.2)."""
_PACKED_ONLY = {"YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"}
"""Colours that only a compressed stream can hold."""
_VR = re.compile(rb"[A-Z]{2}")
_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


class Reader(Protocol):
    """Bytes with a position: a mapped file, or an inflated data set."""

    def read(self, count: int = ..., /) -> bytes: ...
    def seek(self, place: int, whence: int = ..., /) -> Any: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A data set up to its pixels, and where those are.

    Args:
        dataset: everything before the pixel data.
        syntax: transfer syntax UID; empty where the file does not say.
        body: what the offsets below count in: the mapped file, or the inflated data set.
        pixels_at: offset of the pixel data's value; None where there is none.
        pixels_bytes: its length; None for encapsulated pixel data.
        is_little_endian: byte order of the data set.
        notes: what was repaired.
    """

    dataset: Dataset = field(repr=False)
    syntax: str
    body: Any = field(repr=False)
    pixels_at: int | None
    pixels_bytes: int | None
    is_little_endian: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the header says that pixels are stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    planar: int
    photometric: str


def read_header(data: Any, *, limits: Limits) -> Header:
    """Read everything before the pixel data.

    Args:
        data: the mapped file.
        limits: bounds.

    Raises:
        DecodeError: not a data set.
        DecodeLimit: a deflated data set beyond the bound, or sequences nested too deep.
    """
    syntax, start, notes = _read_meta(data)
    body: Any = data
    if syntax == DEFLATED:
        body, start = io.BytesIO(_inflate(data[start:], limits)), 0
    implicit, little, guessed = _encoding(syntax, _peek(body, start))
    body.seek(start)
    with guard("DICOM header is damaged"):
        try:
            dataset = read_dataset(body, implicit, little, stop_when=_is_pixel_group)
        except RecursionError:
            raise DecodeLimit("DICOM sequences nested too deep", expected="a few levels") from None
        dataset.set_original_encoding(implicit, little, dataset._character_set)
        at, length = _pixel_element(body, implicit, little)
        if at is not None and length is not None and _is_encapsulated(body, at, syntax):
            length, notes = None, (*notes, "fragments under a definite length")
    if guessed:
        notes = (*notes, "transfer syntax guessed")
    return Header(
        dataset=dataset,
        syntax=syntax,
        body=body,
        pixels_at=at,
        pixels_bytes=length,
        is_little_endian=little,
        notes=notes,
    )


def _is_pixel_group(tag: Any, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _PIXEL_GROUP


def _peek(body: Any, start: int) -> bytes:
    body.seek(start)
    return bytes(body.read(8))


def _read_meta(data: Any) -> tuple[str, int, tuple[str, ...]]:
    """Transfer syntax (empty if absent), where the data set starts, and notes."""
    magic = data[128:132] == b"DICM"
    place = 132 if magic else 4 if data[:4] == b"DICM" else 0
    notes = () if magic else ("no preamble",)
    syntax, first = "", place
    while data[place : place + 2] == b"\x02\x00" and place + 8 <= len(data):
        vr = data[place + 4 : place + 6]
        long = vr in _LONG_VR
        if long and place + 12 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, place + 8) if long else struct.unpack_from("<H", data, place + 6)
        value = place + (12 if long else 8)
        if value + length > len(data):
            raise DecodeError("DICOM header cut short", next_step="fetch the file again")
        if data[place + 2 : place + 4] == b"\x10\x00":
            syntax = data[value : value + length].rstrip(b"\0 ").decode("ascii", "replace")
        place = value + length
    return syntax, place, notes if place != first else (*notes, "no meta header")


def _inflate(deflated: bytes, limits: Limits) -> bytes:
    """Inflate a data set, after a first pass that only counts what it would become."""
    with guard("deflated DICOM data set is damaged"):
        counter = zlib.decompressobj(-zlib.MAX_WBITS)
        size, held = 0, deflated
        while held and not counter.eof:
            size += len(counter.decompress(held, _INFLATE_BYTES))
            held = counter.unconsumed_tail
            if size > limits.inflated_bytes:
                raise DecodeLimit(
                    "deflated DICOM data set inflates too far",
                    expected=f"at most {limits.inflated_bytes:,} bytes (limit inflated_bytes)",
                )
        if not counter.eof:
            raise DecodeError("deflated DICOM data set cut short", next_step="fetch the file again")
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, size)


def _encoding(syntax: str, first: bytes) -> tuple[bool, bool, bool]:
    """(implicit VR, little endian, whether that is a guess from the first element)."""
    if syntax == IMPLICIT:
        return True, True, False
    if syntax == BIG_ENDIAN:
        return False, False, False
    if syntax:
        return False, True, False
    explicit = bool(_VR.fullmatch(first[4:6]))
    big = len(first) >= 2 and struct.unpack_from("<H", first)[0] >= 0x0400
    return not explicit, not big, True


def _pixel_element(body: Any, implicit: bool, little: bool) -> tuple[int | None, int | None]:
    """Offset and length of the PixelData value at or after the reader's position; (None, None) without one."""
    order = "<" if little else ">"
    while True:
        place = body.tell()
        head = body.read(8)
        if len(head) < 8:
            return None, None
        group, element = struct.unpack_from(order + "HH", head)
        if implicit:
            (length,), value = struct.unpack_from(order + "I", head, 4), place + 8
        elif head[4:6] in _LONG_VR:
            rest = body.read(4)
            if len(rest) < 4:
                return None, None
            (length,), value = struct.unpack(order + "I", rest), place + 12
        else:
            (length,), value = struct.unpack_from(order + "H", head, 6), place + 8
        if (group, element) == (0x7FE0, 0x0010):
            return value, None if length == 0xFFFFFFFF else length
        if group > 0x7FE0 or length == 0xFFFFFFFF:
            return None, None
        if group == 0x7FE0 and element in (0x0008, 0x0009):
            raise UnsupportedFormat("DICOM with float pixels is not read")
        body.seek(min(value + length, _size(body)))


def _is_encapsulated(body: Any, at: int, syntax: str) -> bool:
    body.seek(at)
    return syntax not in PLAIN and body.read(4) == b"\xfe\xff\x00\xe0"


def _size(body: Any) -> int:
    return body.getbuffer().nbytes if isinstance(body, io.BytesIO) else len(body)


def text_of(dataset: Dataset, keyword: str) -> str:
    """An attribute as text, empty where it is absent; whatever pydicom thinks of it is not said."""
    with guard("DICOM header is damaged"):
        value = dataset.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def read_layout(header: Header, *, limits: Limits) -> Layout:
    """The shape of the pixels, checked against the limits.

    Raises:
        DecodeError: an attribute is missing or makes no sense.
        DecodeLimit: beyond the limits.
    """
    dataset = header.dataset
    if header.pixels_at is None:
        raise DecodeError("DICOM object without pixel data", next_step="the file is left out")
    bits_stored = _number(dataset, "BitsStored", _number(dataset, "BitsAllocated", 8))
    layout = Layout(
        rows=_number(dataset, "Rows"),
        columns=_number(dataset, "Columns"),
        samples=_number(dataset, "SamplesPerPixel", 1),
        frames=max(_number(dataset, "NumberOfFrames", 1), 1),
        bits_allocated=_number(dataset, "BitsAllocated", 8),
        bits_stored=bits_stored,
        high_bit=_number(dataset, "HighBit", bits_stored - 1),
        is_signed=_number(dataset, "PixelRepresentation", 0) == 1,
        planar=_number(dataset, "PlanarConfiguration", 0),
        photometric=text_of(dataset, "PhotometricInterpretation").upper(),
    )
    if layout.samples not in (1, 3) or layout.bits_allocated not in (8, 16):
        raise UnsupportedFormat(
            "DICOM pixels of a kind that is not read",
            expected="1 or 3 samples of 8 or 16 bits",
            got=f"{layout.samples} of {layout.bits_allocated}",
        )
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        got = f"{layout.bits_stored} bits stored up to bit {layout.high_bit} of {layout.bits_allocated}"
        raise DecodeError("DICOM header contradicts itself", got=got)
    if layout.samples == 3 and layout.planar not in (0, 1):
        raise DecodeError("DICOM header contradicts itself", got=f"planar configuration {layout.planar}")
    if not layout.photometric:
        layout = replace(layout, photometric="RGB" if layout.samples == 3 else "MONOCHROME2")
    elif layout.photometric not in _PHOTOMETRICS[layout.samples] - (_PACKED_ONLY if header.pixels_bytes else set()):
        raise UnsupportedFormat(
            "DICOM colours of a kind that is not read", expected=", ".join(sorted(_PHOTOMETRICS[layout.samples]))
        )
    bytes_each = layout.bits_allocated // 8
    check_frame(layout.rows, layout.columns, samples=layout.samples, bytes_per_sample=bytes_each, limits=limits)
    check_frames(layout.frames, layout.rows, layout.columns, limits=limits)
    return layout


def _number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    with guard(f"DICOM attribute {keyword} is damaged"):
        value = dataset.get(keyword)
        if value is None or value == "":
            if default is None:
                raise DecodeError(f"DICOM attribute {keyword} is missing", next_step="the file is left out")
            return default
        return int(value)


def first_float(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an attribute as a finite float, or None."""
    try:
        with guard("unreadable number"):
            value = dataset.get(keyword)
            value = (
                value[0]
                if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__len__")
                else value
            )
            number = math.nan if value is None or value == "" else float(value)
    except DecodeError:
        return None
    return number if math.isfinite(number) else None


def read_regions(dataset: Dataset, rows: int, columns: int) -> tuple[Region, ...]:
    """SequenceOfUltrasoundRegions (PS3.3 C.8.5.5), cut at the frame; those of no area are dropped."""
    regions: list[Region] = []
    try:
        with guard("unreadable regions"):
            items = list(dataset.get("SequenceOfUltrasoundRegions") or ())
    except DecodeError:
        return ()
    for item in items:
        corners = [first_float(item, f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if any(corner is None for corner in corners):
            continue
        left, top, right, bottom = (int(corner) for corner in corners if corner is not None)
        box = (max(left, 0), max(top, 0), min(right + 1, columns), min(bottom + 1, rows))
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        regions.append(
            Region(
                box=box,
                spatial_format=int(first_float(item, "RegionSpatialFormat") or 0),
                data_type=int(first_float(item, "RegionDataType") or 0),
                spacing_mm=_region_spacing(item),
            )
        )
    return tuple(regions)


def _region_spacing(item: Dataset) -> tuple[float, float] | None:
    """(row, column) in mm where both units are centimetres (3) and both deltas finite and not zero."""
    if any(first_float(item, f"PhysicalUnits{axis}Direction") != 3 for axis in "XY"):
        return None
    across, down = first_float(item, "PhysicalDeltaX"), first_float(item, "PhysicalDeltaY")
    return (abs(down) * 10, abs(across) * 10) if across and down else None


def read_spacing(dataset: Dataset, regions: tuple[Region, ...]) -> tuple[float, float] | None:
    """(row, column) in mm: of the 2D regions where they agree, else of PixelSpacing where there are no regions."""
    flat = [region.spacing_mm for region in regions if region.spatial_format == 1]
    if flat:
        first = flat[0]
        agree = first is not None and all(
            other is not None and all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(first, other, strict=True))
            for other in flat
        )
        return first if agree else None
    try:
        with guard("unreadable spacing"):
            values = dataset.get("PixelSpacing") or _shared_spacing(dataset)
            pair = [float(value) for value in values or ()]
    except DecodeError:
        return None
    return (pair[0], pair[1]) if len(pair) == 2 and all(math.isfinite(v) and v > 0 for v in pair) else None


def _shared_spacing(dataset: Dataset) -> Any:
    groups = dataset.get("SharedFunctionalGroupsSequence") or ()
    measures = groups[0].get("PixelMeasuresSequence") if groups else ()
    return measures[0].get("PixelSpacing") if measures else None
