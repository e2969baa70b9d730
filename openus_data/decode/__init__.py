"""Any file to frames of uint8: `decode(path)` looks at the first bytes and hands the file to one of `DECODERS`.

Frames are (H, W) when the picture is grey and (H, W, 3) RGB when it has colour (frames of one clip may differ). A file
that cannot be read wholly and exactly raises a DecodeError: never a part of a picture, a hang, or memory beyond the
limits. Adding a kind of file is one module and one line in `DECODERS`.

    media = decode(Path("clip.dcm"))
    for index, pixels in media.read([0, 10, 20]): ...
"""

from __future__ import annotations

from pathlib import Path

from openus_data.decode import arrays, later, matlab, metaimage, nifti, nrrd, raster
from openus_data.decode.limits import Limits
from openus_data.decode.source import Decoder, Options, ReadFacts, open_source
from openus_data.errors import UnsupportedFormat
from openus_data.records import Media

DECODERS: tuple[Decoder, ...] = (
    *later.DICOM,
    *raster.DECODERS,
    *later.VIDEO,
    *nifti.DECODERS,
    *metaimage.DECODERS,
    *nrrd.DECODERS,
    *matlab.DECODERS,
    *arrays.DECODERS,
)
"""Tried in this order. DICOM comes first, since its preamble may hold the magic bytes of another kind."""

__all__ = ["DECODERS", "Decoder", "Limits", "decode"]


def decode(path: Path, *, limits: Limits | None = None, read_facts: ReadFacts | None = None) -> Media:
    """Read one file.

    Args:
        path: a local file.
        limits: bounds on declared sizes; None for the usual ones.
        read_facts: takes a DICOM data set and returns what may pass of its header (`deid.headers.read_facts`).

    Returns:
        The picture, clip or volume; its frames are read on demand.

    Raises:
        UnsupportedFormat: no decoder reads this kind.
        NotUltrasound: a DICOM object of another class.
        DecodeLimit: a declared size is beyond the limits.
        DecodeError: anything else that keeps the file from being read wholly.
        MissingExtra: the kind needs an extra that is not installed.
    """
    source = open_source(path)
    head = source.head
    options = Options(limits=limits or Limits(), read_facts=read_facts)
    for decoder in DECODERS:
        if decoder.sniff(head):
            return decoder.decode(source, options)
    raise UnsupportedFormat(
        "no decoder reads this kind of file",
        expected=", ".join(decoder.name for decoder in DECODERS),
        got=_describe(head),
        next_step="leave it out in the card, or convert it",
    )


def _describe(head: bytes) -> str:
    """What unknown bytes look like, without quoting them."""
    if not head.strip(b"\0"):
        return "zero bytes only"
    known = ((b"<!DOCTYPE", "a web page"), (b"<html", "a web page"), (b"%PDF", "a PDF"), (b"PK\x03\x04", "a ZIP"))
    for magic, name in (*known, (b"GIF8", "a GIF"), (b"<svg", "an SVG"), (b"#EXTM3U", "a playlist")):
        if head.lstrip()[: len(magic)].lower() == magic.lower():
            return name
    printable = sum(32 <= byte < 127 or byte in (9, 10, 13) for byte in head)
    return "text" if printable == len(head) else "unknown bytes"
