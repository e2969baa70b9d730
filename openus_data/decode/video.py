"""Clips: AVI, MP4 and MOV, Matroska and WebM, and the bare MPEG streams inside DICOM.

Only the one local file is read: the container's kind is fixed by its magic bytes and ffmpeg gets no protocol to open
another with. A grey clip comes from the luma plane, without conversion. A clip that is cut short, loses frames, or
changes its frame size is refused; a rotation in the container is applied.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import av
import cv2
import numpy as np
from av.container import InputContainer

from openus_data.decode import grey
from openus_data.decode.limits import Limits, amount, check_frame, check_frames
from openus_data.decode.source import Options, Source, guard, pick
from openus_data.errors import DecodeError, UnsupportedFormat
from openus_data.records import Media, Pixels

av.logging.set_level(av.logging.PANIC)

OpenBytes = Callable[[], Any]
"""Gives a fresh reader of the stream: bytes, or something with read, seek and tell."""

_ONE_FRAME_PER_PACKET = {
    "h264",
    "hevc",
    "mjpeg",
    "vp9",
    "av1",
    "rawvideo",
    "png",
    "ffv1",
    "huffyuv",
    "ffvhuff",
    "dvvideo",
}
_INTRA_ONLY = {"mjpeg", "rawvideo", "png", "huffyuv", "ffvhuff", "dvvideo"}
_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "yuvj411p", "gray"}
_FULL_RANGE = 2
_SEGMENT, _UNKNOWN = b"\x18\x53\x80\x67", -1
_STUDIO_TO_FULL = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def stream_media(open_bytes: OpenBytes, container: str, *, limits: Limits) -> Media:
    """A Media of the first video stream.

    Args:
        open_bytes: gives a fresh reader for every pass.
        container: ffmpeg's name of the container or bare stream.
        limits: bounds.

    Raises:
        DecodeError: no video, no frames, damaged.
        DecodeLimit: declared size beyond the limits.
    """
    count, first = _survey(open_bytes, container, limits)
    if first is None:
        raise DecodeError("no frames", expected="at least one frame", got="0", next_step="the file is left out")
    height, width = first.shape[:2]
    check_frames(count, height, width, limits=limits)

    def read(indices: Sequence[int] | None = None) -> Iterator[tuple[int, Pixels]]:
        wanted = pick(indices, count)
        for index, pixels in _frames(open_bytes, container, wanted, count, limits):
            if pixels.shape[:2] != (height, width):
                got = f"{pixels.shape[0]}x{pixels.shape[1]}"
                raise DecodeError("frames of a clip change their size", expected=f"{height}x{width}", got=got)
            yield index, pixels

    return Media(kind="clip" if count > 1 else "still", frame_count=count, height_px=height, width_px=width, read=read)


def _open(open_bytes: OpenBytes, container: str, limits: Limits) -> InputContainer:
    reader = open_bytes()
    with guard("video cannot be opened"):
        opened: InputContainer = av.open(
            io.BytesIO(reader) if isinstance(reader, bytes) else reader,
            format=container,
            metadata_errors="ignore",
            options={"protocol_whitelist": "none", "max_pixels": str(limits.frame_pixels), "err_detect": "explode"},
        )
    return opened


def _video_stream(opened: InputContainer, limits: Limits) -> av.VideoStream:
    if not opened.streams.video:
        raise DecodeError("no video stream", next_step="the file is left out")
    stream = opened.streams.video[0]
    if stream.codec_context is None:
        raise UnsupportedFormat("video codec that is not read", next_step="convert the clip to H.264")
    check_frame(stream.height, stream.width, samples=3, limits=limits)
    stream.codec_context.thread_count = 1  # files are decoded side by side; a fixed order costs nothing
    return stream


def _survey(open_bytes: OpenBytes, container: str, limits: Limits) -> tuple[int, Pixels | None]:
    """Frames that are there (packets where each holds one frame, decoded frames elsewhere), and the first of them."""
    count, first = 0, None
    with closing(_open(open_bytes, container, limits)) as opened, guard("video is damaged"):
        stream = _video_stream(opened, limits)
        by_packet = stream.codec_context.name in _ONE_FRAME_PER_PACKET
        for packet in opened.demux(stream):
            if by_packet and packet.size and not packet.is_discard:
                count += 1
            if by_packet and first is not None:
                continue
            decoded = packet.decode()
            if first is None and decoded:
                first = _pixels(cast(av.VideoFrame, decoded[0]))
            count += 0 if by_packet else len(decoded)
    if count > limits.frames:
        check_frames(count, 1, 1, limits=limits)
    return count, first


def _frames(
    open_bytes: OpenBytes, container: str, wanted: Sequence[int] | set[int], count: int, limits: Limits
) -> Iterator[tuple[int, Pixels]]:
    """Decode up to the last frame wanted.

    Raises:
        DecodeError: damage, or fewer frames than were counted.
    """
    last = max(wanted, default=-1)
    chosen: Container[int] = wanted if isinstance(wanted, (range, set)) else frozenset(wanted)
    done = -1
    with closing(_open(open_bytes, container, limits)) as opened:
        stream = _video_stream(opened, limits)
        decoded = _decoded(opened, stream, chosen)
        while done < last:
            with guard("video is damaged"):
                index, frame = next(decoded, (-1, None))
                if frame is None:
                    break
                done = index
                if index not in chosen:
                    continue
                if frame.is_corrupt:
                    raise DecodeError("video is damaged", got=f"a corrupt frame at {index}")
                pixels = _pixels(frame)
            yield index, pixels
    if done < last:
        raise DecodeError(
            "clip ends early", expected=f"{count:,} frames", got=f"{done + 1:,}", next_step="fetch it again"
        )


def _decoded(
    opened: InputContainer, stream: av.VideoStream, chosen: Container[int]
) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """Frames by index; None in place of a frame that stands alone and is not wanted."""
    if stream.codec_context.name not in _INTRA_ONLY:
        yield from enumerate(opened.decode(stream))
        return
    index = 0
    for packet in opened.demux(stream):
        if packet.size and index not in chosen:
            index += 1
            continue
        for frame in packet.decode():
            yield index, cast(av.VideoFrame, frame)
            index += 1


def _pixels(frame: av.VideoFrame) -> Pixels:
    """One frame, (H, W) from luma when its chroma is flat, else (H, W, 3) RGB."""
    if frame.format.name in _PLANAR:
        luma, *chroma = (_plane(plane) for plane in frame.planes)
        scale = max(1, luma.shape[1] // max(chroma[0].shape[1], 1)) if chroma else 1
        if grey.chroma_is_flat(*chroma, scale=scale):
            return _turned(_full_range(frame, luma[: frame.height, : frame.width]), frame)
    return _turned(grey.collapse(frame.to_ndarray(format="rgb24")), frame)


def _plane(plane: Any) -> Pixels:
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _full_range(frame: av.VideoFrame, luma: Pixels) -> Pixels:
    is_full = frame.format.name.startswith(("yuvj", "gray")) or frame.color_range == _FULL_RANGE
    return luma.copy() if is_full else cast(Pixels, cv2.LUT(luma, _STUDIO_TO_FULL))


def _turned(pixels: Pixels, frame: av.VideoFrame) -> Pixels:
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _decode_file(source: Source, options: Options, container: str, check: Callable[[Source], None]) -> Media:
    check(source)
    place = source.place
    return stream_media(lambda: place.reopen().data, container, limits=options.limits)


def decode_avi(source: Source, options: Options) -> Media:
    """Read an AVI; its RIFF chunk must lie inside the file."""
    return _decode_file(source, options, "avi", _check_riff)


def decode_mp4(source: Source, options: Options) -> Media:
    """Read an MP4 or MOV; its boxes must lie inside the file."""
    return _decode_file(source, options, "mov", _check_boxes)


def decode_matroska(source: Source, options: Options) -> Media:
    """Read a Matroska or WebM; a segment of declared length must lie inside the file."""
    return _decode_file(source, options, "matroska", _check_segment)


def _check_riff(source: Source) -> None:
    (declared,) = struct.unpack_from("<I", source.head, 4)
    if declared + 8 > source.size:
        raise DecodeError("AVI cut short", expected=f"{amount(declared + 8)} bytes", got=f"{source.size:,}")


def _check_boxes(source: Source) -> None:
    place, kinds = 0, set[bytes]()
    while place + 8 <= source.size:
        length, kind = struct.unpack_from(">I4s", source.data, place)
        if length == 1 and place + 16 <= source.size:
            (length,) = struct.unpack_from(">Q", source.data, place + 8)
        elif length == 0:
            length = source.size - place
        if length < 8 or place + length > source.size:
            raise DecodeError("MP4 cut short or damaged", expected="whole boxes", next_step="fetch the file again")
        kinds.add(kind)
        place += length
    if b"moov" not in kinds:
        raise DecodeError("MP4 cut short", expected="an index (moov)", next_step="fetch the file again")


def _check_segment(source: Source) -> None:
    head = source.head
    length, place = _ebml_number(head, 4)
    segment = place + length
    if head[segment : segment + 4] != _SEGMENT:
        raise DecodeError("Matroska cut short or damaged", expected="a segment", next_step="fetch the file again")
    declared, start = _ebml_number(head, segment + 4)
    if declared != _UNKNOWN and start + declared > source.size:
        raise DecodeError("Matroska cut short", expected=f"{amount(start + declared)} bytes", got=f"{source.size:,}")


def _ebml_number(head: bytes, place: int) -> tuple[int, int]:
    """A variable-length number and the place behind it; `_UNKNOWN` where all its bits are set."""
    if place >= len(head) or head[place] == 0:
        raise DecodeError("Matroska cut short or damaged", next_step="fetch the file again")
    width = 9 - head[place].bit_length()
    bits = int.from_bytes(head[place : place + width], "big") & ((1 << 7 * width) - 1)
    return _UNKNOWN if bits == (1 << 7 * width) - 1 else bits, place + width
