"""zip, also split over several files: members are taken one by one, names and offsets judged before the first byte."""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final, cast

from openus_data.archive.names import Names, safe_parts, shown
from openus_data.archive.sink import Sink
from openus_data.errors import DamagedArchive, UnsafeArchive, UnsupportedArchive

_PIECE_BYTES: Final = 1 << 18
_END_MAGIC: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_LONG_END_BYTES: Final = 56 + 20
_COMMENT_BYTES: Final = 1 << 16
_LOCAL_HEADER_BYTES: Final = 30
_DIRECTORY_ENTRY_BYTES: Final = 46
_ENCRYPTED: Final = 0x1 | 0x40
_PART_MISSING: Final = "a part of the split archive is missing"
_LINKS_AND_DEVICES: Final = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    struct.error,
    ValueError,
    OverflowError,
)


class JoinedFile(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, files: list[IO[bytes]]) -> None:
        self._files = files
        self.starts = [0, *accumulate(f.seek(0, io.SEEK_END) for f in files)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self.starts[-1]:
            return 0
        index = bisect_right(self.starts, self._at) - 1
        file = self._files[index]
        file.seek(self._at - self.starts[index])
        piece = file.read(min(len(buffer), self.starts[index + 1] - self._at))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def read_zip(path: Path, sink: Sink) -> None:
    """Write every member of a zip archive to the sink.

    Raises:
        UnsafeArchive: a link, members that share bytes, or by the name rule; before the first byte is written.
        DamagedArchive: cut short, a part missing, or failing a checksum.
        UnsupportedArchive: encrypted, or packed by a method that is not read here.
    """
    try:
        with ExitStack() as stack:
            parts = find_parts(path)
            files: list[IO[bytes]] = [stack.enter_context(p.open("rb")) for p in parts]
            sink.add_packed(sum(p.stat().st_size for p in parts[:-1]))
            joined = JoinedFile(files)
            whole: IO[bytes] = cast(IO[bytes], io.BufferedReader(joined, _PIECE_BYTES)) if len(files) > 1 else files[0]
            _require_few_members(whole, sink)
            archive = stack.enter_context(zipfile.ZipFile(whole))
            members = archive.infolist()
            _check_count(archive, len(members))
            if len(files) > 1:
                _place(archive, members, joined.starts)
            _judge(members, sink)
            _require_no_lost_member(whole, min(m.header_offset for m in members))
            for member in members:
                name = member.orig_filename
                if member.is_dir():
                    sink.folder(name)
                else:
                    sink.file(name, _pieces(archive, member))
    except NotImplementedError as error:
        raise UnsupportedArchive(
            "a packing method that is not read here", where=path.name, next_step="unpack it by hand"
        ) from error
    except _ERRORS as error:
        raise DamagedArchive(
            "the archive is damaged or cut short", where=path.name, got=type(error).__name__
        ) from error


def find_parts(path: Path) -> list[Path]:
    """The files of a split archive in their order; the file alone where it is not split.

    Raises:
        DamagedArchive: a part is missing.
    """
    if match := re.fullmatch(r"(.+)\.0*1", path.name):
        numbered = sorted(p for p in path.parent.iterdir() if re.fullmatch(re.escape(match[1]) + r"\.\d{2,4}", p.name))
        for number, part in enumerate(numbered, start=1):
            if int(part.suffix[1:]) != number:
                missing = f"{match[1]}.{number:0{len(part.suffix) - 1}d}"
                raise DamagedArchive(_PART_MISSING, where=path.name, expected=shown(missing))
        return numbered or [path]
    count = _disks(path)
    if count == 0:
        return [path]
    by_name = {p.name.lower(): p for p in path.parent.iterdir()}
    names = [f"{path.stem}.z{index:02d}" for index in range(1, count + 1)]
    for name in names:
        if name.lower() not in by_name:
            raise DamagedArchive(_PART_MISSING, where=path.name, expected=shown(name))
    return [by_name[n.lower()] for n in names] + [path]


def _disks(path: Path) -> int:
    """Number of the last part, counted from 0, as the end record says."""
    with path.open("rb") as handle:
        size = handle.seek(0, io.SEEK_END)
        handle.seek(max(0, size - _END_BYTES - _COMMENT_BYTES))
        tail = handle.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END_BYTES:
        return 0
    number: int = struct.unpack_from("<H", tail, at + 4)[0]
    return 0 if number == 0xFFFF else number


def _place(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], starts: list[int]) -> None:
    """Count offsets from the start of the first part; a split archive counts them from the start of a member's own."""
    # zipfile took the parts before the last for a prefix and added their length to every offset
    shift = archive.start_dir - _directory_offset(archive)
    for member in members:
        if member.volume >= len(starts) - 1:
            raise DamagedArchive("a member lies in a part that does not exist", where=shown(member.orig_filename))
        member.header_offset += starts[member.volume] - shift


def _check_count(archive: zipfile.ZipFile, count: int) -> None:
    """Refuse a directory of another number of members than the end record says; old writers let it wrap at 65,536."""
    (declared,) = struct.unpack_from("<H", _end_record(archive), 10)
    if declared not in (0xFFFF, count % 0x10000):
        raise DamagedArchive(
            "the directory does not list all members", expected=f"{declared:,} members", got=f"{count:,}"
        )


def _directory_offset(archive: zipfile.ZipFile) -> int:
    """Offset of the directory as the end record states it."""
    offset: int = struct.unpack_from("<L", _end_record(archive), 16)[0]
    return offset


def _end_record(archive: zipfile.ZipFile) -> bytes:
    """The record at the end of the archive, which the standard reader found before."""
    return _find_end(cast(IO[bytes], archive.fp))[1]


def _find_end(file: IO[bytes]) -> tuple[int, bytes]:
    """Where the record at the end of the archive begins, and what stands from there on; nothing where there is none."""
    size = file.seek(0, io.SEEK_END)
    start = file.seek(max(0, size - _END_BYTES - _COMMENT_BYTES))
    tail = file.read()
    at = tail.rfind(_END_MAGIC)
    return (start + at, tail[at:]) if at >= 0 else (size, b"")


def _require_few_members(file: IO[bytes], sink: Sink) -> None:
    """Refuse a directory with too many entries before the standard reader makes an object of each."""
    at, record = _find_end(file)
    if len(record) < _END_BYTES:
        return  # the standard reader says so
    size = struct.unpack_from("<L", record, 12)[0]
    if size == 0xFFFFFFFF and at >= _LONG_END_BYTES:  # zip64: its own record and a locator stand before this one
        at -= _LONG_END_BYTES
        file.seek(at)
        size = struct.unpack_from("<Q", file.read(_LONG_END_BYTES), 40)[0]
    if size // _DIRECTORY_ENTRY_BYTES <= sink.limits.per_member_from or size > at:
        return
    file.seek(at - size)
    count, left = 0, size
    while left >= _DIRECTORY_ENTRY_BYTES:
        lengths = struct.unpack_from("<3H", file.read(_DIRECTORY_ENTRY_BYTES), 28)
        file.seek(sum(lengths), io.SEEK_CUR)
        left -= _DIRECTORY_ENTRY_BYTES + sum(lengths)
        count += 1
    sink.expect_members(sink.files + sink.folders + count)


def _judge(members: list[zipfile.ZipInfo], sink: Sink) -> None:
    """Refuse what is unsafe before anything is written."""
    if not members:
        raise DamagedArchive("the archive holds nothing")
    names = Names()
    for member in members:
        name = member.orig_filename
        parts = safe_parts(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind in _LINKS_AND_DEVICES or (member.create_system == 3 and kind not in (0, stat.S_IFREG, stat.S_IFDIR)):
            raise UnsafeArchive(
                "a link or a device in the archive", where=shown(name), next_step="nothing was unpacked"
            )
        if member.flag_bits & _ENCRYPTED:
            raise UnsupportedArchive(
                "the archive is encrypted", where=shown(name), next_step="unpack it by hand with its password"
            )
        if member.is_dir() and member.file_size:
            raise DamagedArchive("a folder with content, which would be lost", where=shown(name))
        if member.is_dir():
            names.add_folder(parts)
        else:
            names.add_file(parts)
    _judge_overlap(members)
    sink.expect(sum(m.file_size for m in members))


def _require_no_lost_member(file: IO[bytes], first: int) -> None:
    """Refuse an archive with members in front of the first that is listed; a program that unpacks itself is fine."""
    file.seek(0)
    if first > 0 and file.read(4) == b"PK\x03\x04":
        raise DamagedArchive("the directory does not list all members", got="others before the first that it lists")


def _judge_overlap(members: list[zipfile.ZipInfo]) -> None:
    end = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < end:
            raise UnsafeArchive(
                "two members share the same bytes", where=shown(member.orig_filename), next_step="nothing was unpacked"
            )
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    size = 0
    with archive.open(member) as content:
        while piece := content.read(_PIECE_BYTES):
            size += len(piece)
            yield piece
    if size != member.file_size:
        raise DamagedArchive("a member was cut short", where=shown(member.orig_filename))
