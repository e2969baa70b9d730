"""NIfTI-1 and NIfTI-2, plain or gzipped, in one file: sizes, type, scale and spacing are read, descriptions are not."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import partial

import numpy as np

from openus_data.decode.source import Decoder, Options, Source
from openus_data.decode.volume import (
    Inflater,
    Shape,
    Slices,
    check_deflated,
    check_raw,
    deflated_slices,
    known_spacing,
    raw_slices,
    shape_of,
    volume_media,
)
from openus_data.errors import DecodeError, UnsupportedFormat
from openus_data.records import Media

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128: 3, 2304: 4}
_MILLIMETRES = 2
_HEAD_BYTES = 544


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    order: str
    axes: tuple[int, ...]
    datatype: int
    spacing: tuple[float, ...]
    start: int
    slope: float
    intercept: float
    units: int


def decode_nifti(source: Source, options: Options) -> Media:
    """Read a NIfTI file; slices run along the third axis, then the fourth."""
    is_packed = source.head.startswith(b"\x1f\x8b")
    head = Inflater(source.data).read(_HEAD_BYTES) if is_packed else source.head[:_HEAD_BYTES]
    fields = _read_fields(head)
    samples = _COLOURS.get(fields.datatype, 1)
    name = "u1" if fields.datatype in _COLOURS else _TYPES.get(fields.datatype)
    if name is None:
        raise UnsupportedFormat("NIfTI samples of a kind that is not read", got=f"datatype {fields.datatype}")
    shape = shape_of(fields.axes, np.dtype(fields.order + name), limits=options.limits, samples=samples)
    if is_packed:
        check_deflated(source.size, shape)
        slices = partial(deflated_slices, source.place.reopen, 0, fields.start, shape)
    else:
        check_raw(source.size, fields.start, shape)
        slices = partial(raw_slices, source.place.reopen, fields.start, shape)
    is_scaled = samples == 1 and fields.slope != 0 and (fields.slope, fields.intercept) != (1.0, 0.0)
    across, down = (fields.spacing[0], fields.spacing[1]) if fields.units == _MILLIMETRES else (0.0, 0.0)
    return volume_media(
        shape if not is_scaled else _as_float(shape),
        (lambda indices: _scaled(slices(indices), fields)) if is_scaled else slices,
        spacing_mm=known_spacing(across, down),
        notes=("scaled",) if is_scaled else (),
        is_complete=not is_packed,
    )


def _scaled(slices: Slices, fields: _Fields) -> Slices:
    for index, samples in slices:
        yield index, samples.astype(np.float64) * fields.slope + fields.intercept


def _as_float(shape: Shape) -> Shape:
    return Shape(count=shape.count, height=shape.height, width=shape.width, samples=1, dtype=np.dtype(np.float64))


def _read_fields(head: bytes) -> _Fields:
    """Fields of either version (nifti1.h, nifti2.h).

    Raises:
        DecodeError: cut short, or axes that make no sense.
    """
    try:
        order = "<" if struct.unpack_from("<i", head)[0] in (348, 540) else ">"
        if struct.unpack_from(order + "i", head)[0] == 348:
            axes = struct.unpack_from(order + "8h", head, 40)
            (datatype,) = struct.unpack_from(order + "h", head, 70)
            pixdim = struct.unpack_from(order + "8f", head, 76)
            offset, slope, intercept = struct.unpack_from(order + "3f", head, 108)
            units = head[123]
        else:
            (datatype,) = struct.unpack_from(order + "h", head, 12)
            axes = struct.unpack_from(order + "8q", head, 16)
            pixdim = struct.unpack_from(order + "8d", head, 104)
            (offset,) = struct.unpack_from(order + "q", head, 168)
            slope, intercept = struct.unpack_from(order + "2d", head, 176)
            units = struct.unpack_from(order + "i", head, 500)[0]
    except (struct.error, IndexError):
        raise DecodeError("NIfTI header cut short", next_step="fetch the file again") from None
    if not 1 <= axes[0] <= 7 or not math.isfinite(offset) or not 0 <= offset < 1 << 40:
        raise DecodeError("NIfTI header is damaged", got=f"{axes[0]} axes")
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        slope, intercept = 0.0, 0.0
    lengths = axes[1 : axes[0] + 1]
    while len(lengths) > 2 and lengths[-1] == 1:
        lengths = lengths[:-1]
    return _Fields(
        order=order,
        axes=lengths,
        datatype=datatype,
        spacing=pixdim[1:3],
        start=int(offset),
        slope=slope,
        intercept=intercept,
        units=units & 7,
    )


def is_nifti(head: bytes) -> bool:
    """By the magic word behind the header, looked for under gzip too."""
    if head.startswith(b"\x1f\x8b"):
        try:
            head = Inflater(head).read(_HEAD_BYTES)
        except DecodeError:
            return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


DECODERS: tuple[Decoder, ...] = (Decoder(name="NIfTI", sniff=is_nifti, decode=decode_nifti),)
