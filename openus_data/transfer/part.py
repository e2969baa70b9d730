"""A download in the making: the bytes held so far, what they were read from, and their running digests.

On disk: `<name>.part` holds bytes, `<name>.state.part` says which version of which object they belong to, so that a
later run can ask for the rest of that very version. Small bodies have no state file; they are simply asked for again.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from openus_data.errors import NoSpace
from openus_data.store import BLOCK_BYTES, PART_SUFFIX
from openus_data.transfer.digests import RunningDigests
from openus_data.transfer.disk import SPACE_CHECK_BYTES, BackgroundSync, SpaceWatch, publish

_STATE_FROM_BYTES: Final = 256 << 10
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


class Part:
    """The unfinished twin of `target`.

    Args:
        target: the final name; its folder exists.
        algorithms: digests wanted beside SHA-256.
        space: of the disk; may be shared by many files.
    """

    def __init__(self, target: Path, algorithms: Iterable[str], space: SpaceWatch) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}{PART_SUFFIX}")
        self.is_announced = False
        """Whether its size was told, where nobody publishes it."""
        self._space = space
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self.held = os.fstat(self._descriptor).st_size
        self._has_state = self.held > 0  # a state without bytes says nothing
        self.version: Version | None = self._read_state() if self.held else None
        self._algorithms = {*algorithms, *(("md5",) if self.version and self.version.md5 else ())}
        self._digests = RunningDigests(self._algorithms)
        self._digested = 0
        self._unchecked = 0
        self._sync = BackgroundSync()

    @property
    def state_path(self) -> Path:
        """Where the version of the held bytes is kept."""
        return self.target.with_name(f"{self.target.name}.state{PART_SUFFIX}")

    @property
    def bad_path(self) -> Path:
        """Where wrong bytes are put aside."""
        return self.target.with_name(f"{self.target.name}.bad")

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
            self._space.require(self.target, missing)
        if self.version is not None and not version.md5:
            version = replace(version, md5=self.version.md5)
        if version.md5 and "md5" not in self._algorithms and self.held == 0:
            self._algorithms.add("md5")
            self._digests = RunningDigests(self._algorithms)
        if version != self.version and (version.total is None or version.total > _STATE_FROM_BYTES):
            self._write_state(version)
        self.version = version
        self._digest_held()

    def append(self, piece: bytes) -> None:
        """Write bytes behind those that are held.

        Raises:
            NoSpace: the disk is full; what was written stays.
        """
        written = 0
        while written < len(piece):
            try:
                rest = memoryview(piece)[written:] if written else piece
                written += os.pwrite(self._descriptor, rest, self.held + written)
            except OSError as error:
                self.held = self._digested = self._cut_to(self.held)
                self._no_space(error, missing=len(piece))
        self.held += written
        self._digested += written
        self._digests.update(piece)
        self._unchecked += written
        if self._unchecked >= SPACE_CHECK_BYTES:
            self._unchecked = 0
            self._space.require(self.target, 0, look=True)
            self._sync.start(self._descriptor)

    def digests(self) -> dict[str, str]:
        """Digests of what is held, by algorithm."""
        self._digest_held()
        return self._digests.hexdigests()

    def publish(self) -> None:
        """Give the file its final name, with everything on the disk first."""
        self._sync.finish()
        publish(self._descriptor, self.path, self.target, self.held)
        self.held = -1  # the name is gone; close() must not remove anything
        self._forget_state()
        if os.path.exists(bad := self.bad_path):  # noqa: PTH110 - several times as quick, for thousands of files
            self._forget(bad)

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
