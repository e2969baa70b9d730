"""Files that are either whole or absent, and folders that only one run works in.

A name on disk is a promise: what lies under its final name is complete. What is unfinished ends in `.part` beside it.

    with write_aside(out / "manifest.parquet") as handle:
        handle.write(...)          # appears under its name when the block ends, or not at all
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from openus_data.errors import LockedError

logger = logging.getLogger(__name__)

PART_SUFFIX: Final = ".part"
LOCK_NAME: Final = ".lock"
BLOCK_BYTES: Final = 1 << 20
_ONE_BY_ONE: Final = 1_000
_SYNCED_AT_ONCE: Final = 16


@contextmanager
def write_aside(path: Path) -> Iterator[BinaryIO]:
    """Write a file under another name and give it its own when the block ends.

    The bytes reach the disk (fsync) before the rename, and the rename before the block is left, so that neither a kill
    nor a power cut leaves a torn file under `path`. An exception in the block removes what was written.

    Args:
        path: the final name; its folder is made if need be, an older file is replaced.

    Yields:
        A binary handle that can be read back and sought in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name[:200]}.{secrets.token_hex(6)}{PART_SUFFIX}")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise
    fsync_folder(path.parent)


def write_bytes_aside(path: Path, content: bytes) -> None:
    """`write_aside` for bytes that are already in hand."""
    with write_aside(path) as handle:
        handle.write(content)


def write_text_aside(path: Path, text: str) -> None:
    """`write_aside` for text, as UTF-8 and without any translation of line ends."""
    write_bytes_aside(path, text.encode("utf-8"))


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the file system offers that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make everything below a folder survive a power cut.

    Files are synced several at once, so that the file system writes its journal for many of them together. For very
    many, one call for the whole file system is quicker, though it also waits for what other programs have written.
    """
    files = list(islice((Path(root, name) for root, _, names in os.walk(folder) for name in names), _ONE_BY_ONE + 1))
    if len(files) > _ONE_BY_ONE:
        _sync_file_system(folder)
        return
    with ThreadPoolExecutor(_SYNCED_AT_ONCE, "sync") as pool:
        deque(pool.map(_fsync_file, files), maxlen=0)
    for root, _, _ in os.walk(folder):
        fsync_folder(Path(root))


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None or syncfs(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder against every other run, on this machine or on another that shares the file system.

    The lock is flock on `<folder>/.lock`: it ends with the process, however that ends, and is never stale. The empty
    file stays behind, since removing it would let two runs hold two different files.

    Raises:
        LockedError: another run holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock_or_raise(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock_or_raise(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LockedError(
                "another run works in this folder",
                where=folder.name,
                next_step="wait for it to end, or stop it and run this again",
            ) from error
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        logger.warning("%s: this file system has no locks; see to it that no second run uses the folder", folder.name)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits; memory stays flat."""
    return digest_file(path, "sha256")


def digest_file(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes in hexadecimal, by any algorithm that hashlib guarantees."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes free for this user on the disk that holds `path`, which need not exist yet."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
