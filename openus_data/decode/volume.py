"""Arrays of more than two axes as slices, in flat memory.

The axis rule, for every format: the two axes that vary fastest in the file are the picture (after a colour axis, where
there is one), and slices are counted along all slower axes together, the slowest last to vary. Where the fastest axis
is the column (NIfTI, MetaImage, NRRD, C-ordered arrays) rows lie as stored; where it is the row (MATLAB and other
Fortran-ordered arrays) each slice is transposed, so that a picture looks as it does in the tool that wrote it.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from openus_data.decode import grey
from openus_data.decode.limits import Limits, amount, check_frame, check_frames
from openus_data.decode.source import Source, guard, pick
from openus_data.decode.tone import KEEP, find_tone
from openus_data.errors import DecodeError, DecodeLimit, UnsupportedFormat
from openus_data.records import Media, Pixels

_READ_BYTES = 1 << 20
_MAX_DEFLATE_RATIO = 1040
_MAX_AXES = 8
_KEPT_BYTES = 1 << 25
"""An array that had to be read once to be judged is kept for reading when it is no larger than this."""

Slices = Iterator[tuple[int, NDArray[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How an array is cut into slices.

    Args:
        count: slices.
        height, width: of a slice, in pixels.
        samples: 1 grey, 3 RGB, 4 RGBA; the fastest axis of a slice when not 1.
        dtype: of one sample, byte order included.
        is_transposed: rows vary fastest in the file.
    """

    count: int
    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    is_transposed: bool = False

    @property
    def slice_bytes(self) -> int:
        """Bytes of one slice as stored."""
        return self.height * self.width * self.samples * self.dtype.itemsize

    def cut(self, raw: bytes | memoryview) -> NDArray[Any]:
        """Bytes of one slice to (H, W) or (H, W, samples)."""
        flat = np.frombuffer(raw, self.dtype)
        across, down = (self.height, self.width) if self.is_transposed else (self.width, self.height)
        picture = flat.reshape((down, across) if self.samples == 1 else (down, across, self.samples))
        return picture.swapaxes(0, 1) if self.is_transposed else picture


def shape_of(
    axes: Sequence[int],
    dtype: np.dtype[Any],
    *,
    limits: Limits,
    samples: int = 1,
    is_transposed: bool = False,
) -> Shape:
    """Cut an array into slices and check the result against the limits.

    Args:
        axes: lengths, the fastest axis first, colour left out.
        dtype: of one sample.
        limits: bounds.
        samples: length of the colour axis.
        is_transposed: the fastest axis is the row.

    Raises:
        UnsupportedFormat: too few or too many axes, or samples that are not numbers.
        DecodeLimit: beyond the limits.
    """
    if dtype.kind not in "biuf":
        raise UnsupportedFormat("samples are not real numbers", expected="integers or floats", got=dtype.name)
    if not 2 <= len(axes) <= _MAX_AXES:
        raise UnsupportedFormat("an array that is no picture", expected=f"2 to {_MAX_AXES} axes", got=f"{len(axes)}")
    if any(length < 1 for length in axes):
        raise DecodeError("an array of no size", expected="every axis at least 1")
    fast, second = axes[:2]
    height, width = (fast, second) if is_transposed else (second, fast)
    count = math.prod(axes[2:])
    check_frame(height, width, samples=samples, bytes_per_sample=dtype.itemsize, limits=limits)
    check_frames(count, height, width, limits=limits)
    shape = Shape(count=count, height=height, width=width, samples=samples, dtype=dtype, is_transposed=is_transposed)
    if count * shape.slice_bytes > limits.volume_bytes:
        raise DecodeLimit(
            "declared array too large",
            expected=f"at most {limits.volume_bytes:,} bytes (limit volume_bytes)",
            got=amount(count * shape.slice_bytes),
        )
    return shape


def volume_media(
    shape: Shape,
    slices: Callable[[Sequence[int]], Slices],
    *,
    spacing_mm: tuple[float, float] | None = None,
    notes: Iterable[str] = (),
    kind: Literal["clip", "volume"] = "volume",
    is_complete: bool = False,
) -> Media:
    """A Media of the slices.

    Args:
        shape: of the array.
        slices: reads slices of rising index.
        spacing_mm: (row, column) where the file says it.
        notes: how the samples were read.
        kind: what several slices are.
        is_complete: the file is known to hold all its bytes; otherwise everything is read once to find out.
    """
    tone = KEEP
    kept: list[NDArray[Any]] = []
    if not (shape.dtype == np.uint8 and is_complete):
        keeps = shape.count * shape.slice_bytes <= _KEPT_BYTES
        tone = find_tone(_passing(slices(range(shape.count)), kept if keeps else None))

    def read(indices: Sequence[int] | None = None) -> Iterator[tuple[int, Pixels]]:
        wanted = pick(indices, shape.count)
        for index, samples in ((index, kept[index]) for index in wanted) if kept else slices(wanted):
            pixels = tone.apply(samples[..., :3] if shape.samples > 1 else samples)
            yield index, grey.collapse(np.ascontiguousarray(pixels))

    return Media(
        kind="still" if shape.count == 1 else kind,
        frame_count=shape.count,
        height_px=shape.height,
        width_px=shape.width,
        read=read,
        spacing_mm=spacing_mm,
        notes=tuple(note for note in (*notes, tone.note) if note),
    )


def _passing(slices: Slices, kept: list[NDArray[Any]] | None) -> Iterator[NDArray[Any]]:
    """The samples of slices, put aside in passing where there is a place for them."""
    for _, samples in slices:
        if kept is not None:
            kept.append(samples)
        yield samples


def raw_slices(reopen: Callable[[], Source], start: int, shape: Shape, indices: Sequence[int]) -> Slices:
    """Slices of uncompressed samples, straight from the mapped file."""
    data = reopen().data
    for index in indices:
        place = start + index * shape.slice_bytes
        raw = data[place : place + shape.slice_bytes]
        if len(raw) < shape.slice_bytes:
            raise _cut_short()
        yield index, shape.cut(raw)


def deflated_slices(
    reopen: Callable[[], Source], place: int, start: int, shape: Shape, indices: Sequence[int]
) -> Slices:
    """Slices of samples under gzip or zlib, inflated in passing.

    Args:
        reopen: maps the file.
        place: where the compressed stream starts in the file.
        start: where the samples start in the inflated stream.
        shape: of the array.
        indices: rising.
    """
    stream = Inflater(reopen().data, place)
    stream.skip(start)
    following = 0
    for index in indices:
        stream.skip((index - following) * shape.slice_bytes)
        following = index + 1
        yield index, shape.cut(stream.read_exactly(shape.slice_bytes))
    if following == shape.count:
        stream.finish()


def check_raw(size: int, start: int, shape: Shape) -> None:
    """Refuse a file that cannot hold the uncompressed samples it declares."""
    if start + shape.count * shape.slice_bytes > size:
        raise _cut_short()


def check_deflated(size: int, shape: Shape) -> None:
    """Refuse a file that could not hold the declared samples even at the best ratio that deflate has."""
    if shape.count * shape.slice_bytes > size * _MAX_DEFLATE_RATIO:
        raise _cut_short()


def _cut_short() -> DecodeError:
    return DecodeError(
        "array cut short", expected="all declared samples", got="fewer bytes", next_step="fetch the file again"
    )


class Inflater:
    """A forward reader of gzip (any number of members) or zlib data inside a mapped file.

    Args:
        data: the mapped file.
        place: where the compressed stream starts.
    """

    def __init__(self, data: mmap.mmap | bytes, place: int = 0) -> None:
        self._data, self._place = data, place
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._held = b""

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer at the end.

        Raises:
            DecodeError: damaged data, or a checksum that does not match.
        """
        parts: list[bytes] = []
        while count > 0 and (piece := self._more(count)):
            parts.append(piece)
            count -= len(piece)
        return b"".join(parts)

    def _more(self, count: int) -> bytes:
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data
                if not rest.startswith(b"\x1f\x8b"):
                    return b""
                self._held, self._inflater = rest, zlib.decompressobj(zlib.MAX_WBITS | 32)
            if not self._held:
                self._held = self._data[self._place : self._place + _READ_BYTES]
                self._place += len(self._held)
            with guard("compressed array is damaged"):
                piece = self._inflater.decompress(self._held, count)
            was_held, self._held = self._held, self._inflater.unconsumed_tail
            if piece:
                return piece
            if not was_held and not self._inflater.eof:
                return b""

    def read_exactly(self, count: int) -> bytes:
        """`count` bytes.

        Raises:
            DecodeError: the stream ends before.
        """
        raw = self.read(count)
        if len(raw) < count:
            raise _cut_short()
        return raw

    def skip(self, count: int) -> None:
        """Inflate and drop `count` bytes."""
        while count > 0:
            count -= len(self.read_exactly(min(count, _READ_BYTES)))

    def finish(self) -> None:
        """Read the little that may follow the samples, so that the checksum at the end is verified.

        Raises:
            DecodeError: the stream is cut, or its checksum does not match.
        """
        if len(self.read(_READ_BYTES)) < _READ_BYTES and not self._inflater.eof:
            raise _cut_short()


def known_spacing(across: float, down: float) -> tuple[float, float] | None:
    """(row, column) in mm, or None where it is not finite, not positive, or the default of 1 that writers leave."""
    usable = all(math.isfinite(value) and value > 0 for value in (across, down))
    return (down, across) if usable and not across == down == 1.0 else None
