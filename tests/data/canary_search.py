"""Looks for planted strings in everything a command wrote or printed, through containers and encodings.

A canary looks like `Qz017xKv...` (see `planted.Canaries`). Finding `Qz017xKv` in any case, in UTF-8, UTF-16,
hexadecimal or base64, in a file's bytes, its name, an inflated stream, a tar or zip member, a decoded Parquet column or
its metadata is a leak. Digests of the strings (MD5, SHA-1, SHA-2, SHA-3, BLAKE2) are leaks too, since anyone can
recompute them.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from planted import Canaries

_PLAIN = re.compile(rb"qz(\d{3})xkv")
_UTF16 = re.compile(rb"q\0z\0(\d)\0(\d)\0(\d)\0x\0k\0v")
_HEX = re.compile(rb"517a((?:3\d){3})784b76")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_STREAMS = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_MAX_DEPTH = 4
_DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s", "sha3_256", "sha3_512")


@dataclasses.dataclass(frozen=True)
class Leak:
    """A planted string where none should be.

    Args:
        where: file, and the way into it.
        place: where the string had been planted.
        form: how it was written.
    """

    where: str
    place: str
    form: str


class Searcher:
    """Holds what to look for.

    Args:
        canaries: the planted strings.
        extra: further strings, such as dates and UIDs, by the place they were planted in.
    """

    def __init__(self, canaries: Canaries, extra: dict[str, str] | None = None) -> None:
        self._places = {word[2:5]: place for word, place in canaries.planted.items()}
        self._extra = {text.encode().lower(): place for text, place in (extra or {}).items()}
        self._digests: dict[bytes, str] = {}
        for word in (*canaries.planted, *(extra or {})):
            for name in _DIGESTS:
                digest = hashlib.new(name, word.encode()).hexdigest()[:12]
                self._digests[digest.encode()] = f"{name} of a planted string"
        self._digest_pattern = re.compile(rb"[0-9a-f]{12}")

    def in_folders(self, folders: Iterable[Path]) -> list[Leak]:
        """Every file below the folders, its name included."""
        leaks: list[Leak] = []
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                where = path.relative_to(folder).as_posix()
                leaks += self.in_bytes(where.encode(), f"name of {where}")
                if path.is_symlink() or not path.is_file():
                    continue
                leaks += self.in_bytes(path.read_bytes(), where)
        return leaks

    def in_bytes(self, content: bytes, where: str, depth: int = 0) -> list[Leak]:
        """The bytes as they are, and whatever they contain."""
        leaks = list(self._flat(content, where))
        if depth < _MAX_DEPTH:
            for inner, name in _open(content):
                leaks += self.in_bytes(inner, f"{where} > {name}", depth + 1)
        return leaks

    def _flat(self, content: bytes, where: str) -> Iterator[Leak]:
        low = content.lower()
        for text, place in self._extra.items():
            if text in low or text.decode().encode("utf-16-le") in low:
                yield Leak(where, place, "plain")
        for pattern, form in ((_PLAIN, "plain"), (_UTF16, "utf-16"), (_HEX, "hexadecimal")):
            for found in set(pattern.findall(low)):
                yield self._leak(found, where, form)
        for word in set(self._digest_pattern.findall(low)) & set(self._digests):
            yield Leak(where, self._digests[word], "digest")
        if not content.isascii():
            return
        for run in _BASE64.findall(content):
            for start in range(4):
                decoded = _unbase64(run[start:])
                for found in set(_PLAIN.findall(decoded.lower())):
                    yield self._leak(found, where, "base64")

    def _leak(self, found: bytes | tuple[bytes, ...], where: str, form: str) -> Leak:
        digits = b"".join(found) if isinstance(found, tuple) else found
        if len(digits) == 6:  # hexadecimal: 30 31 32
            digits = bytes.fromhex(digits.decode())
        return Leak(where, self._places.get(digits.decode(), "another run's string"), form)


def _unbase64(run: bytes) -> bytes:
    run = run.translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(run[: len(run) // 4 * 4])
    except binascii.Error:
        return b""


def _open(content: bytes) -> Iterator[tuple[bytes, str]]:
    """What a container holds: members, columns, metadata, inflated streams."""
    if content[:4] == b"PAR1":
        yield from _parquet(content)
    elif content[257:262] == b"ustar":
        yield from _tar(content)
    elif content[:2] == b"PK":
        yield from _zip(content)
    if len(content) < 1 << 24:
        yield from _streams(content)
    if content[:1] in (b"{", b"[", b'"') and b"\\u" in content:
        yield content.decode("unicode_escape", "replace").encode(), "JSON escapes"


def _parquet(content: bytes) -> Iterator[tuple[bytes, str]]:
    file = pq.ParquetFile(io.BytesIO(content))
    yield repr(file.metadata.metadata).encode(), "key-value metadata"
    yield str(file.metadata.created_by).encode(), "created_by"
    for group in range(file.metadata.num_row_groups):
        for column in range(file.metadata.num_columns):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                yield repr((statistics.min, statistics.max)).encode(), f"statistics of column {column}"
    table = file.read()
    for name in table.column_names:
        yield repr(table.column(name).to_pylist()).encode(), f"column {name}"


def _tar(content: bytes) -> Iterator[tuple[bytes, str]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        members = archive.getmembers()
        yield repr(archive.pax_headers).encode(), "global headers"
        for member in members:
            about = (member.name, member.uname, member.gname, member.linkname, sorted(member.pax_headers.items()))
            yield repr(about).encode(), f"header of {member.name}"
            if member.isreg():
                handle = archive.extractfile(member)
                yield (handle.read() if handle else b""), member.name


def _zip(content: bytes) -> Iterator[tuple[bytes, str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield archive.comment, "comment"
        for member in archive.infolist():
            yield member.filename.encode() + member.extra + member.comment, f"header of {member.filename}"
            yield archive.read(member), member.filename


def _streams(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Whatever inflates from a zlib or gzip header: PNG text, PDF streams, compressed blobs."""
    for found in _STREAMS.finditer(content):
        worker = zlib.decompressobj(wbits=47)
        try:
            inflated = worker.decompress(content[found.start() :], 1 << 22)
        except zlib.error:
            continue
        if len(inflated) >= 8:
            yield inflated, f"stream at {found.start()}"
