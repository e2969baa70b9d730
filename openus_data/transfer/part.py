"""A download in the making: the bytes held so far, what they were read from, and their running digests.

On disk: `<name>.part` holds bytes, `<name>.state.part` says which version of which object they belong to, so that a
later run can ask for the rest of that very version. A small body has no state file and, while it comes, no file at
all: it stays in memory, so that the disk is troubled once for each of thousands of them.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from openus_data.errors import NoSpace
from openus_data.store import BLOCK_BYTES, PART_SUFFIX
from openus_data.transfer.digests import RunningDigests
from openus_data.transfer.disk import SMALL_BYTES, SPACE_CHECK_BYTES, BackgroundSync, SpaceWatch, publish
from openus_data.transfer.version import Version

BAD_SUFFIX: Final = ".bad"
_IN_MEMORY_BYTES: Final = 256 << 10
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_FULL: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large here",
}
_ONE_SMALL_FILE: Final = threading.Lock()
"""A folder takes one new name at a time. Threads that wait here for their turn sleep; in the kernel they would spin."""


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
        self._descriptor = _open_if_there(self.path)
        self._on_disk = 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
        self._in_memory: list[bytes] = []
        self.held = self._on_disk
        if self.held:
            _forget(self.decoded_path)  # a kill in the middle of the decoding leaves it
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
        return _state_path(self.target)

    @property
    def bad_path(self) -> Path:
        """Where wrong bytes are put aside."""
        return _bad_path(self.target)

    @property
    def decoded_path(self) -> Path:
        """Where the body is decoded to, if the server encoded it."""
        return self.target.with_name(f"{self.target.name}.decoded{PART_SUFFIX}")

    def close(self) -> None:
        """Let go of the file; an empty one is removed, since it says nothing."""
        if self._in_memory:
            with suppress(OSError, NoSpace):  # it failed for another reason, which is being raised
                self.write()
        self._digests.close()
        with suppress(OSError):  # what matters was raised by publish()
            self._sync.finish()
        if self._descriptor is not None:
            os.close(self._descriptor)
            if self.held == 0:
                _forget(self.path)

    def start_over(self) -> None:
        """Drop what is held."""
        self._in_memory, self.version = [], None
        if self.held:
            self._cut_to(0)
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
        if version != self.version and (version.total is None or version.total > _IN_MEMORY_BYTES):
            self._write_state(version)
        self.version = version
        self._digest_held()

    def append(self, piece: bytes) -> None:
        """Take bytes behind those that are held.

        Raises:
            NoSpace: the disk is full; what was written stays.
        """
        self._in_memory.append(piece)
        self.held += len(piece)
        total = self.version.total if self.version else None
        if total is None or total > _IN_MEMORY_BYTES:
            self.write()

    def digests(self) -> dict[str, str]:
        """Digests of what is held, by algorithm."""
        self._digest_held()
        self._gather()
        return self._digests.hexdigests()

    def publish(self) -> None:
        """Give the file its final name, with everything on the disk first.

        Raises:
            NoSpace: the disk is full.
        """
        self._sync.finish()
        with _ONE_SMALL_FILE if self.held < SMALL_BYTES else nullcontext():
            publish(self.write(), self.path, self.target, self.held)
        self.held = -1  # the name is gone; close() must not remove anything
        self._forget_state()
        if os.path.exists(bad := self.bad_path):  # noqa: PTH110 - several times as quick, for thousands of files
            _forget(bad)

    def replace_content(self, decoded: Path) -> None:
        """Take another file's bytes in place of those held (the decoded body)."""
        self._sync.finish()
        os.close(self.write())
        decoded.replace(self.path)
        self._descriptor = os.open(self.path, _OPEN)
        self.held = self._on_disk = os.fstat(self._descriptor).st_size
        self._digests.close()
        self._digests, self._digested = RunningDigests(self._algorithms), 0

    def quarantine(self) -> None:
        """Keep wrong bytes under a name that no run takes for the file."""
        self.write()
        self.path.replace(self.bad_path)
        self._forget_state()
        self.held = -1

    def write(self) -> int:
        """Write what is only in memory; returns the open file.

        Raises:
            NoSpace: the disk is full; what was written before stays.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self.path, _OPEN | os.O_CREAT, 0o666)
        block, done = self._gather(), 0
        self._in_memory = []
        while done < len(block):
            try:
                rest = memoryview(block)[done:] if done else block
                done += os.pwrite(self._descriptor, rest, self._on_disk + done)
            except OSError as error:
                self._cut_to(self._on_disk)
                self._no_space(error, missing=len(block))
        self._on_disk += done
        self._unchecked += done
        if self._unchecked >= SPACE_CHECK_BYTES:
            self._unchecked = 0
            self._space.require(self.target, 0, look=True)
            self._sync.start(self._descriptor)
        return self._descriptor

    def _gather(self) -> bytes:
        """What is only in memory, as one block and digested."""
        block = self._in_memory[0] if len(self._in_memory) == 1 else b"".join(self._in_memory)
        if fresh := self.held - self._digested:
            self._digests.update(block[-fresh:])
            self._digested = self.held
        self._in_memory = [block] if block else []
        return block

    def _digest_held(self) -> None:
        """Catch up on bytes that an earlier run wrote."""
        while self._digested < self._on_disk and self._descriptor is not None:
            block = os.pread(self._descriptor, min(BLOCK_BYTES, self._on_disk - self._digested), self._digested)
            if not block:
                raise OSError(errno.EIO, "the part file shrank while it was read", self.path.name)
            self._digests.update(block)
            self._digested += len(block)

    def _cut_to(self, size: int) -> None:
        """Drop what is held beyond a size, on the disk and from the digests."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, size)
        self.held = self._on_disk = size
        self._digests.close()
        self._digests, self._digested = RunningDigests(self._algorithms), 0

    def _no_space(self, error: OSError, missing: int) -> None:
        if error.errno not in _FULL:
            raise error
        total = self.version.total if self.version else None
        raise NoSpace(
            _FULL[error.errno],
            where=self.target.name,
            expected=f"room for {(total or self.held + missing) - self.held:,} bytes more",
            next_step=(
                "see ulimit -f and what the file system takes" if error.errno == errno.EFBIG else "free some space"
            )
            + " and run this again; what was received is kept",
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
            _forget(self.state_path)
        self._has_state = False


def forget_traces(target: Path) -> None:
    """Remove what a download that is over left beside its file."""
    _forget(_state_path(target))
    _forget(_bad_path(target))


def _state_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.state{PART_SUFFIX}")


def _bad_path(target: Path) -> Path:
    return target.with_name(f"{target.name}{BAD_SUFFIX}")


def _forget(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


def _open_if_there(path: Path) -> int | None:
    try:
        return os.open(path, _OPEN)
    except FileNotFoundError:
        return None
