"""Where members go: a fresh folder that only this module writes to, within stated bounds counted on bytes written."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openus_data.archive.names import Names, safe_parts, shown
from openus_data.errors import ArchiveLimit, NoSpace, UnsafeArchive
from openus_data.store import BLOCK_BYTES, free_bytes

_SPACE_CHECK_BYTES: Final = 64 << 20
DISK_BLOCK_BYTES: Final = 4096
"""What a file or folder that is copied takes up at least; they are no bomb, however many and small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one unpacking.

    Args:
        members: files and folders.
        total_bytes: written in all.
        member_bytes: written for one file.
        ratio: bytes written per byte of archive, once `ratio_from_bytes` are written.
        ratio_from_bytes: below this the ratio does not matter.
        packed_per_member: bytes of archive per file or folder, once `per_member_from` of them are there: a million
            empty files fit into a few megabytes, and take minutes to make.
        per_member_from: below this `packed_per_member` does not matter.
        depth: archives within archives that may be opened, when asked for.
        reserve_bytes: free space to leave on the disk.
        seconds: time for an outside tool (RAR).
    """

    members: int = 1_000_000
    total_bytes: int = 4 << 40
    member_bytes: int = 1 << 40
    ratio: float = 200.0
    ratio_from_bytes: int = 100 << 20
    packed_per_member: int = 64
    per_member_from: int = 20_000
    depth: int = 2
    reserve_bytes: int = 64 << 20
    seconds: float = 6 * 3600.0


class Sink:
    """Writes members below `root`.

    Args:
        root: a folder that is fresh and ours.
        limits: the bounds, for all archives that go here.
        stop: when set, the next block raises KeyboardInterrupt.
    """

    def __init__(self, root: Path, limits: Limits, stop: threading.Event | None = None) -> None:
        self.root = root
        self.limits = limits
        self.names = Names()
        self.packed_bytes = 0
        self.files = self.folders = self.repeats = self.bytes_written = 0
        self._base: tuple[str, ...] = ()
        self._made: set[tuple[str, ...]] = {()}
        self._unchecked = 0
        self._is_inside = False
        self._stop = stop

    def add_packed(self, size: int) -> None:
        """Count an archive's own bytes, against which the ratio is taken; those of an inner one were written here."""
        if not self._is_inside:
            self.packed_bytes += size

    def next_archive(self) -> None:
        """Say that another archive begins: it may hold a file that an earlier one held, if the bytes are the same."""
        self.names.next_archive()

    def expect(self, size: int) -> None:
        """Refuse early what an archive declares beyond the bounds or the disk.

        Raises:
            ArchiveLimit, NoSpace: it does not fit.
        """
        self._check_bytes(self.bytes_written + size)
        free = free_bytes(self.root)
        if size + self.limits.reserve_bytes > free:
            raise NoSpace(
                "the disk is too small to unpack",
                expected=f"{size + self.limits.reserve_bytes:,} bytes free",
                got=f"{free:,}",
            )

    @contextmanager
    def below(self, folder: str) -> Iterator[None]:
        """Put members below a folder of the root for a while."""
        self._base, before = safe_parts(folder) if folder else (), self._base
        self.names.add_folder(self._base)
        try:
            yield
        finally:
            self._base = before

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Say that what is opened for a while came out of another archive, whose bytes all of it is measured by."""
        self._is_inside, before = True, self._is_inside
        try:
            yield
        finally:
            self._is_inside = before

    def folder(self, name: str) -> None:
        """Make a folder that a member names."""
        parts = self._base + safe_parts(name)
        self.names.add_folder(parts)
        self.folders += 1
        self._check_members()
        self._make(parts)

    def file(self, name: str, pieces: Iterable[bytes]) -> Path:
        """Write a file; returns where.

        Raises:
            UnsafeArchive: by the name rule.
            ArchiveLimit: beyond a bound.
            NoSpace: the disk is full.
        """
        parts = self._base + (safe_parts(name) or safe_parts(""))
        path = self.root.joinpath(*parts)
        if not self.names.add_file(parts):
            self._require_same(path, pieces, name)
            self.repeats += 1
            return path
        self.files += 1
        self._check_members()
        self._make(parts[:-1])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise _as_no_space(error, name) from error
        try:
            self._copy(descriptor, pieces, name)
        finally:
            os.close(descriptor)
        return path

    def copy(self, name: str, place: Path) -> Path:
        """Write a file from another one, which must not be a link."""
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as content:
            self.add_packed(os.fstat(content.fileno()).st_size + DISK_BLOCK_BYTES)
            return self.file(name, iter(lambda: content.read(BLOCK_BYTES), b""))

    def _copy(self, descriptor: int, pieces: Iterable[bytes], name: str) -> None:
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > self.limits.member_bytes:
                raise ArchiveLimit(
                    "a member is too large", where=shown(name), expected=f"at most {self.limits.member_bytes:,} bytes"
                )
            self.count_bytes(len(piece))
            written = 0
            while written < len(piece):
                try:
                    written += os.write(descriptor, memoryview(piece)[written:] if written else piece)
                except OSError as error:
                    raise _as_no_space(error, name) from error

    def count_bytes(self, size: int) -> None:
        """Count bytes as written, before they are."""
        if self._stop is not None and self._stop.is_set():
            raise KeyboardInterrupt
        self._check_bytes(self.bytes_written + size)
        self.bytes_written += size
        self._unchecked += size
        if self._unchecked > _SPACE_CHECK_BYTES:
            self._unchecked = 0
            if free_bytes(self.root) < self.limits.reserve_bytes:
                raise NoSpace("the disk is full", next_step="free some space and run this again")

    def _require_same(self, path: Path, pieces: Iterable[bytes], name: str) -> None:
        with path.open("rb") as known:
            same = all(known.read(len(piece)) == piece for piece in pieces) and not known.read(1)
        if not same:
            raise UnsafeArchive(
                "two archives hold different files of one name",
                where=shown(name),
                next_step="give one of them an `into` in the card",
            )

    def _check_bytes(self, total: int) -> None:
        limits = self.limits
        if total > limits.total_bytes:
            raise ArchiveLimit("too many bytes", expected=f"at most {limits.total_bytes:,}")
        if total > limits.ratio_from_bytes and total > limits.ratio * max(1, self.packed_bytes):
            raise ArchiveLimit(
                "an archive that grows beyond reason",
                expected=f"at most {limits.ratio:.0f} bytes per byte packed",
                got=f"over {total / max(1, self.packed_bytes):.0f}",
            )

    def _check_members(self) -> None:
        self.expect_members(self.files + self.folders)

    def expect_members(self, count: int) -> None:
        """Refuse so many files and folders in all, where that is beyond a bound.

        Raises:
            ArchiveLimit: too many, or too many for so small an archive.
        """
        if count > (most := self.most_members()):
            words = "too many members" if most == self.limits.members else "too many members for so small an archive"
            raise ArchiveLimit(words, expected=f"at most {most:,}")

    def most_members(self) -> int:
        """How many files and folders what was opened so far may hold in all."""
        limits = self.limits
        return min(limits.members, max(limits.per_member_from, self.packed_bytes // limits.packed_per_member))

    def _make(self, parts: tuple[str, ...]) -> None:
        if parts in self._made:
            return
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in self._made:
                try:
                    self.root.joinpath(*parts[:depth]).mkdir(mode=0o755)
                except OSError as error:
                    raise _as_no_space(error, "/".join(parts[:depth])) from error
                self._made.add(parts[:depth])


def _as_no_space(error: OSError, name: str) -> Exception:
    """A full disk or a file beyond its bound as such; any other error as it is."""
    if error.errno == errno.EFBIG:
        return NoSpace(
            "the file is too large here", where=shown(name), next_step="see ulimit -f and what the file system takes"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("the disk is full", where=shown(name), next_step="free some space and run this again")
    return error
