"""What a decoder is given (an opened, checked, mapped file) and what it must be (a sniff and a decode).

A file is opened once, without following it into a pipe or a device, and mapped: reads beyond its end give less instead
of allocating what a lying header asks for. Third-party parsers run inside `guard`, the one place where their many
exceptions become a DecodeError. Their texts are dropped, since they may quote the file.
"""

from __future__ import annotations

import mmap
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openus_data.decode.limits import Limits
from openus_data.decode.quiet import quiet_c_libraries
from openus_data.errors import DecodeError, DecodeLimit, OpenUSDataError
from openus_data.records import Media

HEAD_BYTES = 4096
ReadFacts = Callable[[Any], tuple[Any, str | None, str | None]]
"""DICOM data set -> (manifest columns, subject key, study key)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a file lies and what it was, without holding it open.

    Args:
        path: where it lies. Never shown.
        size, modified: in bytes and nanoseconds, to notice a file that changes between two reads.
    """

    path: Path = field(repr=False)
    size: int
    modified: int

    def reopen(self) -> Source:
        """Map the file again for another pass.

        Raises:
            DecodeError: it is not the file it was.
        """
        again = open_source(self.path)
        if again.place != self:
            raise DecodeError("the file changed while it was being read", next_step="run again when it is at rest")
        return again


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One local file, mapped; it is open as long as this lives.

    Args:
        place: where it lies.
        data: its bytes, read-only.
    """

    place: Place
    data: mmap.mmap = field(repr=False)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.place.size

    @property
    def head(self) -> bytes:
        """The first bytes, enough to tell the kind."""
        return self.data[:HEAD_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a decoder may be told.

    Args:
        limits: bounds on declared sizes.
        read_facts: what may pass of a DICOM header; None passes nothing.
    """

    limits: Limits
    read_facts: ReadFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One kind of file.

    Args:
        name: of the kind, as shown to people.
        sniff: whether the first `HEAD_BYTES` bytes are of this kind. Suffixes are never asked.
        decode: reads a file of this kind; raises nothing but DecodeError.
    """

    name: str
    sniff: Callable[[bytes], bool]
    decode: Callable[[Source, Options], Media]


def open_source(path: Path) -> Source:
    """Open and map a regular file.

    Raises:
        DecodeError: it is missing, not readable, not a regular file (a pipe, a folder, a device), or empty.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a usable name"
        raise DecodeError("the file cannot be opened", got=reason, next_step="check its permissions") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("not a regular file", expected="a file", got=_kind(status.st_mode))
        if status.st_size == 0:
            raise DecodeError("the file is empty", expected="a picture", got="0 bytes", next_step="fetch it again")
        with guard("the file cannot be read"):
            data = mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ)
        return Source(place=Place(path=path, size=status.st_size, modified=status.st_mtime_ns), data=data)
    finally:
        os.close(handle)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


@contextmanager
def guard(what: str) -> Iterator[None]:
    """Run a third-party parser: whatever it raises becomes a DecodeError, whatever it warns is dropped.

    Args:
        what: the fault in a few words, should there be one.
    """
    try:
        with quiet_c_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OpenUSDataError:
        raise
    except MemoryError:
        raise DecodeLimit(f"{what}: out of memory", next_step="the file is left out") from None
    except Exception as error:  # parsers raise anything on hostile bytes; their texts may quote the file
        raise DecodeError(what, got=type(error).__name__, next_step="the file is left out") from None


def pick(indices: Sequence[int] | None, count: int) -> Sequence[int]:
    """The frames asked for, checked to rise within [0, count).

    Raises:
        DecodeError: an index is out of range or out of order.
    """
    if indices is None:
        return range(count)
    previous = -1
    for index in indices:
        if not previous < index < count:
            raise DecodeError(
                "frames asked for out of range or order", expected=f"rising, below {count}", got=f"{index}"
            )
        previous = index
    return indices
