"""MetaImage, data inside (.mha) or beside (.mhd): sizes, type and spacing are read, other keys are not."""

from __future__ import annotations

from functools import partial

import numpy as np

from openus_data.decode.beside import open_beside
from openus_data.decode.limits import amount
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
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
}
_KEYS = {
    "NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "BinaryData", "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB", "CompressedData", "ElementSpacing", "ElementSize", "HeaderSize", "Kinds", "ElementDataFile",
}  # fmt: skip
_HEADER_BYTES = 1 << 26


def decode_metaimage(source: Source, options: Options) -> Media:
    """Read a MetaImage; slices run along the third axis, then the fourth."""
    keys, start = _read_keys(source)
    if keys.get("BinaryData", "True") != "True" or keys.get("HeaderSize", "0") not in ("0", "-1"):
        raise UnsupportedFormat("MetaImage of a kind that is not read", expected="binary data without a second header")
    name = _TYPES.get(keys.get("ElementType", ""))
    if name is None:
        raise UnsupportedFormat("MetaImage samples of a kind that is not read", expected=", ".join(_TYPES))
    order = ">" if "True" in (keys.get("BinaryDataByteOrderMSB"), keys.get("ElementByteOrderMSB")) else "<"
    axes = _integers(keys, "DimSize")
    if len(axes) != (_integers(keys, "NDims") or (len(axes),))[0]:
        raise DecodeError("MetaImage header contradicts itself", expected="DimSize of NDims numbers")
    channels = (_integers(keys, "ElementNumberOfChannels") or (1,))[0]
    if channels not in (1, 3, 4):
        raise UnsupportedFormat("MetaImage of a kind that is not read", got=f"{amount(channels)} channels")
    shape = shape_of(axes, np.dtype(order + name), limits=options.limits, samples=channels)
    data = source if keys["ElementDataFile"] == "LOCAL" else open_beside(source, keys["ElementDataFile"])
    start = start if data is source else 0
    is_packed = keys.get("CompressedData") == "True"
    if is_packed:
        check_deflated(data.size, shape)
        slices = partial(deflated_slices, data.place.reopen, start, 0, shape)
    else:
        start = data.size - shape.count * shape.slice_bytes if keys.get("HeaderSize") == "-1" else start
        check_raw(data.size, start, shape)
        slices = partial(raw_slices, data.place.reopen, start, shape)
    spacing = _floats(keys.get("ElementSpacing") or keys.get("ElementSize") or "")
    return volume_media(
        shape,
        slices,
        spacing_mm=known_spacing(spacing[0], spacing[1]) if len(spacing) >= 2 else None,
        kind="clip" if keys.get("Kinds", "").split()[-1:] == ["list"] else "volume",
        is_complete=not is_packed,
    )


def _read_keys(source: Source) -> tuple[dict[str, str], int]:
    """The keys that matter, and where the data starts."""
    keys: dict[str, str] = {}
    place = 0
    while "ElementDataFile" not in keys:
        end = source.data.find(b"\n", place, _HEADER_BYTES)
        if end < 0:
            raise DecodeError(
                "MetaImage header cut short", expected="ElementDataFile", next_step="fetch the file again"
            )
        key, sign, value = source.data[place:end].decode("latin-1").partition("=")
        if sign and key.strip() in _KEYS:
            keys[key.strip()] = value.strip()
        place = end + 1
    if not keys["ElementDataFile"]:
        raise DecodeError("MetaImage without data", expected="ElementDataFile")
    return keys, place


def _integers(keys: dict[str, str], key: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in keys.get(key, "").split())
    except ValueError:
        raise DecodeError("MetaImage header is damaged", expected=f"{key} of whole numbers") from None


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split())
    except ValueError:
        return ()


def _is_metaimage(head: bytes) -> bool:
    return head.startswith((b"ObjectType", b"NDims", b"Comment =")) and b"=" in head[:64]


DECODERS: tuple[Decoder, ...] = (Decoder(name="MetaImage", sniff=_is_metaimage, decode=decode_metaimage),)
