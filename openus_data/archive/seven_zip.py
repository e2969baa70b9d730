"""7z: the header is read here and the standard library decompresses, so that our own code judges bounds and names.

Read: Copy, LZMA, LZMA2, Deflate, BZip2, Delta and the branch filters of one input. Not read, and named as such:
encrypted archives, PPMd, BCJ2. Source: 7zFormat.txt of the LZMA SDK, which is in the public domain.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final

from openus_data.archive.names import Names, safe_parts, shown
from openus_data.archive.sink import Sink
from openus_data.errors import ArchiveLimit, DamagedArchive, UnsafeArchive, UnsupportedArchive

_PIECE_BYTES: Final = 1 << 18
_HEADER_CAP_BYTES: Final = 64 << 20
_HEADER_STREAMS: Final = 32
_DICTIONARY_CAP_BYTES: Final = 512 << 20
_START: Final = struct.Struct("<6s2sIQQI")
_FILTERS: Final[dict[bytes, int]] = {
    b"\x03": lzma.FILTER_DELTA,
    **dict.fromkeys((b"\x04", b"\x03\x03\x01\x03"), lzma.FILTER_X86),
    **dict.fromkeys((b"\x05", b"\x03\x03\x02\x05"), lzma.FILTER_POWERPC),
    **dict.fromkeys((b"\x06", b"\x03\x03\x04\x01"), lzma.FILTER_IA64),
    **dict.fromkeys((b"\x07", b"\x03\x03\x05\x01"), lzma.FILTER_ARM),
    **dict.fromkeys((b"\x08", b"\x03\x03\x07\x01"), lzma.FILTER_ARMTHUMB),
    **dict.fromkeys((b"\x09", b"\x03\x03\x08\x05"), lzma.FILTER_SPARC),
}
_COPY, _LZMA, _LZMA2 = b"\x00", b"\x03\x01\x01", b"\x21"
_DEFLATE, _BZIP2, _AES = b"\x04\x01\x08", b"\x04\x02\x02", b"\x06\xf1\x07\x01"
_NAMES: Final = {
    b"\x03\x04\x01": "PPMd",
    b"\x03\x03\x01\x1b": "BCJ2",
    b"\x04\x01\x09": "Deflate64",
    b"\x04\xf7\x11\x01": "zstd",
}
_ERRORS: Final = (IndexError, struct.error, ValueError, EOFError, OSError, OverflowError, zlib.error, lzma.LZMAError)
_UNIX_EXTENSION, _REPARSE_POINT = 0x8000, 0x400


@dataclass(slots=True)
class _Coder:
    method: bytes
    properties: bytes
    inputs: int
    outputs: int


@dataclass(slots=True)
class _Folder:
    """One packed stream, the coders that undo it in their order, and the files that lie in it one after the other."""

    coders: list[_Coder]
    packed_streams: int
    order: list[int]
    sizes: list[int] = field(default_factory=list)
    final: int = 0
    crc: int | None = None
    parts: list[tuple[int, int | None]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.sizes[self.final]


@dataclass(slots=True)
class _Member:
    name: str
    is_folder: bool
    has_stream: bool
    attributes: int


def read_seven_zip(path: Path, sink: Sink) -> None:
    """Write every member of a 7z archive to the sink.

    Raises:
        UnsafeArchive: a link, or by the name rule; before the first byte is written.
        DamagedArchive: cut short, or failing a checksum.
        UnsupportedArchive: encrypted, or packed by a method that is not read here.
    """
    try:
        with path.open("rb") as file:
            header = _read_header(file)
            if not header:
                return
            streams, members = _parse_header(header, sink.most_members())
            _judge(members, sink, sum(f.size for f in streams.folders))
            _write(file, streams, members, sink)
    except _ERRORS as error:
        raise DamagedArchive(
            "the archive is damaged or cut short", where=shown(path.name), got=type(error).__name__
        ) from error


def _read_header(file: IO[bytes]) -> bytes:
    start = file.read(_START.size)
    _, _, start_crc, offset, size, crc = _START.unpack(start)
    if zlib.crc32(start[12:]) != start_crc:
        raise DamagedArchive("the first header fails its checksum")
    if size > _HEADER_CAP_BYTES:
        raise ArchiveLimit("the header is too large", expected=f"at most {_HEADER_CAP_BYTES:,} bytes")
    file.seek(_START.size + offset)
    header = file.read(size)
    if len(header) != size or zlib.crc32(header) != crc:
        raise DamagedArchive("the header is cut short or fails its checksum")
    while header[:1] == b"\x17":  # the header itself is packed
        streams = _read_streams(_Bytes(header, 1), _HEADER_STREAMS)
        folder = streams.folders[0]
        if folder.size > _HEADER_CAP_BYTES:
            raise ArchiveLimit("the header is too large", expected=f"at most {_HEADER_CAP_BYTES:,} bytes")
        header = b"".join(_unpacked(file, folder, _START.size + streams.start, streams.packed_sizes[0]))
        if folder.crc is not None and zlib.crc32(header) != folder.crc:
            raise DamagedArchive("the header fails its checksum")
    return header


class _Bytes:
    """A cursor over the header."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content, self._at = content, at

    def take(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._content):
            raise EOFError("the header ends early")
        self._at += size
        return self._content[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        first = self.byte()
        mask, value = 0x80, 0
        for index in range(8):
            if not first & mask:
                return value | ((first & (mask - 1)) << (8 * index))
            value |= self.byte() << (8 * index)
            mask >>= 1
        return value

    def count(self, most: int) -> int:
        value = self.number()
        if value > most:
            raise ArchiveLimit("too many members", expected=f"at most {most:,}", got=f"{value:,}")
        return value

    def bits(self, count: int) -> list[bool]:
        content = self.take((count + 7) // 8)
        return [bool(content[i // 8] & (0x80 >> i % 8)) for i in range(count)]

    def optional_bits(self, count: int) -> list[bool]:
        return [True] * count if self.byte() else self.bits(count)

    def checksums(self, count: int) -> list[int | None]:
        return [struct.unpack("<I", self.take(4))[0] if known else None for known in self.optional_bits(count)]

    def expect(self, wanted: int) -> None:
        if (got := self.byte()) != wanted:
            raise ValueError(f"property {got} where {wanted} should be")


@dataclass(slots=True)
class _Streams:
    start: int = 0
    packed_sizes: list[int] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)


def _read_streams(header: _Bytes, most: int) -> _Streams:
    streams = _Streams()
    while kind := header.byte():
        if kind == 0x06:
            _read_pack_info(header, streams, most)
        elif kind == 0x07:
            _read_folders(header, streams, most)
        elif kind == 0x08:
            _read_parts(header, streams.folders, most)
        else:
            raise ValueError(f"property {kind} among the streams")
    for folder in streams.folders:
        folder.parts = folder.parts or [(folder.size, folder.crc)]
    return streams


def _read_pack_info(header: _Bytes, streams: _Streams, most: int) -> None:
    streams.start, count = header.number(), header.count(most)
    while kind := header.byte():
        if kind == 0x09:
            streams.packed_sizes = [header.number() for _ in range(count)]
        elif kind == 0x0A:
            header.checksums(count)
        else:
            raise ValueError(f"property {kind} in the pack info")


def _read_folders(header: _Bytes, streams: _Streams, most: int) -> None:
    header.expect(0x0B)
    count = header.count(most)
    header.expect(0)
    streams.folders = [_read_folder(header) for _ in range(count)]
    header.expect(0x0C)
    for folder in streams.folders:
        folder.sizes = [header.number() for _ in range(sum(c.outputs for c in folder.coders))]
    while kind := header.byte():
        if kind != 0x0A:
            raise ValueError(f"property {kind} among the folders")
        for folder, crc in zip(streams.folders, header.checksums(count), strict=True):
            folder.crc = crc


def _read_folder(header: _Bytes) -> _Folder:
    coders = []
    count = header.count(32)
    if not count:
        raise ValueError("a folder without coders")
    for _ in range(count):
        flags = header.byte()
        method = header.take(flags & 0x0F)
        inputs, outputs = (header.count(32), header.count(32)) if flags & 0x10 else (1, 1)
        properties = header.take(header.count(1 << 20)) if flags & 0x20 else b""
        coders.append(_Coder(method, properties, inputs, outputs))
    inputs, outputs = sum(c.inputs for c in coders), sum(c.outputs for c in coders)
    pairs = [(header.number(), header.number()) for _ in range(outputs - 1)]
    packed = inputs - len(pairs)
    if packed > 1:
        for _ in range(packed):
            header.number()
    for coder in coders:
        _require_known(coder)
    # each coder has one input and one output by now: follow them from the packed stream to the files
    source = dict(pairs)
    final = next(i for i in range(outputs) if i not in source.values())
    order = [final]
    while order[-1] in source:
        order.append(source[order[-1]])
        if len(order) > len(coders):
            raise ValueError("coders in a circle")
    return _Folder(coders=coders, packed_streams=packed, order=order[::-1], final=final)


def _require_known(coder: _Coder) -> None:
    if coder.method == _AES:
        raise UnsupportedArchive("the archive is encrypted", next_step="unpack it by hand with its password")
    known = coder.method in {_COPY, _LZMA, _LZMA2, _DEFLATE, _BZIP2, *_FILTERS}
    if not known or (coder.inputs, coder.outputs) != (1, 1):
        raise UnsupportedArchive(
            "a packing method that is not read here",
            got=_NAMES.get(coder.method, coder.method.hex()),
            next_step="unpack it by hand with 7-Zip and use --from",
        )


def _read_parts(header: _Bytes, folders: list[_Folder], most: int) -> None:
    counts = [1] * len(folders)
    kind = header.byte()
    if kind == 0x0D:
        counts = [header.count(most) for _ in folders]
        if sum(counts) > most:
            raise ArchiveLimit("too many members", expected=f"at most {most:,}", got=f"{sum(counts):,}")
        kind = header.byte()
        if kind != 0x09 and any(n > 1 for n in counts):
            raise ValueError("parts without sizes")
    sizes: list[list[int]] = []
    for folder, count in zip(folders, counts, strict=True):
        given = [header.number() for _ in range(count - 1)] if kind == 0x09 and count else []
        rest = folder.size - sum(given)
        if rest < 0:
            raise ValueError("parts beyond their folder")
        sizes.append([*given, rest] if count else [])
    if kind == 0x09:
        kind = header.byte()
    unknown = sum(n for f, n in zip(folders, counts, strict=True) if not (n == 1 and f.crc is not None))
    crcs: Iterator[int | None] = iter(())
    while kind:
        if kind != 0x0A:
            raise ValueError(f"property {kind} among the parts")
        crcs = iter(header.checksums(unknown))
        kind = header.byte()
    for folder, part_sizes in zip(folders, sizes, strict=True):
        alone = len(part_sizes) == 1 and folder.crc is not None
        folder.parts = [(size, folder.crc if alone else next(crcs, None)) for size in part_sizes]


def _parse_header(content: bytes, most: int) -> tuple[_Streams, list[_Member]]:
    header, streams, members = _Bytes(content), _Streams(), list[_Member]()
    header.expect(0x01)
    while kind := header.byte():
        if kind == 0x04:
            streams = _read_streams(header, most)
        elif kind == 0x05:
            members = _read_members(header, most)
        elif kind == 0x02:
            while header.byte():
                header.take(header.number())
        else:
            raise ValueError(f"property {kind} in the header")
    return streams, members


def _read_members(header: _Bytes, most: int) -> list[_Member]:
    count = header.count(most)
    without_stream, empty_files = [False] * count, [False] * count
    names, attributes = [""] * count, [0] * count
    while kind := header.number():
        block = _Bytes(header.take(header.number()))
        if kind == 0x0E:
            without_stream = block.bits(count)
        elif kind == 0x0F:
            flags = iter(block.bits(sum(without_stream)))
            empty_files = [empty and next(flags) for empty in without_stream]
        elif kind == 0x11:
            block.expect(0)
            names = [_read_name(block) for _ in range(count)]
        elif kind == 0x15:
            known = block.optional_bits(count)
            block.expect(0)
            attributes = [struct.unpack("<I", block.take(4))[0] if k else 0 for k in known]
    return [
        _Member(name, without and not empty, not without, attribute)
        for name, without, empty, attribute in zip(names, without_stream, empty_files, attributes, strict=True)
    ]


def _read_name(block: _Bytes) -> str:
    raw = bytearray()
    while (unit := block.take(2)) != b"\0\0":
        raw += unit
    return raw.decode("utf-16-le", errors="surrogatepass")


def _judge(members: list[_Member], sink: Sink, size: int) -> None:
    names = Names()
    for member in members:
        parts = safe_parts(member.name)
        kind = stat.S_IFMT(member.attributes >> 16) if member.attributes & _UNIX_EXTENSION else 0
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.attributes & _REPARSE_POINT:
            raise UnsafeArchive(
                "a link or a device in the archive", where=shown(member.name), next_step="nothing was unpacked"
            )
        (names.add_folder if member.is_folder else names.add_file)(parts)
    sink.expect(size)


def _write(file: IO[bytes], streams: _Streams, members: list[_Member], sink: Sink) -> None:
    if sum(m.has_stream for m in members) != sum(len(f.parts) for f in streams.folders):
        raise DamagedArchive("the header names another number of files than it holds")
    waiting = iter([m for m in members if m.has_stream])
    for member in members:
        if member.is_folder:
            sink.folder(member.name)
        elif not member.has_stream:
            sink.file(member.name, ())
    starts = list(accumulate(streams.packed_sizes, initial=_START.size + streams.start))
    firsts = list(accumulate((f.packed_streams for f in streams.folders), initial=0))
    for index, folder in enumerate(streams.folders):
        content = _Exact(_unpacked(file, folder, starts[firsts[index]], streams.packed_sizes[firsts[index]]))
        for size, crc in folder.parts:
            member = next(waiting)
            sink.file(member.name, content.take(size, crc, member.name))


class _Exact:
    """Cuts a stream of pieces into files."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def take(self, size: int, crc: int | None, name: str) -> Iterator[bytes]:
        seen = 0
        while size:
            piece = self._left or next(self._pieces, b"")
            if not piece:
                raise DamagedArchive("a member was cut short", where=shown(name))
            piece, self._left = piece[:size], piece[size:]
            size -= len(piece)
            seen = zlib.crc32(piece, seen)
            yield piece
        if crc is not None and seen != crc:
            raise DamagedArchive("a member fails its checksum", where=shown(name))


def _unpacked(file: IO[bytes], folder: _Folder, start: int, packed_bytes: int) -> Iterator[bytes]:
    """The content of one folder, whose packed stream lies at `start`."""
    pieces: Iterable[bytes] = _packed(file, start, packed_bytes)
    chain: list[dict[str, Any]] = []
    for place, number in enumerate(folder.order):
        coder, size = folder.coders[number], folder.sizes[number]
        if coder.method in (_LZMA, _LZMA2) or coder.method in _FILTERS:
            chain.insert(0, _lzma_filter(coder))
            following = folder.coders[folder.order[place + 1]].method if place + 1 < len(folder.order) else b""
            if following not in _FILTERS:
                decoder: Any = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=chain)
                pieces, chain = _bounded(decoder.decompress, lambda d=decoder: d.eof, pieces, size), []  # type: ignore[misc]
        elif coder.method == _DEFLATE:
            pieces = _inflated(pieces, size)
        elif coder.method == _BZIP2:
            decoder = bz2.BZ2Decompressor()
            pieces = _bounded(decoder.decompress, lambda d=decoder: d.eof, pieces, size)  # type: ignore[misc]
    return iter(pieces)


def _packed(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    at, end = start, start + size
    while at < end:
        file.seek(at)
        piece = file.read(min(_PIECE_BYTES, end - at))
        if not piece:
            raise EOFError("the archive ends early")
        at += len(piece)
        yield piece


def _bounded(
    decompress: Callable[[bytes, int], bytes], ended: Callable[[], bool], pieces: Iterable[bytes], size: int
) -> Iterator[bytes]:
    """What a decompressor makes of the pieces, up to `size`, in pieces of bounded length."""
    source, left, packed = iter(pieces), size, b""
    while left and not ended():
        piece = decompress(packed, min(_PIECE_BYTES, left))
        packed = b""
        left -= len(piece)
        if piece:
            yield piece
        else:
            packed = next(source, b"")
            if not packed:
                return


def _inflated(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    decoder, left = zlib.decompressobj(wbits=-15), size
    for packed in pieces:
        while packed and left:
            piece = decoder.decompress(packed, min(_PIECE_BYTES, left))
            packed = decoder.unconsumed_tail
            left -= len(piece)
            yield piece
    if left:
        yield decoder.flush()[:left]


def _lzma_filter(coder: _Coder) -> dict[str, Any]:
    properties = coder.properties
    if coder.method == _LZMA:
        number, size = properties[0], struct.unpack("<I", properties[1:5])[0]
        found = {
            "id": lzma.FILTER_LZMA1,
            "lc": number % 9,
            "lp": number // 9 % 5,
            "pb": number // 45,
            "dict_size": max(size, 4096),
        }
    elif coder.method == _LZMA2:
        size = (2 | (properties[0] & 1)) << (properties[0] // 2 + 11)
        found = {"id": lzma.FILTER_LZMA2, "dict_size": size}
    elif coder.method == b"\x03":
        return {"id": lzma.FILTER_DELTA, "dist": properties[0] + 1}
    else:
        return {"id": _FILTERS[coder.method]}
    if size > _DICTIONARY_CAP_BYTES:
        raise ArchiveLimit(
            "the dictionary is too large", expected=f"at most {_DICTIONARY_CAP_BYTES:,} bytes", got=f"{size:,}"
        )
    return found
