"""Silence for C libraries that print what they think of a file.

libpng and its like write to C's `stderr` stream. For the time of a call the stream variable points to the null device;
Python's own `sys.stderr` (progress bars, logs) does not go through it and is not touched. Where the system has no such
variable nothing happens. OpenCV writes to a log of its own, which is switched off here once and for all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class _Stream:
    """C's `stderr` variable, its value at import, and the null device."""

    slot: ctypes.c_void_p | None = None
    own: int | None = None
    null: int | None = None


with suppress(OSError, ValueError, AttributeError):
    _libc = ctypes.CDLL(None)
    _libc.fopen.restype = ctypes.c_void_p
    _Stream.null = _libc.fopen(b"/dev/null", b"w")
    for _name in ("stderr", "__stderrp"):
        with suppress(ValueError):
            _Stream.slot = ctypes.c_void_p.in_dll(_libc, _name)
            _Stream.own = _Stream.slot.value
            break


@contextmanager
def quiet_c_libraries() -> Iterator[None]:
    """What C code prints inside the block is dropped."""
    if _Stream.slot is None or not _Stream.null:
        yield
        return
    _Stream.slot.value = _Stream.null
    try:
        yield
    finally:
        _Stream.slot.value = _Stream.own
