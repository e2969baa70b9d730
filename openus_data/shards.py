"""Shards: plain tars that WebDataset reads, equal bytes from equal samples, each with a sidecar that says it is whole.

The 512-byte headers are written here, so that owner, mode and time are fixed and every offset is known before a byte is
written (POSIX.1-1988 ustar). A sample is its image, its JSON, then its mask if it has one, side by side.

    with ShardWriter(out, "train", 0) as shard:
        shard.add("busi-0a1b", [("png", image), ("json", metadata)])
    shard.sidecar.sha256
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Final

from openus_data.errors import CorpusError
from openus_data.schema import SAMPLE_ID_PATTERN, SPLITS, shard_name
from openus_data.store import write_aside, write_bytes_aside

BLOCK_BYTES: Final = 512
RECORD_BYTES: Final = 20 * BLOCK_BYTES
"""A tar ends with two empty blocks and is filled up to a multiple of this, as tar(1) does."""
MAX_NAME_BYTES: Final = 100
MAX_MEMBER_BYTES: Final = 8**11 - 1

_WRITE_BYTES: Final = 1 << 20
_SYNC_BYTES: Final = 32 << 20
_MOST_UNDER_WAY: Final = 8
_END: Final = b"\0" * (2 * BLOCK_BYTES)
_OCTAL: Final = re.compile(rb"[0-7]{11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file in a shard.

    Args:
        name: `<sample_id>.<suffix>`.
        offset: where its bytes start in the tar.
        size: its length in bytes.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What stands beside a shard: present and matching means that the shard is complete.

    Args:
        samples: number of samples.
        size_bytes: length of the tar; `bytes` in the file.
        sha256: digest of the tar.
        members: every file in order.
        plan: digest of what the shard was made from; empty where it was not planned.
    """

    samples: int
    size_bytes: int
    sha256: str
    members: tuple[Member, ...]
    plan: str = ""

    def without_members(self) -> Sidecar:
        """The same without the list of files, which may be long."""
        return replace(self, members=())

    def to_json(self) -> bytes:
        """The sidecar's file content; one member a line, so that it can be read and compared."""
        head = json.dumps(
            {"samples": self.samples, "bytes": self.size_bytes, "sha256": self.sha256, "plan": self.plan}
        )[:-1]
        # a name holds nothing that JSON would write otherwise
        lines = ",\n".join(f'{{"name": "{m.name}", "offset": {m.offset}, "size": {m.size}}}' for m in self.members)
        return f'{head}, "members": [\n{lines}\n]}}\n'.encode()


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes one shard and its sidecar, each whole or not at all; a thread hashes and syncs what is written already.

    Args:
        out: the OUT folder.
        split: one of schema.SPLITS.
        index: number of the shard in its split.
        plan: digest of what it is made from, kept in the sidecar.

    Attributes:
        plan: the same; may be set until the block ends.
    """

    def __init__(self, out: Path, split: str, index: int, *, plan: str = "") -> None:
        self.name = shard_name(split, index)
        self.plan = plan
        self._path = out / self.name
        self._context = write_aside(self._path)
        self._handle: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._under_way: deque[Future[None]] = deque()
        self._held: list[bytes] = []
        self._written = self._synced = 0
        self._members: list[Member] = []
        self._samples = 0
        self._offset = 0
        self._sidecar: Sidecar | None = None

    def __enter__(self) -> ShardWriter:
        self._handle = self._context.__enter__()
        return self

    def add(self, sample_id: str, files: Sequence[tuple[str, bytes]]) -> Member:
        """Append one sample.

        Args:
            sample_id: of schema.SAMPLE_ID_PATTERN, so that WebDataset does not cut it at a dot.
            files: (suffix, bytes), the image first.

        Returns:
            The image's place in the tar.
        """
        if not SAMPLE_ID_PATTERN.fullmatch(sample_id):
            raise CorpusError("a sample id that WebDataset would cut", where=sample_id, expected="[a-z0-9_-]+")
        first = len(self._members)
        for suffix, data in files:
            name = f"{sample_id}.{suffix}"
            self._members.append(Member(name=name, offset=self._offset + BLOCK_BYTES, size=len(data)))
            self._hold(tar_header(name, len(data)), data, b"\0" * (-len(data) % BLOCK_BYTES))
        if self._offset - self._written > _WRITE_BYTES:
            self._write()
        self._samples += 1
        return self._members[first]

    @property
    def sidecar(self) -> Sidecar:
        """What was written; there once the block has ended."""
        if self._sidecar is None:
            raise CorpusError("the shard is not finished", where=self.name)
        return self._sidecar

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._hold(_END)
                self._hold(b"\0" * (-self._offset % RECORD_BYTES))
                self._write()
                self._wait_for(0)
        except BaseException as failure:
            self._context.__exit__(type(failure), failure, failure.__traceback__)
            raise
        finally:
            self._beside.shutdown()
        self._context.__exit__(kind, error, trace)
        if kind is None:
            self._sidecar = Sidecar(
                samples=self._samples,
                size_bytes=self._offset,
                sha256=self._digest.hexdigest(),
                members=tuple(self._members),
                plan=self.plan,
            )
            write_bytes_aside(sidecar_path(self._path), self._sidecar.to_json())

    def _hold(self, *parts: bytes) -> None:
        self._held += parts
        self._offset += sum(map(len, parts))

    def _write(self) -> None:
        if self._handle is None:
            raise CorpusError("the shard is not open", where=self.name)
        data = b"".join(self._held)
        self._held.clear()
        self._handle.write(data)
        self._written = self._offset
        self._under_way.append(self._beside.submit(self._digest.update, data))
        if self._written - self._synced > _SYNC_BYTES:
            self._under_way.append(self._beside.submit(os.fsync, self._handle.fileno()))
            self._synced = self._written
        self._wait_for(_MOST_UNDER_WAY)

    def _wait_for(self, left: int) -> None:
        """Wait until no more than `left` pieces are to be hashed."""
        while len(self._under_way) > left:
            self._under_way.popleft().result()


def tar_header(name: str, size: int) -> bytes:
    """The ustar header of a regular file, owner 0, mode 0644, time 0.

    Raises:
        CorpusError: the name or the size does not fit the format.
    """
    raw = name.encode("ascii")
    if len(raw) > MAX_NAME_BYTES or size > MAX_MEMBER_BYTES:
        raise CorpusError("a member does not fit a tar header", where=name, got=f"{len(raw)} letters, {size} bytes")
    zeros = b"0000000\0"
    head = raw.ljust(100, b"\0") + b"0000644\0" + zeros + zeros + b"%011o\0" % size + b"00000000000\0"
    tail = b"0" + b"\0" * 100 + b"ustar\x0000" + b"\0" * 64 + zeros + zeros + b"\0" * 155 + b"\0" * 12
    checksum = sum(head) + 8 * ord(" ") + sum(tail)
    return head + b"%06o\0 " % checksum + tail


def member_offsets(sizes: Sequence[int]) -> list[int]:
    """Where the bytes of each member start in a shard whose members have these sizes in this order."""
    offsets, at = [], 0
    for size in sizes:
        offsets.append(at + BLOCK_BYTES)
        at += tar_bytes(size)
    return offsets


def tar_bytes(size: int) -> int:
    """What a member of `size` bytes takes in a tar: its header and its bytes, filled up to whole blocks."""
    return BLOCK_BYTES + size + -size % BLOCK_BYTES


def plan_shards(sizes: Sequence[int], *, max_samples: int, max_bytes: int) -> list[int]:
    """How many samples go into each shard, in order.

    Args:
        sizes: bytes that each sample takes in a tar.
        max_samples: bound on the samples of a shard.
        max_bytes: bound on its bytes, unless one sample alone is larger.
    """
    counts: list[int] = []
    room = 0
    for size in sizes:
        if not counts or counts[-1] == max_samples or size > room:
            counts.append(0)
            room = max_bytes - 2 * BLOCK_BYTES
        counts[-1] += 1
        room -= size
    return counts


def sidecar_path(shard: Path) -> Path:
    """Where a shard's sidecar lies."""
    return shard.with_suffix(".json")


def read_sidecar(shard: Path) -> Sidecar:
    """Read the sidecar of a shard.

    Raises:
        CorpusError: it is missing or not a sidecar.
    """
    try:
        raw = json.loads(sidecar_path(shard).read_bytes())
        return Sidecar(
            samples=int(raw["samples"]),
            size_bytes=int(raw["bytes"]),
            sha256=str(raw["sha256"]),
            members=tuple(
                Member(name=str(m["name"]), offset=int(m["offset"]), size=int(m["size"])) for m in raw["members"]
            ),
            plan=str(raw.get("plan", "")),
        )
    except FileNotFoundError as error:
        raise CorpusError("the sidecar is missing", where=shard.name, next_step="run the build again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError("the sidecar cannot be read", where=shard.name, next_step="run the build again") from error


def read_member(out: Path, row: Mapping[str, object]) -> bytes:
    """The image bytes of one manifest row, without a scan.

    Args:
        out: the OUT folder.
        row: a row with `shard`, `offset` and `size_bytes`.

    Raises:
        CorpusError: the shard is missing or shorter than the row says, or the row names a place outside OUT.
    """
    name, size = str(row["shard"]), int(str(row["size_bytes"]))
    try:
        descriptor = os.open(out / check_shard_name(name), os.O_RDONLY)
    except FileNotFoundError as error:
        raise CorpusError("the shard is missing", where=name, next_step="run the build again") from error
    try:
        data = os.pread(descriptor, size, int(str(row["offset"])))
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise CorpusError("the shard ends too early", where=name, expected=f"{size} bytes", got=f"{len(data)}")
    return data


def check_shard_name(name: str) -> PurePosixPath:
    """A shard's name as a path below OUT.

    Raises:
        CorpusError: it is not of the form `shards/<split>/openus-<split>-<6 digits>.tar`.
    """
    path = PurePosixPath(name)
    split = path.parent.name
    number = path.stem.removeprefix(f"openus-{split}-")
    if split not in SPLITS or not number.isdecimal() or name != shard_name(split, int(number)):
        raise CorpusError("not the name of a shard", where=repr(name), expected=shard_name("train", 0))
    return path


def list_shards(out: Path) -> list[str]:
    """Names of the tars that lie under OUT/shards, sorted; others' files are not looked at."""
    return sorted(p.relative_to(out).as_posix() for p in (out / "shards").glob("*/*.tar"))


def member_length(header: bytes) -> int:
    """Bytes of the member that a tar header announces; -1 where it says no octal number."""
    digits = header[124:135]
    return int(digits, 8) if _OCTAL.fullmatch(digits) else -1


def walk_tar(handle: BinaryIO) -> Iterator[Member]:
    """Members of a tar by its headers, strictly: a damaged header or a missing end raises instead of ending the list.

    Raises:
        CorpusError: a header is not one of ours, or the end is missing.
    """
    size = handle.seek(0, os.SEEK_END)
    at = 0
    while True:
        handle.seek(at)
        header = handle.read(BLOCK_BYTES)
        if header == b"\0" * BLOCK_BYTES and size - at >= len(_END):
            return
        if len(header) < BLOCK_BYTES:
            raise CorpusError("the tar ends without its end mark", got=f"{size} bytes")
        name = header[:100].rstrip(b"\0").decode("ascii", "replace")
        length = member_length(header)
        if length < 0 or not name.isascii() or tar_header(name, length) != header:
            raise CorpusError("a damaged tar header", got=f"at byte {at}")
        if at + tar_bytes(length) > size:
            raise CorpusError("the tar ends inside a member", where=name)
        yield Member(name=name, offset=at + BLOCK_BYTES, size=length)
        at += tar_bytes(length)
