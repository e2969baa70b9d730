"""Kinds of file whose libraries take long to load: told here by their first bytes, loaded when the first one comes.

pydicom takes a fifth of a second and PyAV a sixteenth, in every worker; a folder of PNG files needs neither.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from importlib import import_module

from openus_data.decode.source import Decoder, Options, Source
from openus_data.records import Media

_VR = re.compile(rb"[A-Z]{2}")


def looks_like_dicom(head: bytes) -> bool:
    """By the magic word, or, where the preamble is missing, by a first element that only DICOM starts with."""
    if head[128:132] == b"DICM" or head[:4] == b"DICM":
        return True
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack_from(order + "HH", head)
        if (group in (0x0002, 0x0008) and element < 0x0100) and (
            _VR.fullmatch(head[4:6]) or struct.unpack_from(order + "I", head, 4)[0] <= 256
        ):
            return True
    return False


def _is_avi(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _is_mp4(head: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def _is_matroska(head: bytes) -> bool:
    return head.startswith(b"\x1a\x45\xdf\xa3")


def _later(module: str, name: str) -> Callable[[Source, Options], Media]:
    """A decoder of another module of this package."""

    def decode(source: Source, options: Options) -> Media:
        media: Media = getattr(import_module(f"openus_data.decode.{module}"), name)(source, options)
        return media

    return decode


DICOM: tuple[Decoder, ...] = (Decoder(name="DICOM", sniff=looks_like_dicom, decode=_later("dicom", "decode_dicom")),)
VIDEO: tuple[Decoder, ...] = (
    Decoder(name="AVI", sniff=_is_avi, decode=_later("video", "decode_avi")),
    Decoder(name="MP4", sniff=_is_mp4, decode=_later("video", "decode_mp4")),
    Decoder(name="Matroska", sniff=_is_matroska, decode=_later("video", "decode_matroska")),
)
