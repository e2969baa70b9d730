"""What the first stage has done so far, in one file that is only ever added to.

A record is one source file: a summary for the barrier, a small JSON header, then the encoded pictures. A record that a
kill cut short is not counted, and is overwritten by the next run; everything before it stands. The file lies in
OUT/.staging while a build runs; what later builds need of it, all but the pictures, is kept in OUT/.records, where
their places in the shards stand in for them. Summary and header are packed by workers, and a header is unpacked only
where its rows are needed.

    with Journal(path) as journal:
        journal.append(record_parts(header, blobs, summary))
    for record in read_records(path): ...
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple

from openus_data.errors import CorpusError

Header = dict[str, Any]
"""JSON of one record; its `blobs` are [size in bytes, CRC-32] of the bytes behind it, in order."""

Place = dict[str, Any] | None
"""Where a sample's bytes lie: `shard`, and `image` and `mask` as [offset, size, CRC-32]; None where nowhere."""

_MAGIC: Final = b"OUSL"
_PLACED_MAGIC: Final = b"OUSQ"
"""Of a record whose tail is not its blobs but JSON: the place of each of its samples."""
_PREFIX: Final = struct.Struct("<4sIIQ10s10s")
"""Magic, length of summary, packed header and tail, and the header's `item` and `fingerprint` as bytes."""
_CHECK: Final = struct.Struct("<I")
"""CRC-32 of prefix, summary, packed header and places; it stands between the first two."""
_HEAD_BYTES: Final = _PREFIX.size + _CHECK.size
_USUAL_BYTES: Final = 4096
_SYNC_BYTES: Final = 64 << 20
"""Between two syncs, which run beside the build; twice this may not be on the disk yet."""
_MOST_AT_ONCE: Final = 1024
"""Parts that one call may write (IOV_MAX)."""
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
        with OpenBlobs() as blobs:
            return blobs.read(self)


class OpenBlobs(AbstractContextManager["OpenBlobs"]):
    """Reads many blobs of few files, each of which is opened once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._handles: dict[Path, FileIO] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, blob: Blob) -> bytes:
        """The bytes of one.

        Raises:
            CorpusError: they are not what was written.
        """
        if blob.path not in self._handles:
            self._handles[blob.path] = self._stack.enter_context(blob.path.open("rb", buffering=0))
        data = os.pread(self._handles[blob.path].fileno(), blob.size, blob.offset)
        if len(data) != blob.size or zlib.crc32(data) != blob.crc:
            raise CorpusError("staged bytes are damaged", where=blob.path.name, next_step="run the build again")
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a journal.

    Args:
        path: the journal.
        header: its JSON; in OUT/.records without blobs, and with the place of each sample as its `at`.
        summary: for the barrier (see `summary`).
        start: where the record starts in the file, in bytes.
        offset: where its blobs start.
        end: where the next record starts.
    """

    path: Path
    header: Header
    summary: bytes
    start: int
    offset: int
    end: int

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
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._sync: Future[None] | None = None

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._at = _sound_length(self._path)
        os.truncate(self._path, self._at)
        self._handle = self._path.open("r+b", buffering=0)
        self._handle.seek(self._at)
        self._synced = self._at
        return self

    def append(self, parts: Sequence[bytes]) -> int:
        """Add one record, as `record_parts` or `placed_parts` gives it; returns where it starts."""
        assert self._handle is not None, "used outside its block"
        start, size = self._at, sum(map(len, parts))
        try:
            written = os.writev(self._handle.fileno(), parts) if len(parts) <= _MOST_AT_ONCE else 0
            if written < size:
                self._write(memoryview(b"".join(parts))[written:])
        except OSError:
            os.ftruncate(self._handle.fileno(), start)  # the disk is full: what stands must stay sound
            self._handle.seek(start)
            raise
        self._at += size
        if self._at - self._synced > _SYNC_BYTES:
            self._wait_for_sync()
            self._sync = self._syncs.submit(os.fsync, self._handle.fileno())
            self._synced = self._at
        return start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None, "used outside its block"
        try:
            self._wait_for_sync()
            if os.fstat(self._handle.fileno()).st_nlink:  # the build is not over, and the next run goes on from here
                os.fsync(self._handle.fileno())
        finally:
            self._syncs.shutdown()
            self._handle.close()

    def _wait_for_sync(self) -> None:
        if self._sync is not None:
            self._sync.result()

    def _write(self, rest: memoryview) -> None:
        assert self._handle is not None, "used outside its block"
        while rest:
            rest = rest[self._handle.write(rest) :]


def record_parts(header: Header, blobs: Sequence[bytes] = (), summary: bytes = b"") -> tuple[bytes, ...]:
    """A record with these bytes behind it, to be written one part after the other; any process may make it.

    Raises:
        CorpusError: the header's `blobs` are not those.
    """
    if [size for size, _ in header["blobs"]] != [len(blob) for blob in blobs]:
        raise CorpusError("a record does not hold the bytes its header says")
    ids = (bytes.fromhex((header.get(name) or "").zfill(20)) for name in ("item", "fingerprint"))
    packed = pack(header)
    prefix = _PREFIX.pack(_MAGIC, len(summary), len(packed), sum(map(len, blobs)), *ids)
    return b"".join((prefix, _CHECK.pack(_check(prefix, summary, packed)), summary, packed)), *blobs


def placed_parts(found: Found, places: Sequence[Place]) -> tuple[bytes, ...]:
    """The record for OUT/.records of a record whose samples now lie at these places, its header as it was packed."""
    tail = json.dumps(places, separators=(",", ":")).encode()
    ids = (number.to_bytes(10, "big") for number in (found.mark.item, found.mark.fingerprint))
    prefix = _PREFIX.pack(_PLACED_MAGIC, len(found.summary), len(found.packed), len(tail), *ids)
    check = _CHECK.pack(_check(prefix, found.summary, found.packed, tail))
    return (b"".join((prefix, check, found.summary, found.packed, tail)),)


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


class Found(NamedTuple):
    """A sound record as it lies in its file.

    Args:
        mark: its ids and its place.
        summary: for the barrier.
        packed: its header, packed.
        places: JSON of the places of its samples; None where its blobs are behind it.
    """

    mark: Mark
    summary: bytes
    packed: bytes
    places: bytes | None


def read_marks(path: Path) -> Iterator[Mark]:
    """The marks of the sound records of a journal in order; stops at a torn end. No file, no records."""
    return (found.mark for found in find_records(path))


def read_records(path: Path) -> Iterator[Record]:
    """The sound records of a journal in order, without their blobs; stops at a torn end. No file, no records."""
    return (_record(path, found) for found in find_records(path))


def read_record(path: Path, handle: FileIO, start: int) -> Record:
    """The record that starts at a known place of an open journal.

    Raises:
        CorpusError: there is none.
    """
    return _record(path, find_record(path, handle, start))


def find_record(path: Path, handle: FileIO, start: int) -> Found:
    """The same with its header still packed; raises alike."""
    found = _sound_at(handle, start, os.fstat(handle.fileno()).st_size)
    if found is None:
        raise CorpusError("a staged record is damaged", where=path.name, next_step="run the build again")
    return found


def find_records(path: Path) -> Iterator[Found]:
    """The same with their headers still packed."""
    if not path.exists():
        return
    with path.open("rb", buffering=0) as handle:
        size, start = os.fstat(handle.fileno()).st_size, 0
        while (found := _sound_at(handle, start, size)) is not None:
            yield found
            start = found.mark.end


def _record(path: Path, found: Found) -> Record:
    mark, header = found.mark, json.loads(zlib.decompress(found.packed))
    if found.places is not None:
        header["blobs"] = []
        for sample, place in zip(header["samples"], json.loads(found.places), strict=True):
            sample["at"] = place
    return Record(path=path, header=header, summary=found.summary, start=mark.start, offset=mark.offset, end=mark.end)


def _sound_at(handle: FileIO, start: int, file_bytes: int) -> Found | None:
    """The record at `start`; None where no whole one is."""
    data = os.pread(handle.fileno(), _HEAD_BYTES + _USUAL_BYTES, start)
    if len(data) < _HEAD_BYTES:
        return None
    magic, summary_bytes, packed_bytes, tail_bytes, item, fingerprint = _PREFIX.unpack_from(data)
    middle = _HEAD_BYTES + summary_bytes
    offset = start + middle + packed_bytes
    end = offset + tail_bytes
    if magic not in (_MAGIC, _PLACED_MAGIC) or end > file_bytes:
        return None
    is_placed = magic == _PLACED_MAGIC
    checked_bytes = (end if is_placed else offset) - start
    if checked_bytes > len(data):
        data += os.pread(handle.fileno(), checked_bytes - len(data), start + len(data))
    if _check(data[: _PREFIX.size], data[_HEAD_BYTES:checked_bytes]) != _CHECK.unpack_from(data, _PREFIX.size)[0]:
        return None
    summary, packed = data[_HEAD_BYTES:middle], data[middle : middle + packed_bytes]
    places = data[middle + packed_bytes : checked_bytes] if is_placed else None
    numbers = int.from_bytes(item, "big"), int.from_bytes(fingerprint, "big")
    return Found(Mark(*numbers, start, offset, end), summary, packed, places)


def _check(*parts: bytes) -> int:
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return check


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
