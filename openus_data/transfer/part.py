"""A download in the making: the bytes held so far, what they were read from, and their running digests.

On disk: `<name>.part` holds bytes, `<name>.state.part` says which version of which object they belong to, so that a
later run can ask for the rest of that very version. Small bodies have no state file; they are simply asked for again.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import queue
import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from openus_data.errors import NoSpace
from openus_data.store import BLOCK_BYTES, PART_SUFFIX, free_bytes, fsync_folder

VERIFIED_MTIME_NS: Final = 315_532_800 * 10**9
"""Modification time (1980-01-01) of a file whose digest was checked: a later write changes it, and is seen by that."""

SMALL_BYTES: Final = 1 << 20
"""Files below this reach the disk together, when the ledger is written."""

_STATE_FROM_BYTES: Final = 256 << 10
_THREAD_FROM_BYTES: Final = 4 << 20
_SPACE_CHECK_BYTES: Final = 32 << 20
_FULL: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which version of which object the held bytes belong to.

    Args:
        source: the public URL, free of signatures.
        etag: entity tag, strong or weak.
        last_modified: as sent.
        date: the server's clock when it said so.
        total: bytes of the whole object, if stated.
        encoding: Content-Encoding, "" for none.
        md5: of the whole body where the server states it (Content-MD5, x-goog-hash), in hexadecimal.
    """

    source: str
    etag: str = ""
    last_modified: str = ""
    date: str = ""
    total: int | None = None
    encoding: str = ""
    md5: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], *, source: str, total: int | None) -> Version:
        """Read from the headers of an answer."""
        encoding = headers.get("Content-Encoding", "").strip().lower()
        return cls(
            source=source,
            etag=headers.get("ETag", ""),
            last_modified=headers.get("Last-Modified", ""),
            date=headers.get("Date", ""),
            total=total,
            encoding="" if encoding == "identity" else encoding,
            md5="" if "Content-Range" in headers else _stated_md5(headers),
        )

    @property
    def validator(self) -> str:
        """What may stand in If-Range: a strong tag, or a date strong by RFC 9110 section 8.8.2.2; "" if neither."""
        if self.etag:
            return self.etag if self.etag.startswith('"') else ""
        try:
            age = parsedate_to_datetime(self.date) - parsedate_to_datetime(self.last_modified)
        except (ValueError, TypeError):
            return ""
        return self.last_modified if age.total_seconds() >= 60 else ""

    def agrees_with(self, other: Version) -> bool:
        """Whether nothing says that the two are different versions."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified), (self.total, other.total))
        return self.encoding == other.encoding and all(a == b for a, b in pairs if a and b)


def _stated_md5(headers: Mapping[str, str]) -> str:
    stated = re.search(r"md5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash", ""))
    try:
        digest = base64.b64decode(stated[1] if stated else headers.get("Content-MD5", ""), validate=True)
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 16 else ""


class RunningDigests:
    """Digests over a stream. Long streams are hashed on a thread of their own, so that reading does not wait."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *algorithms}}
        self._seen = 0
        self._queue: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, piece: bytes) -> None:
        """Add bytes; the piece must not change afterwards."""
        self._seen += len(piece)
        if self._queue is None and self._seen > _THREAD_FROM_BYTES:
            self._queue = queue.Queue(maxsize=8)
            self._thread = threading.Thread(target=self._work, args=(self._queue,), daemon=True, name="digest")
            self._thread.start()
        if self._queue is None:
            self._add(piece)
        else:
            self._queue.put(piece)

    def hexdigests(self) -> dict[str, str]:
        """Digests of all bytes so far, by algorithm; the stream may go on afterwards."""
        self.close()
        return {name: h.hexdigest() for name, h in self._hashes.items()}

    def close(self) -> None:
        """Wait for what is queued and end the thread."""
        if self._queue is not None and self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._queue = self._thread = None

    def _work(self, pieces: queue.Queue[bytes | None]) -> None:
        while (piece := pieces.get()) is not None:
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        for h in self._hashes.values():
            h.update(piece)


class BackgroundSync:
    """Sends what was written to the disk while more arrives, so that little is left to wait for at the end."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def start(self, descriptor: int) -> None:
        """Begin a round, unless one is under way."""
        if self._thread is None or not self._thread.is_alive():
            self.finish()
            self._thread = threading.Thread(target=self._sync, args=(descriptor,), daemon=True, name="sync")
            self._thread.start()

    def finish(self) -> None:
        """Wait for the round under way.

        Raises:
            OSError: the disk could not take the bytes; the kernel tells it once, so it must not be lost.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _sync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._error = error


class Part:
    """The unfinished twin of `target`.

    Args:
        target: the final name; its folder exists.
        algorithms: digests wanted beside SHA-256.
        reserve_bytes: free space to leave on the disk.
    """

    def __init__(self, target: Path, algorithms: Iterable[str], reserve_bytes: int) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}{PART_SUFFIX}")
        self.state_path = target.with_name(f"{target.name}.state{PART_SUFFIX}")
        self.bad_path = target.with_name(f"{target.name}.bad")
        self._reserve = reserve_bytes
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self.held = os.fstat(self._descriptor).st_size
        self._has_state = self.held > 0  # a state without bytes says nothing
        self.version: Version | None = self._read_state() if self.held else None
        self._algorithms = {*algorithms, *(("md5",) if self.version and self.version.md5 else ())}
        self._digests = RunningDigests(self._algorithms)
        self._digested = 0
        self._unchecked = 0
        self._sync = BackgroundSync()

    def close(self) -> None:
        """Let go of the file; an empty one is removed, since it says nothing."""
        self._digests.close()
        with suppress(OSError):  # what matters was raised by publish()
            self._sync.finish()
        os.close(self._descriptor)
        if self.held == 0:
            self._forget(self.path)

    def start_over(self) -> None:
        """Drop what is held."""
        self._digests.close()
        self._digests, self._digested = RunningDigests(self._algorithms), 0
        if self.held:
            os.ftruncate(self._descriptor, 0)
        self.held, self.version = 0, None
        self._forget_state()

    def begin(self, version: Version) -> None:
        """Say what the bytes to come belong to, and make sure that the disk can take them.

        Raises:
            NoSpace: it cannot.
        """
        missing = (version.total or 0) - self.held
        if missing > 0:
            self._require_space(missing)
        if self.version is not None and not version.md5:
            version = replace(version, md5=self.version.md5)
        if version.md5 and "md5" not in self._algorithms and self.held == 0:
            self._algorithms.add("md5")
            self._digests = RunningDigests(self._algorithms)
        if version != self.version and (version.total is None or version.total > _STATE_FROM_BYTES):
            self._write_state(version)
        self.version = version
        self._digest_held()
        os.lseek(self._descriptor, self.held, os.SEEK_SET)

    def append(self, piece: bytes) -> None:
        """Write bytes behind those that are held.

        Raises:
            NoSpace: the disk is full; what was written stays.
        """
        written = 0
        while written < len(piece):
            try:
                written += os.write(self._descriptor, memoryview(piece)[written:] if written else piece)
            except OSError as error:
                self.held = self._digested = self._cut_to(self.held)
                self._no_space(error, missing=len(piece))
        self.held += written
        self._digested += written
        self._digests.update(piece)
        self._unchecked += written
        if self._unchecked >= _SPACE_CHECK_BYTES:
            self._unchecked = 0
            self._require_space(0)
            self._sync.start(self._descriptor)

    def digests(self) -> dict[str, str]:
        """Digests of what is held, by algorithm."""
        self._digest_held()
        return self._digests.hexdigests()

    def publish(self) -> None:
        """Give the file its final name, with everything on the disk first."""
        self._sync.finish()
        publish(self._descriptor, self.path, self.target)
        self.held = -1  # the name is gone; close() must not remove anything
        self._forget_state()
        if self.bad_path.exists():
            self._forget(self.bad_path)

    def replace_content(self, decoded: Path) -> None:
        """Take another file's bytes in place of those held (the decoded body)."""
        self._sync.finish()
        os.close(self._descriptor)
        decoded.replace(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.held = os.fstat(self._descriptor).st_size
        self._digests.close()
        self._digests, self._digested = RunningDigests(self._algorithms), 0

    def quarantine(self) -> None:
        """Keep wrong bytes under a name that no run takes for the file."""
        self.path.replace(self.bad_path)
        self._forget_state()
        self.held = -1

    def _digest_held(self) -> None:
        """Catch up on bytes that an earlier run wrote."""
        while self._digested < self.held:
            block = os.pread(self._descriptor, min(BLOCK_BYTES, self.held - self._digested), self._digested)
            if not block:
                raise OSError(errno.EIO, "the part file shrank while it was read", self.path.name)
            self._digests.update(block)
            self._digested += len(block)

    def _cut_to(self, size: int) -> int:
        os.ftruncate(self._descriptor, size)
        return size

    def _require_space(self, missing: int) -> None:
        free = free_bytes(self.path.parent)
        if free < missing + self._reserve:
            raise NoSpace(
                "the disk is too small",
                where=self.target.name,
                expected=f"{missing + self._reserve:,} bytes free",
                got=f"{free:,}",
                next_step="free some space and run this again; what was received is kept",
            )

    def _no_space(self, error: OSError, missing: int) -> None:
        if error.errno not in _FULL:
            raise error
        total = self.version.total if self.version else None
        raise NoSpace(
            _FULL[error.errno],
            where=self.target.name,
            expected=f"room for {(total or self.held + missing) - self.held:,} bytes more",
            next_step="free some space and run this again; what was received is kept",
        ) from error

    def _read_state(self) -> Version | None:
        try:
            return Version(**json.loads(self.state_path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write_state(self, version: Version) -> None:
        aside = self.state_path.with_name(f"{self.target.name}.new{PART_SUFFIX}")
        aside.write_text(json.dumps(asdict(version)))
        aside.replace(self.state_path)
        self._has_state = True

    def _forget_state(self) -> None:
        if self._has_state:
            self._forget(self.state_path)
        self._has_state = False

    @staticmethod
    def _forget(path: Path) -> None:
        with suppress(FileNotFoundError):
            path.unlink()


def publish(descriptor: int, aside: Path, target: Path) -> None:
    """Mark as verified, fsync, rename, fsync the folder.

    A small file is not synced by itself: whoever records it syncs many at once first, and does not trust one that was
    never recorded.
    """
    os.utime(descriptor, ns=(VERIFIED_MTIME_NS, VERIFIED_MTIME_NS))
    is_small = os.fstat(descriptor).st_size < SMALL_BYTES
    if not is_small:
        os.fsync(descriptor)
    aside.replace(target)
    if not is_small:
        fsync_folder(target.parent)
