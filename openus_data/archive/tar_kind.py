"""tar, plain or in gzip, bzip2, xz or zstd, read as a stream to the last byte so that no damage passes unseen.

The standard reader takes a damaged header for the end of the archive, and never reads the compressor's checksum. Here
the two zero blocks must come, nothing but zeros may follow, and the compressed stream must end as it should.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from openus_data.archive.names import shown
from openus_data.archive.sink import Sink
from openus_data.errors import ArchiveLimit, DamagedArchive, MissingExtra, UnsafeArchive

MAGIC: Final[dict[bytes, str]] = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_BLOCK: Final = tarfile.BLOCKSIZE
_PIECE_BYTES: Final = 1 << 18
_HEADER_CAP_BYTES: Final = 1 << 20
_PADDING_CAP_BYTES: Final = 16 << 20
_WINDOW_LOG_BYTES: Final = 1 << 27
_XZ_MEMORY_BYTES: Final = 512 << 20
_EXTENDED: Final = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
# the standard reader goes one call deeper for each header that only extends the next one
_STREAM_ERRORS: Final = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError, RecursionError)


class _StrictMember(tarfile.TarInfo):
    """A header that is right, or the end mark, or an error; never a silent end."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Any:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the first zero block
            tarfile_.openus_ended = True
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise DamagedArchive("the archive ends without its end mark: it was cut short") from error
        except tarfile.HeaderError as error:
            raise DamagedArchive("a member's header is damaged", got=str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and member.size > _HEADER_CAP_BYTES:
            raise ArchiveLimit("an extended header is too large", expected=f"at most {_HEADER_CAP_BYTES:,} bytes")
        if member.size < 0:
            raise DamagedArchive("a member's size is negative")
        return member


def read_tar(path: Path, sink: Sink) -> None:
    """Write every member of a tar archive to the sink.

    Raises:
        UnsafeArchive: a link, a device, or by the name rule.
        DamagedArchive: cut short, or failing a checksum.
    """
    with path.open("rb") as packed:
        stream = open_stream(packed, path.name)
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictMember) as tar:
                _read_members(tar, sink)
                _read_to_the_end(tar)
        except _STREAM_ERRORS as error:
            raise DamagedArchive("the archive is damaged", where=path.name, got=type(error).__name__) from error


def holds_tar(path: Path) -> bool:
    """Whether a compressed file holds a tar archive, by its first block."""
    try:
        with path.open("rb") as packed:
            block = open_stream(packed, path.name).read(_BLOCK)
    except (*_STREAM_ERRORS, MissingExtra):
        return False
    return is_tar_block(block)


def is_tar_block(block: bytes) -> bool:
    """Whether a block is a tar header: by its magic, else by its checksum."""
    if len(block) < _BLOCK:
        return False
    if block[257:262] == b"ustar":
        return True
    try:
        return bool(block.strip(b"\0")) and tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape") is not None
    except tarfile.HeaderError:
        return False


def open_stream(packed: IO[bytes], name: str) -> IO[bytes]:
    """The stream inside a file: by its magic bytes, decompressed or as it is.

    Raises:
        MissingExtra: zstd without its package.
    """
    head = packed.read(8)
    packed.seek(0)
    kind = next((k for magic, k in MAGIC.items() if head.startswith(magic)), None)
    if kind == "gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed, mode="rb"))
    if kind == "bz2":
        return cast(IO[bytes], io.BufferedReader(_Decompressed(packed, bz2.BZ2Decompressor), _PIECE_BYTES))
    if kind == "xz":
        return cast(IO[bytes], io.BufferedReader(_Decompressed(packed, _new_xz), _PIECE_BYTES))
    if kind == "zst":
        return _open_zstd(packed, name)
    return packed


def _new_xz() -> Any:
    return lzma.LZMADecompressor(format=lzma.FORMAT_AUTO, memlimit=_XZ_MEMORY_BYTES)


def _open_zstd(packed: IO[bytes], name: str) -> IO[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra(
            "zstd archives need a package that is not installed", where=name, next_step="pip install zstandard"
        ) from error

    def new() -> Any:
        return _Zstd(zstandard.ZstdDecompressor(max_window_size=_WINDOW_LOG_BYTES).decompressobj(), zstandard.ZstdError)

    return cast(IO[bytes], io.BufferedReader(_Decompressed(packed, new), _PIECE_BYTES))


class _Zstd:
    """zstandard's decompressor with the interface of lzma's; it takes no bound, so it gets its input in small bites.

    A block of 4 bytes can stand for 128 KiB, so a bite of `_BITE_BYTES` gives 128 MiB at most. Bites shrink while they
    give much, so that a bomb is stopped by the sink's own count and not by the memory.
    """

    needs_input = True
    _BITE_BYTES: Final = 1 << 12
    _LEAST_BITE_BYTES: Final = 1 << 5

    def __init__(self, inner: Any, fault: type[Exception]) -> None:
        self._inner, self._fault = inner, fault
        self.bite_bytes = self._LEAST_BITE_BYTES

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, packed: bytes, _max_length: int) -> bytes:
        try:
            unpacked = bytes(self._inner.decompress(packed))
        except self._fault as error:
            raise OSError("bad zstd data") from error
        if len(unpacked) > 4 * _PIECE_BYTES:
            self.bite_bytes = max(self.bite_bytes // 2, self._LEAST_BITE_BYTES)
        else:
            self.bite_bytes = min(self.bite_bytes * 2, self._BITE_BYTES)
        return unpacked


class _Decompressed(io.RawIOBase):
    """Concatenated compressed streams as one file; an end in the middle of a stream is an error."""

    _PACKED_BYTES: Final = 1 << 14

    def __init__(self, packed: IO[bytes], new: Callable[[], Any]) -> None:
        self._packed, self._new = packed, new
        self._current = new()
        self._rest = b""
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._left:
            if not self._fill():
                return 0
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def _fill(self) -> bool:
        if self._current.eof:
            self._rest = self._current.unused_data.lstrip(b"\0") or self._read().lstrip(b"\0")
            if not self._rest:
                return False
            self._current = self._new()
        if self._current.needs_input and not self._rest:
            self._rest = self._read()
            if not self._rest:
                raise EOFError("the compressed stream was cut short")
        self._left = memoryview(self._current.decompress(self._rest, _PIECE_BYTES))
        self._rest = b""
        return True

    def _read(self) -> bytes:
        return self._packed.read(getattr(self._current, "bite_bytes", self._PACKED_BYTES))


def _read_members(tar: tarfile.TarFile, sink: Sink) -> None:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else a million members stay in memory
        name = _decoded(member.name)
        if member.isdir():
            sink.folder(name)
        elif member.isreg():
            content = tar.extractfile(member)
            assert content is not None
            sink.file(name, _pieces(content, member.size, name))
        else:
            kind = "a link" if member.islnk() or member.issym() else "a device or pipe"
            raise UnsafeArchive(f"{kind} in the archive", where=shown(name), next_step="nothing was unpacked")


def _pieces(content: IO[bytes], size: int, name: str) -> Iterator[bytes]:
    left = size
    while left:
        piece = content.read(min(_PIECE_BYTES, left))
        if not piece:
            raise DamagedArchive("a member was cut short", where=shown(name))
        left -= len(piece)
        yield piece


def _decoded(name: str) -> str:
    """Names that are no UTF-8 are read as code page 437, as zip does, so that they are at least stable."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _read_to_the_end(tar: tarfile.TarFile) -> None:
    if not getattr(tar, "openus_ended", False):
        raise DamagedArchive("the archive ends without its end mark: it was cut short")
    stream = cast(IO[bytes], tar.fileobj)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise DamagedArchive("the archive's end mark is incomplete: it was cut short")
    padding = 0
    while piece := stream.read(_PIECE_BYTES):
        padding += len(piece)
        if piece.count(0) != len(piece):
            raise DamagedArchive("data after the end mark: members would be lost")
        if padding > _PADDING_CAP_BYTES:
            raise ArchiveLimit("too much padding after the end mark", expected=f"at most {_PADDING_CAP_BYTES:,} bytes")
