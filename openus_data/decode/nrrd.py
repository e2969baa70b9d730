"""NRRD, data inside or beside: sizes, type and spacing are read; comments, content and key-values are not."""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np

from openus_data.decode.beside import open_beside
from openus_data.decode.source import Decoder, Options, Source
from openus_data.decode.volume import (
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

_TYPES = {
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i1": "signed char|int8|int8_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i4": "int|signed int|int32|int32_t",
    "f4": "float",
    "f8": "double",
}
_BY_NAME = {name: code for code, names in _TYPES.items() for name in names.split("|")}
_COLOUR_KINDS = {"rgb-color", "rgba-color", "3-color", "4-color"}
_HEADER_BYTES = 1 << 20
_VECTOR = re.compile(r"\(([^()]*)\)|none")


def decode_nrrd(source: Source, options: Options) -> Media:
    """Read a NRRD; slices run along the third axis (after colour), then the fourth."""
    fields, start = _read_fields(source)
    name = _BY_NAME.get(fields.get("type", ""))
    if name is None:
        raise UnsupportedFormat("NRRD samples of a kind that is not read", expected=", ".join(_TYPES))
    if any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise UnsupportedFormat("NRRD with skipped bytes is not read", next_step="convert it")
    axes = _integers(fields.get("sizes", ""))
    kinds = fields.get("kinds", "").lower().split()
    samples = 1
    if len(axes) > 2 and axes[0] in (3, 4) and (not kinds or kinds[0] in _COLOUR_KINDS):
        samples, axes, kinds = axes[0], axes[1:], kinds[1:]
    if kinds[:1] == ["list"] or kinds[:1] == ["vector"]:
        raise UnsupportedFormat("NRRD whose pictures are interleaved is not read", next_step="convert it")
    order = ">" if fields.get("endian") == "big" else "<"
    shape = shape_of(axes, np.dtype(order + name), limits=options.limits, samples=samples)
    outside = fields.get("data file") or fields.get("datafile")
    data = open_beside(source, outside) if outside else source
    start = 0 if outside else start
    encoding = fields.get("encoding", "")
    if encoding in ("gzip", "gz"):
        check_deflated(data.size, shape)
        slices = partial(deflated_slices, data.place.reopen, start, 0, shape)
    elif encoding == "raw":
        check_raw(data.size, start, shape)
        slices = partial(raw_slices, data.place.reopen, start, shape)
    else:
        raise UnsupportedFormat("NRRD encoding that is not read", expected="raw or gzip", next_step="convert it")
    across, down = _spacing(fields, samples)
    return volume_media(
        shape,
        slices,
        spacing_mm=known_spacing(across, down),
        kind="clip" if kinds[-1:] == ["list"] else "volume",
        is_complete=encoding == "raw",
    )


def _read_fields(source: Source) -> tuple[dict[str, str], int]:
    """Fields up to the empty line, and where the data starts. A detached header may end without one."""
    fields: dict[str, str] = {}
    place = 0
    while True:
        end = source.data.find(b"\n", place, _HEADER_BYTES)
        if end < 0:
            if "data file" in fields or "datafile" in fields:
                return fields, source.size
            raise DecodeError("NRRD header cut short", expected="an empty line", next_step="fetch the file again")
        line = source.data[place:end].decode("latin-1").strip()
        place = end + 1
        if not line:
            return fields, place
        key, sign, value = line.partition(": ")
        if sign and not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split())
    except ValueError:
        raise DecodeError("NRRD header is damaged", expected="sizes of whole numbers") from None


def _spacing(fields: dict[str, str], samples: int) -> tuple[float, float]:
    """(across, down) in mm, zeros where the file does not say; other units than mm are not believed."""
    if "mm" not in fields.get("space units", "mm") or "mm" not in fields.get("units", "mm"):
        return 0.0, 0.0
    try:
        if "space directions" in fields:
            vectors = [match.group(1) for match in _VECTOR.finditer(fields["space directions"])]
            steps = [math.hypot(*(float(word) for word in text.split(","))) for text in vectors if text is not None]
        else:
            steps = [float(word) for word in fields.get("spacings", "").split()][samples > 1 :]
    except ValueError:
        return 0.0, 0.0
    return (steps[0], steps[1]) if len(steps) >= 2 else (0.0, 0.0)


def _is_nrrd(head: bytes) -> bool:
    return re.match(rb"NRRD\d{4}\r?\n", head) is not None


DECODERS: tuple[Decoder, ...] = (Decoder(name="NRRD", sniff=_is_nrrd, decode=decode_nrrd),)
