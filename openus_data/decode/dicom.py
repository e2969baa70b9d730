"""DICOM ultrasound: header facts through the caller's allow-list, frames on demand.

How samples become uint8: up to 8 bits stored stay as they are; more are mapped by the header's window if it has one,
else by `tone` over all frames; MONOCHROME1 is inverted; palettes are expanded (16-bit entries by their high byte); YBR
becomes RGB; a picture without colour gets one channel. In a clip of JPEG frames one frame in `TINT_EVERY` is looked at
for colour, and those between two grey ones are decoded as grey, at half the price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut

from openus_data.decode import dicom_frames as frames
from openus_data.decode import grey, jpeg
from openus_data.decode.dicom_class import check_class
from openus_data.decode.dicom_header import (
    ENHANCED_VOLUME,
    PLAIN,
    Header,
    Layout,
    first_float,
    read_header,
    read_layout,
    read_regions,
    read_spacing,
    text_of,
)
from openus_data.decode.limits import Limits
from openus_data.decode.source import Options, Place, Source, guard, pick
from openus_data.decode.tone import KEEP, Tone, find_tone
from openus_data.decode.video import stream_media
from openus_data.errors import DecodeError
from openus_data.records import Media, Pixels

TINT_EVERY = 8
"""JPEG clips are looked at for colour in one frame of so many; between two grey ones a frame is decoded as grey."""


_WINDOW_REACH = 1 << 18
"""A window beyond this shows nothing of 16-bit samples, so it is a mistake, or somebody's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendering:
    """The way from samples to uint8, found once per file.

    Args:
        palette: every stored value's colour, uint8 (values, 3).
        tone: of monochrome samples.
        tints: which frames that were looked at have a tint.
    """

    palette: NDArray[np.uint8] | None = None
    tone: Tone = KEEP
    tints: dict[int, bool] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Frames of one object: bytes, codec, and the way to uint8."""

    header: Header = field(repr=False)
    layout: Layout
    pieces: frames.FrameBytes
    limits: Limits
    rendering: _Rendering

    def samples(self, index: int) -> tuple[NDArray[Any], bool]:
        """One frame as stored, and whether its colour is RGB already."""
        raw = self.pieces.of(self.header.body, index)
        layout = self.layout
        if self.header.pixels_bytes is not None:
            little = self.header.is_little_endian
            stored, is_rgb = frames.unpack_plain(raw, layout, is_little_endian=little), False
        else:
            stored, is_rgb = frames.codec_of(self.header.syntax)(raw, layout, self.limits)
        wanted = (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, 3)
        if stored.shape != wanted:
            raise DecodeError("DICOM frame disagrees with its header", expected=str(wanted), got=str(stored.shape))
        return _stored_bits(stored, layout), is_rgb

    def pixels(self, index: int) -> Pixels:
        """One frame as uint8."""
        if self.is_jpeg:
            return self._jpeg(index)
        stored, is_rgb = self.samples(index)
        if self.rendering.palette is not None:
            return grey.collapse(self.rendering.palette[stored])
        if self.layout.samples == 3:
            return _colour(_eight_bits(stored, self.layout), self.layout, is_rgb=is_rgb)
        return self._monochrome(self.rendering.tone.apply(stored))

    @property
    def is_jpeg(self) -> bool:
        """Whether frames are DCT JPEG streams."""
        return self.header.pixels_bytes is None and self.header.syntax in (
            frames.JPEG_BASELINE,
            frames.JPEG_EXTENDED,
            "",
        )

    def _jpeg(self, index: int) -> Pixels:
        stream, header = self._stream(index)
        if (header.height, header.width) != (self.layout.rows, self.layout.columns):
            expected = f"{self.layout.rows}x{self.layout.columns}"
            raise DecodeError("DICOM frame disagrees with its header", expected=expected)
        as_grey = self.layout.frames > 1 and header.components == 3 and not self._is_tinted(index)
        decoded = jpeg.decode_stream(stream, header, as_grey=as_grey)
        if self.rendering.palette is not None:
            return grey.collapse(self.rendering.palette[decoded])
        return self._monochrome(decoded) if self.layout.samples == 1 else decoded

    def _stream(self, index: int) -> tuple[bytes, jpeg.JpegHeader]:
        return frames.jpeg_header(self.pieces.of(self.header.body, index), self.layout, self.limits)

    def _is_tinted(self, index: int) -> bool:
        """Whether a frame may have colour: the witness before it (one frame in `TINT_EVERY`) or after it has a tint."""
        before = index - index % TINT_EVERY
        witnesses = (before, min(before + TINT_EVERY, self.layout.frames - 1))
        for witness in witnesses:
            if witness not in self.rendering.tints:
                self.rendering.tints[witness] = jpeg.has_tint(*self._stream(witness))
        return any(self.rendering.tints[witness] for witness in witnesses)

    def _monochrome(self, pixels: Pixels) -> Pixels:
        return np.subtract(255, pixels, dtype=np.uint8) if self.layout.photometric == "MONOCHROME1" else pixels


def decode_dicom(source: Source, options: Options) -> Media:
    """Read a DICOM ultrasound object.

    Raises:
        NotUltrasound: another class, by name.
        UnsupportedFormat: a transfer syntax without a codec, by UID.
        DecodeError: damaged, cut short, contradicting itself.
    """
    header = read_header(source.data, limits=options.limits)
    check_class(header.dataset)
    layout = read_layout(header, limits=options.limits)
    facts: Mapping[str, Any] = {}
    subject = study = None
    if options.read_facts is not None:
        with guard("DICOM header is damaged"):
            facts, subject, study = options.read_facts(header.dataset)
    regions = read_regions(header.dataset, layout.rows, layout.columns)
    is_volume = text_of(header.dataset, "SOPClassUID") == ENHANCED_VOLUME
    shown = _open_frames(source, header, layout, options.limits)
    return Media(
        kind="still" if shown.count == 1 else "volume" if is_volume else "clip",
        frame_count=shown.count,
        height_px=layout.rows,
        width_px=layout.columns,
        read=shown.read,
        regions=regions,
        spacing_mm=read_spacing(header.dataset, regions),
        facts=facts,
        subject=subject,
        study=study,
        notes=(*header.notes, *shown.notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    count: int
    read: Callable[[Sequence[int] | None], Iterator[tuple[int, Pixels]]]
    notes: tuple[str, ...]


def _open_frames(source: Source, header: Header, layout: Layout, limits: Limits) -> _Shown:
    if header.pixels_bytes is None and header.syntax in frames.VIDEO:
        return _open_video(source, header, layout, limits)
    reader = _Reader(
        header=header, layout=layout, pieces=_pieces(header, layout), limits=limits, rendering=_Rendering()
    )
    reader = replace(reader, rendering=_rendering(reader))
    first = reader.pixels(0)  # a file whose first frame cannot be read is refused here
    return _Shown(
        count=layout.frames,
        read=partial(_read_again, source.place, layout, limits, reader.rendering, first),
        notes=(*reader.pieces.notes, *_notes(reader)),
    )


def _read_again(
    place: Place,
    layout: Layout,
    limits: Limits,
    rendering: _Rendering,
    first: Pixels,
    indices: Sequence[int] | None = None,
) -> Iterator[tuple[int, Pixels]]:
    """Frames by index; the file is opened again for those beyond the first."""
    reader: _Reader | None = None
    for index in pick(indices, layout.frames):
        if index == 0:
            yield index, first
            continue
        if reader is None:
            header = read_header(place.reopen().data, limits=limits)
            pieces = _pieces(header, layout)
            reader = _Reader(header=header, layout=layout, pieces=pieces, limits=limits, rendering=rendering)
        yield index, reader.pixels(index)


def _pieces(header: Header, layout: Layout) -> frames.FrameBytes:
    is_plain = header.pixels_bytes is not None
    if header.syntax not in {*PLAIN, frames.JPEG_BASELINE, frames.JPEG_EXTENDED}:
        frames.codec_of(header.syntax)
    if is_plain != (header.syntax in PLAIN) and header.syntax:
        raise DecodeError(
            "DICOM pixel data is not packed as its transfer syntax says", got=frames.shown_syntax(header.syntax)
        )
    return frames.plain_frames(header, layout) if is_plain else frames.encapsulated_frames(header, layout)


def _rendering(reader: _Reader) -> _Rendering:
    layout, dataset = reader.layout, reader.header.dataset
    if layout.photometric == "PALETTE COLOR":
        return _Rendering(palette=_palette(dataset, layout))
    if layout.samples == 1 and layout.bits_stored > 8 and not reader.is_jpeg:
        return _Rendering(
            tone=_window(dataset) or find_tone(reader.samples(index)[0] for index in range(layout.frames))
        )
    return _Rendering()


def _open_video(source: Source, header: Header, layout: Layout, limits: Limits) -> _Shown:
    """MPEG-2, H.264 or HEVC inside DICOM: all fragments are one stream."""
    syntax = frames.VIDEO[header.syntax]
    _, pieces = frames.fragments(header)
    span = frames.FrameBytes(spans=[tuple(pieces)])
    place = source.place
    media = stream_media(lambda: span.of(place.reopen().data, 0), syntax, limits=limits)
    if media.frame_count < layout.frames:
        raise DecodeError(
            "DICOM holds fewer frames than it declares", expected=f"{layout.frames:,}", got=f"{media.frame_count:,}"
        )
    if (media.height_px, media.width_px) != (layout.rows, layout.columns):
        raise DecodeError("DICOM video disagrees with its header", expected=f"{layout.rows}x{layout.columns}")

    def read(indices: Sequence[int] | None = None) -> Iterator[tuple[int, Pixels]]:
        return media.read(pick(indices, layout.frames))

    return _Shown(count=layout.frames, read=read, notes=media.notes)


def _notes(reader: _Reader) -> tuple[str, ...]:
    words = [reader.layout.photometric.lower()] if reader.layout.photometric != "MONOCHROME2" else []
    return (*words, *((reader.rendering.tone.note,) if reader.rendering.tone.note else ()))


def _stored_bits(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """The bits that are stored, moved down to bit 0, and none beside them: overlays hide there."""
    if layout.bits_allocated == layout.bits_stored or stored.dtype.itemsize * 8 != layout.bits_allocated:
        return stored
    above = layout.bits_allocated - 1 - layout.high_bit
    if stored.dtype.kind == "i":
        signed: NDArray[Any] = (stored << above) >> (layout.bits_allocated - layout.bits_stored)
        return signed
    down = layout.high_bit + 1 - layout.bits_stored
    low_bits: NDArray[Any] = (stored >> down) & stored.dtype.type((1 << layout.bits_stored) - 1)
    return low_bits


def _eight_bits(stored: NDArray[Any], layout: Layout) -> Pixels:
    return stored if stored.dtype == np.uint8 else (stored >> max(layout.bits_stored - 8, 0)).astype(np.uint8)


def _colour(pixels: Pixels, layout: Layout, *, is_rgb: bool) -> Pixels:
    if is_rgb or not layout.photometric.startswith("YBR_FULL"):
        return grey.collapse(pixels)
    if grey.chroma_is_flat(np.ascontiguousarray(pixels[..., 1]), np.ascontiguousarray(pixels[..., 2])):
        return np.ascontiguousarray(pixels[..., 0])
    return grey.collapse(frames.to_rgb(pixels))


def _palette(dataset: Dataset, layout: Layout) -> NDArray[np.uint8]:
    """Every stored value's colour, uint8 (2**bits_stored, 3)."""
    with guard("DICOM palette is damaged"):
        values = np.arange(1 << layout.bits_stored, dtype=np.uint8 if layout.bits_stored <= 8 else np.uint16)
        table: NDArray[Any] = np.asarray(apply_color_lut(values, dataset))
    return np.asarray(table if table.max() <= 255 else table >> 8, dtype=np.uint8)


def _window(dataset: Dataset) -> Tone | None:
    """The header's first window as a map of stored values (PS3.3 C.11.2.1.2, linear), or None."""
    centre, width = first_float(dataset, "WindowCenter"), first_float(dataset, "WindowWidth")
    if centre is None or width is None or width <= 1:
        return None
    slope = first_float(dataset, "RescaleSlope") or 1.0
    intercept = first_float(dataset, "RescaleIntercept") or 0.0
    if slope <= 0:
        return None
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    if max(abs(low), abs(high), abs(intercept)) > _WINDOW_REACH:
        return None
    return Tone(low=(low - intercept) / slope, high=(high - intercept) / slope, note=f"window {centre:g} {width:g}")
