"""What the first stage has done so far, in one file that is only ever added to.

A record is one source file: a small JSON header, then the encoded pictures. A record that a kill cut short is not
counted, and is overwritten by the next run; everything before it stands. The file lies in OUT/.staging while a build
runs; what later builds need of it, the headers and thumbnails, is kept in OUT/.records.

    with Journal(path) as journal:
        journal.append(header, blobs)
    for record in read_records(path): ...
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple

from openus_data.errors import CorpusError

Header = dict[str, Any]
"""JSON of one record; its `blobs` are [size in bytes, CRC-32] of the bytes behind it, in order."""

_MAGIC: Final = b"OUSK"
_PREFIX: Final = struct.Struct("<4sIQ10s10s")
"""Magic, length of the packed header, of the blobs, and the header's `item` and `fingerprint` as bytes."""
_CHECK: Final = struct.Struct("<I")
"""CRC-32 of prefix and packed header, between the two."""
_HEAD_BYTES: Final = _PREFIX.size + _CHECK.size
_USUAL_BYTES: Final = 4096
_SYNC_BYTES: Final = 128 << 20
_COPY_BYTES: Final = 1 << 20
_PACK_LEVEL: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Encoded bytes that wait in a file.

    Args:
        path: the file.
        offset, size: where in it, in bytes.
        crc: CRC-32 of the bytes.
    """

    path: Path
    offset: int
    size: int
    crc: int

    def read(self) -> bytes:
        """The bytes.

        Raises:
            CorpusError: they are not what was written.
        """
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            data = handle.read(self.size)
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise CorpusError("staged bytes are damaged", where=self.path.name, next_step="run the build again")
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a journal.

    Args:
        path: the journal.
        header: its JSON.
        start: where the record starts in the file, in bytes.
        offset: where its blobs start.
    """

    path: Path
    header: Header
    start: int
    offset: int

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.offset + sum(int(size) for size, _ in self.header["blobs"])

    def blobs(self) -> list[Blob]:
        """Where its encoded bytes lie."""
        found, at = [], self.offset
        for size, crc in self.header["blobs"]:
            found.append(Blob(path=self.path, offset=at, size=size, crc=crc))
            at += size
        return found


class Journal(AbstractContextManager["Journal"]):
    """Appends records. A torn end, left by a kill, is cut off when the file is opened.

    Args:
        path: the file; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: BinaryIO | None = None
        self._at = 0
        self._synced = 0

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._at = _sound_length(self._path)
        os.truncate(self._path, self._at)
        self._handle = self._path.open("r+b", buffering=0)
        self._handle.seek(self._at)
        self._synced = self._at
        return self

    def append(self, header: Header, blobs: Sequence[bytes | Path] = ()) -> Record:
        """Add one record.

        Args:
            header: JSON of the record.
            blobs: the bytes behind it in order; a path stands for the bytes of that file.
        """
        assert self._handle is not None, "used outside its block"
        packed = pack(header)
        blob_bytes = sum(int(size) for size, _ in header["blobs"])
        prefix = _PREFIX.pack(_MAGIC, len(packed), blob_bytes, *(_id_bytes(header, n) for n in ("item", "fingerprint")))
        try:
            self._write(prefix + _CHECK.pack(zlib.crc32(packed, zlib.crc32(prefix))) + packed)
            for blob in blobs:
                self._write(blob) if isinstance(blob, bytes) else self._copy(blob)
        except OSError:
            os.ftruncate(self._handle.fileno(), self._at)  # the disk is full: what stands must stay sound
            self._handle.seek(self._at)
            raise
        offset = self._at + _HEAD_BYTES + len(packed)
        record = Record(path=self._path, header=header, start=self._at, offset=offset)
        if self._handle.tell() != record.end:
            raise CorpusError("a record does not hold the bytes its header says", where=self._path.name)
        self._at = record.end
        if self._at - self._synced > _SYNC_BYTES:
            os.fsync(self._handle.fileno())
            self._synced = self._at
        return record

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None, "used outside its block"
        os.fsync(self._handle.fileno())
        self._handle.close()

    def _write(self, data: bytes) -> None:
        assert self._handle is not None, "used outside its block"
        view = memoryview(data)
        while view:
            view = view[self._handle.write(view) :]

    def _copy(self, path: Path) -> None:
        with path.open("rb") as source:
            while data := source.read(_COPY_BYTES):
                self._write(data)


def pack(header: Header) -> bytes:
    """A header as bytes; equal headers give equal bytes."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return zlib.compress(text.encode(), _PACK_LEVEL)


class Mark(NamedTuple):
    """What a record says of itself without its header being unpacked: its ids as numbers, and where it lies."""

    item: int
    fingerprint: int
    start: int
    offset: int
    end: int


def read_marks(path: Path) -> Iterator[Mark]:
    """The marks of the sound records of a journal in order; stops at a torn end. No file, no records."""
    if not path.exists():
        return
    with path.open("rb", buffering=0) as handle:
        size, start = os.fstat(handle.fileno()).st_size, 0
        while (found := _sound_at(handle, start, size)) is not None:
            yield found[0]
            start = found[0].end


def read_records(path: Path) -> Iterator[Record]:
    """The sound records of a journal in order, without their blobs; stops at a torn end. No file, no records."""
    if not path.exists():
        return
    with path.open("rb", buffering=0) as handle:
        size, start = os.fstat(handle.fileno()).st_size, 0
        while (found := _sound_at(handle, start, size)) is not None:
            record = _record(path, *found)
            yield record
            start = record.end


def read_record(path: Path, handle: FileIO, start: int) -> Record:
    """The record that starts at a known place of an open journal.

    Raises:
        CorpusError: there is none.
    """
    return _record(path, *_found_at(path, handle, start))


def read_mark(path: Path, handle: FileIO, start: int) -> Mark:
    """The mark of the record that starts at a known place of an open journal.

    Raises:
        CorpusError: there is none.
    """
    return _found_at(path, handle, start)[0]


def _found_at(path: Path, handle: FileIO, start: int) -> tuple[Mark, bytes]:
    found = _sound_at(handle, start, os.fstat(handle.fileno()).st_size)
    if found is None:
        raise CorpusError("a staged record is damaged", where=path.name, next_step="run the build again")
    return found


def _record(path: Path, mark: Mark, packed: bytes) -> Record:
    return Record(path=path, header=json.loads(zlib.decompress(packed)), start=mark.start, offset=mark.offset)


def _sound_at(handle: FileIO, start: int, file_bytes: int) -> tuple[Mark, bytes] | None:
    """Mark and packed header of the record at `start`; None where no whole record is."""
    data = os.pread(handle.fileno(), _HEAD_BYTES + _USUAL_BYTES, start)
    if len(data) < _HEAD_BYTES:
        return None
    magic, packed_bytes, blob_bytes, item, fingerprint = _PREFIX.unpack_from(data)
    offset = start + _HEAD_BYTES + packed_bytes
    if magic != _MAGIC or offset + blob_bytes > file_bytes:
        return None
    if packed_bytes > _USUAL_BYTES:
        data += os.pread(handle.fileno(), packed_bytes - _USUAL_BYTES, start + len(data))
    packed = data[_HEAD_BYTES : _HEAD_BYTES + packed_bytes]
    if zlib.crc32(packed, zlib.crc32(data[: _PREFIX.size])) != _CHECK.unpack_from(data, _PREFIX.size)[0]:
        return None
    numbers = int.from_bytes(item, "big"), int.from_bytes(fingerprint, "big")
    return Mark(*numbers, start, offset, offset + blob_bytes), packed


def _id_bytes(header: Header, name: str) -> bytes:
    """An id of 20 hexadecimal digits as 10 bytes; zeros where the header has none."""
    return int(header.get(name) or "0", 16).to_bytes(10, "big")


def _sound_length(path: Path) -> int:
    """Bytes that hold whole records. What may not have reached the disk before a power cut is read and checked."""
    length, total = 0, path.stat().st_size
    for record in read_records(path):
        if record.end > total - 2 * _SYNC_BYTES and not all(_is_sound(blob) for blob in record.blobs()):
            break
        length = record.end
    return length


def _is_sound(blob: Blob) -> bool:
    try:
        blob.read()
    except CorpusError:
        return False
    return True
