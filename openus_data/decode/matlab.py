"""MATLAB files before 7.3 (MAT-File Level 5), read slice by slice: numeric arrays at the top level, plain or deflated.

The array with the most samples is the picture, and of equals the first by name. Cells, structures, objects and sparse
arrays are passed over. MATLAB's axes are (rows, columns, slices); a third axis of 3 in an array of uint8 is colour.
An own reader, since the usual one can be crashed by a damaged file.

Source: MathWorks, MAT-File Format (Level 5), chapter 1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from openus_data.decode.limits import amount
from openus_data.decode.source import Decoder, Options, Source
from openus_data.decode.volume import (
    Inflater,
    Slices,
    check_deflated,
    check_raw,
    deflated_slices,
    raw_slices,
    shape_of,
    volume_media,
)
from openus_data.errors import DecodeError, UnsupportedFormat
from openus_data.records import Media

_MAGIC = b"MATLAB 5.0 MAT-file"
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX, _LOGICAL = 0x08, 0x02
_HEAD_BYTES = 4096
_MAX_ELEMENTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    """One numeric array and where its samples lie.

    Args:
        name: of the variable; only to choose among equals.
        lengths: of the axes, MATLAB's order.
        dtype: as stored, which may be narrower than the class.
        is_logical: true and false.
        place: of the samples, or of the zlib stream that holds them.
        start: of the samples inside the inflated stream; None where they are not compressed.
    """

    name: bytes
    lengths: tuple[int, ...]
    dtype: np.dtype[Any]
    is_logical: bool
    place: int
    start: int | None

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(np.prod(self.lengths, dtype=object))


def decode_matlab(source: Source, options: Options) -> Media:
    """Read the largest numeric array; slices run along the third axis, then the fourth."""
    arrays = [array for array in _arrays(source) if array.size > 1]
    if not arrays:
        raise UnsupportedFormat("MATLAB file without a numeric array", expected="an array of 2 axes or more")
    array = min(arrays, key=lambda entry: (-entry.size, entry.name))
    whole = shape_of(array.lengths, array.dtype, limits=options.limits, is_transposed=True)
    if array.start is None:
        check_raw(source.size, array.place, whole)
        planes = partial(raw_slices, source.place.reopen, array.place, whole)
    else:
        check_deflated(source.size, whole)
        planes = partial(deflated_slices, source.place.reopen, array.place, array.start, whole)
    shape, slices = whole, planes
    if array.lengths[2:3] == (3,) and array.dtype == np.uint8 and not array.is_logical:
        shape = replace(whole, count=whole.count // 3, samples=3)
        slices = partial(_coloured, planes)
    elif array.is_logical:
        shape = replace(whole, dtype=np.dtype(np.bool_))
        slices = partial(_logical, planes)
    return volume_media(shape, slices, is_complete=array.start is None)


def _coloured(planes: Callable[[Sequence[int]], Slices], indices: Sequence[int]) -> Slices:
    """Three planes in a row to one (H, W, 3)."""
    wanted = [3 * index + plane for index in indices for plane in range(3)]
    parts = planes(wanted)
    for index in indices:
        yield index, np.dstack([next(parts)[1] for _ in range(3)])
    for _ in parts:  # lets the stream verify its end
        pass


def _logical(planes: Callable[[Sequence[int]], Slices], indices: Sequence[int]) -> Slices:
    for index, plane in planes(indices):
        yield index, plane != 0


def _arrays(source: Source) -> Iterator[_Array]:
    """The numeric arrays of a file, without their samples."""
    order = {b"IM": "<", b"MI": ">"}.get(source.data[126:128])
    if order is None:
        raise DecodeError("MATLAB header is damaged", expected="a byte order", next_step="fetch the file again")
    place = 128
    for _ in range(_MAX_ELEMENTS):
        if place + 8 > source.size:
            return
        kind, length = struct.unpack_from(order + "II", source.data, place)
        end = place + 8 + length
        if end > source.size:
            raise DecodeError("MATLAB file cut short", expected="whole elements", next_step="fetch the file again")
        if kind == _COMPRESSED:
            head = Inflater(source.data, place + 8).read(_HEAD_BYTES)
            if len(head) >= 8 and struct.unpack_from(order + "I", head)[0] == _MATRIX:
                array = _parse(head, 8, order)
                yield from [replace(array, place=place + 8, start=array.place)] if array else []
        elif kind == _MATRIX:
            array = _parse(source.data[place : place + _HEAD_BYTES], 8, order)
            yield from [replace(array, place=place + array.place)] if array else []
        place = end


def _parse(head: bytes, place: int, order: str) -> _Array | None:
    """The header of one matrix; None for what is not a real numeric array. `place` counts in `head`."""
    try:
        _, flags, place = _element(head, place, order)
        properties = struct.unpack_from(order + "I", flags)[0]
        kind, bits = properties & 0xFF, properties >> 8 & 0xFF
        _, axes, place = _element(head, place, order)
        _, name, place = _element(head, place, order)
        stored, length, place = _tag(head, place, order)
    except struct.error:
        raise DecodeError("MATLAB array header is damaged", next_step="fetch the file again") from None
    if kind not in _NUMERIC_CLASSES or bits & _COMPLEX or stored not in _STORED or len(axes) < 8:
        return None
    lengths = struct.unpack(f"{order}{len(axes) // 4}i", axes[: len(axes) // 4 * 4])
    array = _Array(
        name=name,
        lengths=lengths if len(lengths) < 3 else _without_ones(lengths),
        dtype=np.dtype(order + _STORED[stored]),
        is_logical=bool(bits & _LOGICAL),
        place=place,
        start=None,
    )
    if min(lengths) < 0 or array.size * array.dtype.itemsize != length:
        raise DecodeError(
            "MATLAB array contradicts itself", expected=f"{amount(array.size)} samples", got=f"{amount(length)} bytes"
        )
    return array


def _without_ones(lengths: tuple[int, ...]) -> tuple[int, ...]:
    while len(lengths) > 2 and lengths[-1] == 1:
        lengths = lengths[:-1]
    return lengths


def _tag(head: bytes, place: int, order: str) -> tuple[int, int, int]:
    """Type, length and place of an element's data; short elements keep their data in the tag."""
    first, second = struct.unpack_from(order + "II", head, place)
    if first >> 16:
        return first & 0xFFFF, first >> 16, place + 4
    return first, second, place + 8


def _element(head: bytes, place: int, order: str) -> tuple[int, bytes, int]:
    """Type and data of an element, and where the next one starts."""
    kind, length, start = _tag(head, place, order)
    is_short = start == place + 4
    following = place + 8 if is_short else start + (length + 7) // 8 * 8
    if following > len(head):
        raise DecodeError("MATLAB array header is damaged", next_step="fetch the file again")
    return kind, head[start : start + length], following


def _is_matlab(head: bytes) -> bool:
    return head.startswith(_MAGIC)


DECODERS: tuple[Decoder, ...] = (Decoder(name="MATLAB", sniff=_is_matlab, decode=decode_matlab),)
