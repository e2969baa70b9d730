"""The last stage of a build: one planned shard to a tar, a sidecar and the manifest's rows; any process may do it.

A shard whose plan is that of the shard already in OUT is not written again.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from openus_data.errors import CorpusError, NoSpace
from openus_data.first_stage.folder import Stored, book_paths, decided_row, stored
from openus_data.first_stage.journal import OpenBlobs, read_record
from openus_data.manifest import check_columns, table_of_json
from openus_data.schema import MANIFEST_NAME, MASK_SUFFIX, METADATA_SUFFIX, manifest_schema, shard_name
from openus_data.shards import ShardWriter, Sidecar, member_offsets, read_sidecar, sidecar_path

_READ_AT_ONCE, _READ_AHEAD = 8, 2
_Files = tuple[str, list[tuple[str, bytes]]]
"""A sample's id, and suffix and bytes of each of its files."""


class PlannedSample(NamedTuple):
    """One sample of a shard to come.

    Args:
        book, start, number: where its record lies, and which of the record's samples it is.
        duplicate_group: id of its group, or None.
    """

    book: int
    start: int
    number: int
    duplicate_group: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One shard to come.

    Args:
        out: the OUT folder.
        target: the folder that the shard is written below, laid out as OUT.
        split, index: its name.
        samples: in order.
    """

    out: Path
    target: Path
    split: str
    index: int
    samples: tuple[PlannedSample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """One finished shard.

    Args:
        name: below OUT.
        sidecar: without its members.
        is_old: the shard in OUT is already this one.
        rows: the manifest's rows, as an Arrow stream.
        places: per sample, offset, size and CRC-32 of image and mask; the mask's are None where there is none.
    """

    name: str
    sidecar: Sidecar
    is_old: bool
    rows: bytes = field(repr=False)
    places: tuple[tuple[list[int], list[int] | None], ...] = field(repr=False)

    def table(self) -> pa.Table:
        """The manifest's rows."""
        return pa.ipc.open_stream(self.rows).read_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """One sample with all but its bytes."""

    sample_id: str
    suffix: str
    metadata: bytes
    bytes: Stored


def write_shard(plan: ShardPlan) -> ShardResult:
    """Write one shard.

    Raises:
        NoSpace: the disk is full.
        CorpusError: staged bytes are missing or damaged.
    """
    try:
        name, is_old = shard_name(plan.split, plan.index), False
        ready, sidecar = list[_Ready](), None
        if any(sidecar_path(folder / name).exists() for folder in (plan.out, plan.target)):
            ready += _gather(plan)
            digest = _plan_digest(ready)
            sidecar = _sidecar_of_plan(plan.out / name, digest)
            if sidecar:
                is_old = True
                _discard(plan.target / name)
            sidecar = sidecar or _sidecar_of_plan(plan.target / name, digest)
        if sidecar is None:
            ready, sidecar = _write(plan, ready or _gather(plan))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace("the disk is full while shards are written", next_step="free space and run again") from error
        raise
    places = _places(ready)
    rows = _stream(_table(name, ready, [image for image, _ in places]))
    return ShardResult(name=name, sidecar=sidecar, is_old=is_old, rows=rows, places=places)


def _gather(plan: ShardPlan) -> Iterator[_Ready]:
    paths = book_paths(plan.out)
    handles: dict[int, FileIO] = {}
    try:
        for sample in plan.samples:
            if sample.book not in handles:
                handles[sample.book] = paths[sample.book].open("rb", buffering=0)
            record = read_record(paths[sample.book], handles[sample.book], sample.start)
            header = record.header["samples"][sample.number]
            place = stored(plan.out, record, sample.number)
            if place is None:
                raise CorpusError("a staged picture is gone", where=shard_name(plan.split, plan.index))
            row = decided_row(header["row"], split=plan.split, duplicate_group=sample.duplicate_group)
            metadata = f"{row}\n".encode()
            yield _Ready(sample_id=header["id"], suffix=header["suffix"], metadata=metadata, bytes=place)
    finally:
        for handle in handles.values():
            handle.close()


def _sizes(sample: _Ready) -> list[int]:
    """Bytes of its members, in their order in the tar."""
    mask = [] if sample.bytes.mask is None else [sample.bytes.mask.size]
    return [sample.bytes.image.size, len(sample.metadata), *mask]


def _plan_digest(ready: Sequence[_Ready]) -> str:
    """What a shard's bytes depend on."""
    digest = hashlib.sha256()
    for sample in ready:
        blobs = [b for b in (sample.bytes.image, sample.bytes.mask) if b is not None]
        digest.update(sample.metadata + repr([sample.suffix, *((b.size, b.crc) for b in blobs)]).encode())
    return digest.hexdigest()


def _sidecar_of_plan(shard: Path, digest: str) -> Sidecar | None:
    """The sidecar of a whole shard of this plan, written in this build or an earlier one; None where there is none."""
    try:
        sidecar = read_sidecar(shard)
        is_same = sidecar.plan == digest and sidecar.size_bytes == shard.stat().st_size
    except (CorpusError, FileNotFoundError):
        return None
    return sidecar.without_members() if is_same else None


def _discard(shard: Path) -> None:
    """Remove what a killed run with another plan may have left under a name that is not written now."""
    shard.unlink(missing_ok=True)
    sidecar_path(shard).unlink(missing_ok=True)


def _write(plan: ShardPlan, samples: Iterable[_Ready]) -> tuple[list[_Ready], Sidecar]:
    """Write the shard; what it is made from is found out meanwhile, and read by a thread a little ahead."""
    ready = list[_Ready]()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="read") as reader,
        OpenBlobs() as blobs,
        ShardWriter(plan.target, plan.split, plan.index) as shard,
    ):
        coming: deque[Future[list[_Files]]] = deque()
        for some in _batched(samples, _READ_AT_ONCE):
            ready += some
            coming.append(reader.submit(_read, blobs, some))
            if len(coming) > _READ_AHEAD:
                _add(shard, coming.popleft().result())
        while coming:
            _add(shard, coming.popleft().result())
        shard.plan = _plan_digest(ready)
    return ready, shard.sidecar.without_members()


def _read(blobs: OpenBlobs, samples: Sequence[_Ready]) -> list[_Files]:
    found = []
    for sample in samples:
        files = [(sample.suffix, blobs.read(sample.bytes.image)), (METADATA_SUFFIX, sample.metadata)]
        if sample.bytes.mask is not None:
            files.append((MASK_SUFFIX, blobs.read(sample.bytes.mask)))
        found.append((sample.sample_id, files))
    return found


def _add(shard: ShardWriter, samples: Iterable[_Files]) -> None:
    for sample_id, files in samples:
        shard.add(sample_id, files)


def _batched(samples: Iterable[_Ready], size: int) -> Iterator[tuple[_Ready, ...]]:
    """The samples, `size` at a time."""
    left = iter(samples)
    while some := tuple(islice(left, size)):
        yield some


def _places(ready: Sequence[_Ready]) -> tuple[tuple[list[int], list[int] | None], ...]:
    offsets = iter(member_offsets([size for sample in ready for size in _sizes(sample)]))
    places = []
    for sample in ready:
        image, mask = sample.bytes.image, sample.bytes.mask
        image_place = [next(offsets), image.size, image.crc]
        next(offsets)  # of the metadata
        places.append((image_place, None if mask is None else [next(offsets), mask.size, mask.crc]))
    return tuple(places)


def _table(name: str, ready: Sequence[_Ready], images: Sequence[list[int]]) -> pa.Table:
    """The manifest's rows: what stands in the shard, and where the images lie in it."""
    lines = [
        sample.metadata.rstrip()[:-1] + f', "shard": "{name}", "offset": {offset}, "size_bytes": {size}}}\n'.encode()
        for sample, (offset, size, _) in zip(ready, images, strict=True)
    ]
    check_columns(json.loads(lines[0]), manifest_schema(), where=MANIFEST_NAME)  # all rows come from one place
    return table_of_json(b"".join(lines), manifest_schema(), where=MANIFEST_NAME)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
