"""Unpacking: choose the reader by magic bytes, write aside, and let the folder appear whole or not at all.

report = unpack(Path("BUSI.zip"), Path("files"))
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openus_data.archive.names import shown
from openus_data.archive.seven_zip import read_seven_zip
from openus_data.archive.sink import Limits, Sink
from openus_data.archive.tar_kind import MAGIC as STREAM_MAGIC
from openus_data.archive.tar_kind import holds_tar, is_tar_block, read_tar
from openus_data.archive.tool_kind import read_with_tool
from openus_data.archive.zip_kind import find_parts, read_zip
from openus_data.errors import ArchiveError, DamagedArchive, LockedError, UnsupportedArchive, UsageError
from openus_data.store import PART_SUFFIX, fsync_folder, fsync_tree

Reader = Callable[[Path, Sink], None]

_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_SEVEN_ZIP_MAGIC: Final = b"7z\xbc\xaf\x27\x1c"
_RAR_MAGIC: Final = b"Rar!\x1a\x07"
_ARCHIVE_NAME: Final = re.compile(
    r".+\.(zip|7z|rar|tar|tgz|tbz2?|txz|tzst|tar\.\w+|change2zip|(zip|7z|tar)\.0*1)", re.I
)
_NOT_FOR_UNPACKING: Final = re.compile(
    r".+\.(xlsx|xlsm|docx|pptx|od[tsp]|npz|whl|jar|mat|nii\.gz|z\d\d|(?!0*1$)\d{2,4})", re.I
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackReport:
    """What came out.

    Args:
        archive: name of the archive.
        files, folders: members written.
        size_bytes: written in all.
    """

    archive: str
    files: int
    folders: int
    size_bytes: int

    @property
    def exit_code(self) -> int:
        """0: an unpacking that fails raises."""
        return 0

    def to_json(self) -> dict[str, object]:
        """The object of `--json`."""
        return {"archive": self.archive, "files": self.files, "folders": self.folders, "bytes": self.size_bytes}

    def to_text(self) -> str:
        """One line for a person."""
        return f"{shown(self.archive)}: {self.files} files, {self.size_bytes:,} bytes"


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> UnpackReport:
    """Unpack one archive into a folder that does not exist yet or is empty.

    Args:
        archive: zip, tar (plain, gz, bz2, xz, zst), 7z, rar where a tool is installed, or the last part of a split zip.
        target: appears whole or not at all.
        limits: bounds; the defaults suit any published dataset.

    Raises:
        ArchiveError: unsafe, beyond a bound, damaged or of a kind that is not read; nothing is left behind.
        NoSpace: the disk is too small.
        UsageError: no such archive, or the target is in use.
    """
    if not archive.is_file():
        raise UsageError("no such archive", where=archive.name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError("the folder is not empty", where=target.name, next_step="name a new folder")
    with staging(target) as folder:
        sink = Sink(folder, limits or Limits())
        unpack_into(archive, sink)
        publish_folder(folder, target)
    return UnpackReport(archive=archive.name, files=sink.files, folders=sink.folders, size_bytes=sink.bytes_written)


def unpack_into(archive: Path, sink: Sink) -> None:
    """Write an archive's members to a sink.

    Raises:
        ArchiveError: as for `unpack`; the message names the archive.
    """
    sink.add_packed(archive.stat().st_size)
    sink.next_archive()
    files_before = sink.files + sink.repeats
    try:
        _choose(archive)(archive, sink)
    except ArchiveError as error:
        if is_about(error, archive.name):
            raise
        where = f"{shown(archive.name)}: {error.where}" if error.where else shown(archive.name)
        raise type(error)(
            error.what, where=where, expected=error.expected, got=error.got, next_step=error.next_step
        ) from error
    if sink.files + sink.repeats == files_before:
        raise DamagedArchive("the archive holds no file", where=shown(archive.name))


def is_about(error: ArchiveError, archive: str) -> bool:
    """Whether a message of `unpack_into` names the archive of this name as the one at fault, alone or with a member."""
    return any(error.where == name or error.where.startswith(f"{name}: ") for name in (archive, shown(archive)))


def is_archive(path: Path) -> bool:
    """Whether a file is an archive to be unpacked; documents that merely use zip inside are not, nor is `.nii.gz`."""
    if _NOT_FOR_UNPACKING.fullmatch(path.name):
        return False
    return _ARCHIVE_NAME.fullmatch(path.name) is not None or _reader(path) is not None


def is_part(path: Path) -> bool:
    """Whether a file is a part of a split archive other than the one by which it is unpacked."""
    return re.search(r"\.z\d\d$|\.(zip|7z|tar)\.(?!0*1$)\d{2,4}$", path.name, re.I) is not None


def unpack_inner(folder: Path, relative: str, sink: Sink) -> None:
    """Unpack an archive that lies below the sink's root, into the folder in which it lies, and remove it.

    Args:
        folder: the sink's root.
        relative: the archive's path below it.
    """
    archive = folder / relative
    parts = find_parts(archive) if archive.suffix.lower() in (".zip", ".change2zip", ".001") else [archive]
    with sink.below(relative.rpartition("/")[0]), sink.inside():
        unpack_into(archive, sink)
    for part in parts:
        part.unlink()


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A fresh folder `<target>.part` for one run; removed unless it was published.

    Raises:
        LockedError: another run is unpacking there.
    """
    folder = target.with_name(f"{target.name}{PART_SUFFIX}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError), _held(folder):
        shutil.rmtree(folder)
    folder.mkdir(mode=0o755)
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LockedError("another run is unpacking here", where=folder.name, next_step="wait for it to end") from error
    except OSError:  # a file system without locks on folders; the dataset's own lock still stands
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def publish_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name, with everything on the disk first; an older folder of that name is replaced."""
    fsync_tree(folder)
    old = target.with_name(f"{target.name}.old{PART_SUFFIX}")
    _remove(old)
    if target.exists() or target.is_symlink():
        target.rename(old)
    folder.rename(target)
    fsync_folder(target.parent)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a folder, or the file or link that someone put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _choose(path: Path) -> Reader:
    if re.search(r"\.(7z|tar|t?gz|xz|bz2)\.0*1$", path.name, re.I):
        raise UnsupportedArchive(
            "a split archive of a kind that is not read here",
            where=shown(path.name),
            next_step="join its parts into one file (cat, in their order) and use --from",
        )
    reader = _reader(path)
    if reader is not None:
        return reader
    if _ARCHIVE_NAME.fullmatch(path.name):
        raise DamagedArchive("not the archive that its name says", where=shown(path.name), next_step="fetch it again")
    raise UnsupportedArchive("not an archive", where=shown(path.name), expected="zip, tar, 7z or rar")


def _reader(path: Path) -> Reader | None:
    with path.open("rb") as handle:
        head = handle.read(512)
    if head.startswith(_ZIP_MAGIC):
        return read_zip
    if head.startswith(_SEVEN_ZIP_MAGIC):
        return read_seven_zip
    if head.startswith(_RAR_MAGIC):
        return read_with_tool
    if is_tar_block(head) or (head.startswith(tuple(STREAM_MAGIC)) and _is_packed_tar(path)):
        return read_tar
    if path.suffix.lower() in (".zip", ".change2zip") and len(head) > 4:
        return read_zip  # something may stand before the first member, and the last part of a split one begins anywhere
    return None


def _is_packed_tar(path: Path) -> bool:
    return re.search(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", path.name, re.I) is not None or holds_tar(path)
