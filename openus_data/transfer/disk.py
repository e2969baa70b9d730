"""The disk under a download: is there room, and when have the bytes reached it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from openus_data.errors import NoSpace
from openus_data.store import free_bytes, fsync_folder

VERIFIED_MTIME_NS: Final = 315_532_800 * 10**9
"""Modification time (1980-01-01) of a file whose digest was checked: a later write changes it, and is seen by that."""

SMALL_BYTES: Final = 1 << 20
"""Files below this reach the disk together, when the ledger is written."""

SPACE_CHECK_BYTES: Final = 32 << 20
"""How many bytes may come before the disk is looked at again."""


class SpaceWatch:
    """Free space where downloads go, looked at every 32 MiB and not for each of thousands of small files.

    Args:
        reserve_bytes: free space to leave on the disk.
    """

    def __init__(self, reserve_bytes: int) -> None:
        self._reserve = reserve_bytes
        self._mutex = threading.Lock()
        self._granted: dict[Path, int] = {}

    def require(self, target: Path, missing: int, *, look: bool = False) -> None:
        """See to it that a file may grow by so many bytes.

        Args:
            target: the file.
            look: ask the disk, whatever it said last.

        Raises:
            NoSpace: the disk is too small.
        """
        folder = target.parent
        with self._mutex:
            granted = self._granted.get(folder, -1)
            if granted >= missing and not look:
                self._granted[folder] = granted - missing
                return
            free = free_bytes(folder)
            left = free - missing - self._reserve
            if left >= 0:
                self._granted[folder] = min(left, SPACE_CHECK_BYTES)
                return
        raise NoSpace(
            "the disk is too small",
            where=target.name,
            expected=f"{missing + self._reserve:,} bytes free",
            got=f"{free:,}",
            next_step="free some space and run this again; what was received is kept",
        )


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


def publish(descriptor: int, aside: Path, target: Path, size: int) -> None:
    """Mark as verified, fsync, rename, fsync the folder.

    A small file is not synced by itself: whoever records it syncs many at once first, and does not trust one that was
    never recorded.
    """
    os.utime(descriptor, ns=(VERIFIED_MTIME_NS, VERIFIED_MTIME_NS))
    is_small = size < SMALL_BYTES
    if not is_small:
        os.fsync(descriptor)
    os.replace(aside, target)  # noqa: PTH105 - half the cost of Path.replace, for thousands of files
    if not is_small:
        fsync_folder(target.parent)
