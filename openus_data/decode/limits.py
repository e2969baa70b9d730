"""Bounds on what a file may declare, checked before anything of that size is allocated.

check_frame(height, width, samples=3, bytes_per_sample=1, limits=limits)   # raises DecodeLimit
"""

from __future__ import annotations

from dataclasses import dataclass

from openus_data.errors import DecodeError, DecodeLimit

_EXACT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds per file.

    Args:
        frame_pixels: height times width of one frame.
        frame_bytes: one frame as the file stores it, decoded, in bytes.
        frames: frames of a clip or slices of a volume.
        inflated_bytes: what a compressed header, data set or array may inflate to in memory, in bytes.
        total_pixels: pixels of all frames together, which bounds the time.
        volume_bytes: an array of any number of axes, in bytes; it is read in passing, so this bounds the time.
    """

    frame_pixels: int = 1 << 26
    frame_bytes: int = 1 << 28
    frames: int = 100_000
    inflated_bytes: int = 1 << 29
    total_pixels: int = 1 << 37
    volume_bytes: int = 1 << 33


def amount(number: int) -> str:
    """A number of a file's header for a message: exact up to a million, else its size alone.

    A header may hold a record number or a birth date where a size should be, and a message must not repeat it.
    """
    return f"{number:,}" if abs(number) < _EXACT else f"a number of {len(str(abs(number)))} digits"


def check_frame(height: int, width: int, *, samples: int = 1, bytes_per_sample: int = 1, limits: Limits) -> None:
    """Refuse a frame of no size, or of more pixels or bytes than the limits allow.

    Raises:
        DecodeError: a side is not positive.
        DecodeLimit: the declared size is beyond the bound.
    """
    if height < 1 or width < 1:
        raise DecodeError(
            "a picture of no size", expected="height and width of at least 1", got=f"{amount(height)}x{amount(width)}"
        )
    if height * width > limits.frame_pixels:
        raise DecodeLimit(
            "declared picture too large",
            expected=f"at most {limits.frame_pixels:,} pixels (limit frame_pixels)",
            got=f"{amount(height)}x{amount(width)}",
            next_step="if the picture is real, raise the limit",
        )
    size_bytes = height * width * max(samples, 1) * max(bytes_per_sample, 1)
    if size_bytes > limits.frame_bytes:
        raise DecodeLimit(
            "declared frame too large",
            expected=f"at most {limits.frame_bytes:,} bytes (limit frame_bytes)",
            got=amount(size_bytes),
            next_step="if the picture is real, raise the limit",
        )


def check_frames(count: int, height: int, width: int, *, limits: Limits) -> None:
    """Refuse no frames, or more frames or pixels in all than the limits allow.

    Raises:
        DecodeError: there are no frames.
        DecodeLimit: the declared number is beyond the bound.
    """
    if count < 1:
        raise DecodeError(
            "no frames", expected="at least one frame", got=amount(count), next_step="the file is left out"
        )
    if count > limits.frames:
        raise DecodeLimit(
            "too many frames declared",
            expected=f"at most {limits.frames:,} (limit frames)",
            got=amount(count),
            next_step="if the clip is real, raise the limit",
        )
    if count * height * width > limits.total_pixels:
        raise DecodeLimit(
            "too many pixels declared",
            expected=f"at most {limits.total_pixels:,} in all frames (limit total_pixels)",
            got=f"{amount(count)} frames of {amount(height)}x{amount(width)}",
            next_step="if the clip is real, raise the limit",
        )
