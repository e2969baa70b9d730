"""Clean values to bytes, Explicit VR Little Endian (PS3.5 sections 6.2 and 7.1), and the file around them.

pydicom's writer asks many questions of every element, since it must write anything. Here every value has just passed a
rule, all text is ASCII, and one encoding is written: a fraction of the time, and the same bytes (a test holds them to
pydicom's). What does not fit its value representation is refused, and stays behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

NUMBER_CODES: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
"""VRs of numbers with their letter in `struct`."""
_MOST_CHARACTERS: Final = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "PN": 64, "SH": 16, "TM": 16,
    "UI": 64,
}  # fmt: skip
_LONG_VRS: Final = frozenset({"OB", "OW", "SQ", "UN", "UT", "UC"})
_ITEM: Final = b"\xfe\xff\x00\xe0"


def raw_element(tag: int, vr: str, value: object) -> RawDataElement:
    """An element whose value is encoded already.

    Args:
        tag: of the attribute.
        vr: value representation.
        value: what a rule let pass: text, numbers, a list of them, or a sequence of data sets.

    Raises:
        ValueError, TypeError, struct.error, UnicodeEncodeError: it does not fit the value representation.
    """
    content = encode_value(vr, value)
    return RawDataElement(BaseTag(tag), vr, len(content), content, 0, False, True)


def encode_value(vr: str, value: Any) -> bytes:
    """The bytes of one value, padded to an even length; raises as `raw_element` does."""
    if vr == "SQ":
        return b"".join(_item(item) for item in value)
    if isinstance(value, bytes):
        return value + b"\0" * (len(value) % 2)
    parts: Sequence[Any] = value if isinstance(value, (list, tuple)) else (value,)
    if vr in NUMBER_CODES:
        return struct.pack(f"<{len(parts)}{NUMBER_CODES[vr]}", *parts)
    if vr == "AT":
        return b"".join(struct.pack("<HH", part >> 16, part & 0xFFFF) for part in parts)
    if vr not in _MOST_CHARACTERS:
        raise ValueError(f"no values of {vr} are written")
    texts = [str(part) for part in parts]
    if any(len(text) > _MOST_CHARACTERS[vr] for text in texts):
        raise ValueError(f"longer than {vr} allows")
    content = "\\".join(texts).encode("ascii")
    return content + (b"\0" if vr == "UI" else b" ") * (len(content) % 2)


def encode_dataset(dataset: Dataset) -> Iterator[bytes]:
    """A data set in pieces, in the order of its tags."""
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        is_raw = isinstance(element, RawDataElement)
        vr, value = str(element.VR), element.value
        content = value if is_raw and isinstance(value, bytes) else encode_value(vr, _plain(value))
        size = struct.pack("<2xI" if vr in _LONG_VRS else "<H", len(content))
        yield struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii") + size
        yield content


def encode_file_head(meta: Dataset) -> bytes:
    """A preamble of zeros, the magic word, and the file meta information (PS3.10 section 7.1)."""
    group = b"".join(encode_dataset(meta))
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def _plain(value: Any) -> Any:
    """pydicom's many-valued type as a list; empty as an empty text."""
    if value is None:
        return ""
    return list(value) if hasattr(value, "insert") and not isinstance(value, bytes) else value


def _item(dataset: Dataset) -> bytes:
    content = b"".join(encode_dataset(dataset))
    return _ITEM + struct.pack("<I", len(content)) + content
