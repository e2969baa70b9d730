"""Where each frame of a DICOM object lies, and how its bytes become samples.

Uncompressed frames are views of the mapped file. Encapsulated frames are found by walking the fragments, since offset
tables may lie, and each transfer syntax has one codec in `CODECS`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode as decode_openjpeg

from openus_data.decode import jpeg, packbits
from openus_data.decode.dicom_header import Header, Layout
from openus_data.decode.limits import Limits, amount, check_frame
from openus_data.decode.source import guard
from openus_data.errors import DecodeError, UnsupportedFormat

_JPEG_FAMILY = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE, JPEG_EXTENDED = _JPEG_FAMILY + "50", _JPEG_FAMILY + "51"
JPEG_LOSSLESS = {_JPEG_FAMILY + "57", _JPEG_FAMILY + "70"}
JPEG_LS = {_JPEG_FAMILY + "80", _JPEG_FAMILY + "81"}
JPEG_2000 = {_JPEG_FAMILY + tail for tail in ("90", "91", "201", "202", "203")}
VIDEO = {_JPEG_FAMILY + str(number): "mpegvideo" for number in (100, 101)}
VIDEO |= {_JPEG_FAMILY + str(number): "h264" for number in range(102, 107)}
VIDEO |= {_JPEG_FAMILY + str(number): "hevc" for number in (107, 108)}
_SHORT_UID = 32
_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\0\0\0\x0cjP  ")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBytes:
    """The bytes of every frame.

    Args:
        spans: per frame, the (start, end) pieces of it in the header's body.
        notes: what was left over.
    """

    spans: Sequence[tuple[tuple[int, int], ...]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def of(self, body: Any, index: int) -> bytes:
        """The bytes of one frame, joined."""
        view = body.getbuffer() if hasattr(body, "getbuffer") else body
        return b"".join(bytes(view[start:end]) for start, end in self.spans[index])


def plain_frames(header: Header, layout: Layout) -> FrameBytes:
    """Cut uncompressed pixel data into frames.

    Raises:
        DecodeError: fewer bytes than the declared frames need.
    """
    assert header.pixels_at is not None
    size = frame_bytes(layout)
    there = min(header.pixels_bytes or 0, _length(header.body) - header.pixels_at)
    if there < size * layout.frames:
        raise DecodeError(
            "DICOM pixel data shorter than declared",
            expected=f"{layout.frames:,} frames of {size:,} bytes",
            got=f"{there:,} bytes",
            next_step="fetch the file again",
        )
    leftover = there - size * layout.frames
    spans = [
        ((header.pixels_at + index * size, header.pixels_at + (index + 1) * size),) for index in range(layout.frames)
    ]
    return FrameBytes(spans=spans, notes=("bytes after the last frame dropped",) if leftover > 1 else ())


def frame_bytes(layout: Layout) -> int:
    """Bytes of one uncompressed frame."""
    pixels = layout.rows * layout.columns
    if layout.photometric == "YBR_FULL_422" and layout.samples == 3:
        return pixels * 2 * (layout.bits_allocated // 8)
    return pixels * layout.samples * (layout.bits_allocated // 8)


def fragments(header: Header) -> tuple[list[int], list[tuple[int, int]]]:
    """The basic offset table and the (start, end) of each fragment.

    Raises:
        DecodeError: an item is damaged or runs past the end.
    """
    assert header.pixels_at is not None
    body, end = header.body, _length(header.body)
    view = body.getbuffer() if hasattr(body, "getbuffer") else body
    place, pieces = header.pixels_at, list[tuple[int, int]]()
    while place + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", view, place)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000) or place + 8 + length > end:
            raise DecodeError("DICOM pixel data damaged or cut short", expected="whole fragments")
        pieces.append((place + 8, place + 8 + length))
        place += 8 + length
    if not pieces:
        raise DecodeError("DICOM pixel data cut short", expected="fragments", got="none")
    (start, stop), pieces = pieces[0], pieces[1:]
    table = list(struct.unpack_from(f"<{(stop - start) // 4}I", view, start))
    return table, pieces


def encapsulated_frames(header: Header, layout: Layout) -> FrameBytes:
    """Sort fragments into frames.

    Raises:
        DecodeError: fewer frames than declared.
    """
    table, pieces = fragments(header)
    groups = _group(header, table, pieces, layout.frames)
    if len(groups) < layout.frames:
        raise DecodeError(
            "DICOM holds fewer frames than it declares",
            expected=f"{layout.frames:,} frames",
            got=f"{len(groups):,}",
            next_step="fetch the file again",
        )
    notes = ("frames beyond the declared number dropped",) if len(groups) > layout.frames else ()
    return FrameBytes(spans=[tuple(group) for group in groups[: layout.frames]], notes=notes)


def _group(header: Header, table: list[int], pieces: list[tuple[int, int]], frames: int) -> list[list[tuple[int, int]]]:
    if len(pieces) == frames or header.syntax == RLE:
        return [[piece] for piece in pieces]
    view = header.body.getbuffer() if hasattr(header.body, "getbuffer") else header.body
    base = pieces[0][0] - 8 if pieces else 0
    starts = {base + offset + 8 for offset in table}
    if len(table) != frames or not starts <= {start for start, _ in pieces}:
        starts = {start for start, _ in pieces if bytes(view[start : start + 8]).startswith(_STARTS)}
    groups: list[list[tuple[int, int]]] = []
    for piece in pieces:
        if not groups or piece[0] in starts:
            groups.append([])
        groups[-1].append(piece)
    return groups


def unpack_plain(raw: bytes, layout: Layout, *, is_little_endian: bool) -> NDArray[Any]:
    """Bytes of one uncompressed frame to (H, W) or (H, W, 3) as stored."""
    kind = np.dtype(f"{'<' if is_little_endian else '>'}{'i' if layout.is_signed else 'u'}{layout.bits_allocated // 8}")
    flat = np.frombuffer(raw, kind)
    shape = (layout.rows, layout.columns)
    if layout.samples == 1:
        return flat.reshape(shape)
    if layout.photometric == "YBR_FULL_422":
        return _widen_422(flat.reshape(layout.rows, layout.columns // 2, 4))
    if layout.planar == 1:
        return np.ascontiguousarray(flat.reshape(3, *shape).transpose(1, 2, 0))
    return flat.reshape(*shape, 3)


def _widen_422(quads: NDArray[Any]) -> NDArray[Any]:
    """(H, W/2, [Y1, Y2, Cb, Cr]) to (H, W, [Y, Cb, Cr])."""
    height, half, _ = quads.shape
    wide = np.empty((height, half * 2, 3), quads.dtype)
    wide[:, :, 0] = quads[:, :, :2].reshape(height, half * 2)
    wide[:, :, 1:] = np.repeat(quads[:, :, 2:], 2, axis=1)
    return wide


def unpack_rle(raw: bytes, layout: Layout) -> NDArray[Any]:
    """One RLE frame (PS3.5 annex G) to (H, W) or (H, W, 3).

    Raises:
        DecodeError: segments that are damaged, or too few.
    """
    each = layout.bits_allocated // 8
    wanted = layout.samples * each
    if len(raw) < 64:
        raise DecodeError("RLE frame cut short")
    count, *offsets = struct.unpack_from("<16I", raw)
    if count != wanted or any(offset < 64 or offset > len(raw) for offset in offsets[:count]):
        raise DecodeError("RLE frame is damaged", expected=f"{wanted} segments", got=amount(count))
    ends = [*offsets[1:count], len(raw)]
    planes = [
        packbits.unpack(raw[start:end], layout.rows, layout.columns)
        for start, end in zip(offsets[:count], ends, strict=True)
    ]
    shape = (layout.rows, layout.columns)
    channels = []
    for sample in range(layout.samples):
        parts = planes[sample * each : (sample + 1) * each]
        stacked = np.stack(parts, axis=-1)  # most significant byte first
        kind = np.dtype(f">{'i' if layout.is_signed else 'u'}{each}")
        channels.append(np.ascontiguousarray(stacked).view(kind).reshape(shape).astype(kind.newbyteorder("=")))
    return channels[0] if layout.samples == 1 else np.dstack(channels)


def unpack_j2k(raw: bytes, limits: Limits) -> tuple[NDArray[Any], bool]:
    """One JPEG 2000 frame to samples, and whether its colour transform was undone (then it is RGB).

    Raises:
        DecodeError: cut short, damaged, or of another size than the header says.
    """
    start = raw.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(raw) < start + 42:
        raise DecodeError("JPEG 2000 frame is damaged", expected="a codestream")
    x1, y1, x0, y0 = struct.unpack_from(">4I", raw, start + 8)
    components = struct.unpack_from(">H", raw, start + 40)[0]
    check_frame(y1 - y0, x1 - x0, samples=components, bytes_per_sample=2, limits=limits)
    if b"\xff\xd9" not in raw[-8:]:
        raise DecodeError("JPEG 2000 frame cut short", next_step="fetch the file again")
    coding = raw.find(b"\xff\x52", start)
    mct = coding > 0 and len(raw) > coding + 8 and raw[coding + 8] == 1
    with guard("JPEG 2000 frame is damaged"):
        samples = decode_openjpeg(raw[start:] if raw[:4] != b"\xff\x4f\xff\x51" else raw, j2k_format=0)
    return np.asarray(samples), mct and components == 3


def unpack_with_ffmpeg(raw: bytes, codec: str, what: str) -> NDArray[Any]:
    """One JPEG-LS or lossless JPEG frame to samples, through PyAV.

    Raises:
        DecodeError: damaged or cut short.
        UnsupportedFormat: a variant that ffmpeg does not know (near-lossless by sample).
    """
    if b"\xff\xd9" not in raw[-16:]:
        raise DecodeError(f"{what} frame cut short", next_step="fetch the file again")
    with guard(f"{what} frame is damaged"):
        context = av.CodecContext.create(codec, "r")
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        packet = av.Packet(raw)
        packet.time_base = Fraction(1, 1)
        try:
            frames = [*context.decode(packet), *context.decode(None)]
        except av.error.PatchWelcomeError:
            raise UnsupportedFormat(f"{what} of a kind that is not read", next_step="convert the file") from None
        if not frames or not isinstance(frames[0], av.VideoFrame) or frames[0].is_corrupt:
            raise DecodeError(f"{what} frame is damaged", next_step="fetch the file again")
        samples = frames[0].to_ndarray()
    return np.ascontiguousarray(samples[..., ::-1]) if frames[0].format.name.startswith("bgr") else samples


def to_rgb(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, [Y, Cb, Cr]) full range BT.601 to RGB."""
    return np.ascontiguousarray(cv2.cvtColor(np.ascontiguousarray(ybr[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))


def jpeg_header(raw: bytes, layout: Layout, limits: Limits) -> tuple[bytes, jpeg.JpegHeader]:
    """A JPEG frame's stream and header; where DICOM says RGB and the stream says nothing, it is marked RGB."""
    start = raw.find(b"\xff\xd8")
    if start < 0:
        raise DecodeError("JPEG frame is damaged", expected="a JPEG stream")
    stream = raw[start:]
    header = jpeg.read_header(stream, limits=limits)
    if header.components == 3 and layout.photometric == "RGB" and not header.states_its_colours:
        stream = jpeg.as_rgb_stream(stream)
    return stream, header


def shown_syntax(syntax: str) -> str:
    """A transfer syntax for a message: by its UID, unless that is none or could be somebody's number."""
    if not re.fullmatch(r"[0-9.]{1,64}", syntax):
        return "an invalid UID"
    is_short = len(syntax) <= _SHORT_UID and not re.search(r"\d{7}", syntax)
    return syntax if is_short else "a private UID"


Codec = Callable[[bytes, Layout, Limits], tuple[NDArray[Any], bool]]
"""Bytes of a frame -> (samples as stored, whether colour is RGB already)."""


def codec_of(syntax: str) -> Codec:
    """The codec of an encapsulated transfer syntax.

    Raises:
        UnsupportedFormat: naming the syntax by UID.
    """
    if syntax == RLE:
        return lambda raw, layout, _: (unpack_rle(raw, layout), False)
    if syntax in JPEG_2000:
        return lambda raw, _, limits: unpack_j2k(raw, limits)
    if syntax in JPEG_LS:
        return lambda raw, _layout, _limits: (unpack_with_ffmpeg(raw, "jpegls", "JPEG-LS"), False)
    if syntax in JPEG_LOSSLESS:
        return lambda raw, _layout, _limits: (unpack_with_ffmpeg(raw, "mjpeg", "lossless JPEG"), False)
    raise UnsupportedFormat(
        "DICOM transfer syntax that is not read",
        got=shown_syntax(syntax),
        next_step="convert the file, for example with dcmdjpeg or gdcmconv",
    )


def _length(body: Any) -> int:
    return int(body.getbuffer().nbytes) if hasattr(body, "getbuffer") else len(body)
