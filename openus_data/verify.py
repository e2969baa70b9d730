"""`openus-data verify`: do shards, sidecars, manifest and build.json of a corpus agree, byte for byte?

Every shard is read once and hashed; names, offsets and sizes in the manifest are held against the tar's own headers; in
a shard whose digest is wrong, every picture is decoded, so that the damaged samples can be named.

    report = verify(out)
    report.faults        # () when the corpus is what was built
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from openus_data.errors import CorpusError, DecodeError, UsageError
from openus_data.first_stage.encode import decode_stored
from openus_data.first_stage.folder import RECORDS_NAME
from openus_data.manifest import read_manifest, read_rejects
from openus_data.progress import Progress
from openus_data.schema import (
    BUILD_NAME,
    IMAGE_SUFFIXES,
    MANIFEST_NAME,
    MASK_SUFFIX,
    REJECTS_NAME,
    SHARDS_DIR,
    pixel_sha256,
)
from openus_data.shards import Member, Sidecar, check_shard_name, list_shards, read_sidecar, walk_tar
from openus_data.store import PART_SUFFIX, sha256_file

_BLOCK: Final = 1 << 20
_COLUMNS: Final = ("sample_id", "shard", "offset", "size_bytes", "split", "pixel_sha256")
_METADATA: Final = ".json"
FAULT_KINDS: Final = (
    "build_missing", "build_differs", "table_torn", "table_changed", "shard_missing", "shard_extra", "shard_torn",
    "shard_changed", "shard_unlisted", "sidecar_missing", "sidecar_differs", "sample_missing", "sample_extra",
    "sample_damaged", "sample_misplaced", "sample_repeated", "split_differs", "counts_differ", "unfinished",
)  # fmt: skip
"""Every kind of fault that a report may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that does not agree.

    Args:
        kind: one of FAULT_KINDS.
        where: file below OUT.
        detail: what was found, for a person.
        sample_id: the sample it is about, or None.
    """

    kind: str
    where: str
    detail: str
    sample_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fault for machines."""
        return {"kind": self.kind, "where": self.where, "detail": self.detail, "sample_id": self.sample_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was looked at and what was found.

    Args:
        shards, samples, bytes_read: how much was looked at.
        faults: sorted by file.
    """

    shards: int
    samples: int
    bytes_read: int
    faults: tuple[Fault, ...]

    @property
    def exit_code(self) -> int:
        """0 when all agrees, else 1."""
        return 1 if self.faults else 0

    def to_json(self) -> dict[str, Any]:
        """The answer for machines."""
        counts = Counter(f.kind for f in self.faults)
        return {
            "ok": not self.faults,
            "shards": self.shards,
            "samples": self.samples,
            "bytes": self.bytes_read,
            "counts": dict(sorted(counts.items())),
            "faults": [f.to_json() for f in self.faults],
        }

    def to_text(self) -> str:
        """A line a fault, and a line that says how much was looked at."""
        lines = [f"{f.where}: {f.kind}: {f.sample_id + ': ' if f.sample_id else ''}{f.detail}" for f in self.faults]
        looked = f"{self.shards} shards, {self.samples} samples, {self.bytes_read} bytes"
        verdict = f"{len(self.faults)} faults in {looked}" if self.faults else f"no fault in {looked}"
        step = ["delete the shards named above and run the same build again"] if self.faults else []
        return "\n".join([*lines, verdict, *step])


Row = dict[str, Any]


def verify(out: Path, *, quiet: bool = True) -> VerifyReport:
    """Check a corpus; reads every byte of it.

    Args:
        out: a folder that `openus-data build` made.
        quiet: no progress.

    Raises:
        UsageError: there is no such folder.
        CorpusError: there is no manifest, or it cannot be read.
    """
    if not out.is_dir():
        raise UsageError("no such folder", where="OUT", next_step="give the --out of a build")
    build = _read_build(out)
    faults = list(_table_faults(out, build))
    rows = _rows_by_shard(out)
    present = list_shards(out)
    faults += _presence_faults(out, build, set(rows), set(present))
    bytes_read = 0
    seen: Counter[str] = Counter()
    with Progress("verify", total=len(present), quiet=quiet, unit="shards") as progress:
        for name in present:
            bytes_read += (out / name).stat().st_size
            faults += _shard_faults(out, name, rows.get(name, []), build, seen)
            progress.advance()
    faults += [
        Fault(kind="sample_repeated", where=SHARDS_DIR, detail=f"stands in {n} places", sample_id=s)
        for s, n in seen.items()
        if n > 1
    ]
    return VerifyReport(
        shards=len(present),
        samples=sum(map(len, rows.values())),
        bytes_read=bytes_read,
        faults=tuple(sorted(faults, key=lambda f: (f.where, f.kind, f.sample_id or "", f.detail))),
    )


def _read_build(out: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((out / BUILD_NAME).read_bytes())
        return content if isinstance(content.get("shards"), dict) and isinstance(content.get("sha256"), dict) else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _rows_by_shard(out: Path) -> dict[str, list[Row]]:
    """The manifest's rows, reduced to what is checked, by shard."""
    read_manifest(out, columns=["sample_id"])  # raises where the file is torn or foreign
    rows: dict[str, list[Row]] = defaultdict(list)
    for batch in pq.ParquetFile(out / MANIFEST_NAME).iter_batches(columns=list(_COLUMNS)):
        for row in batch.to_pylist():
            rows[row["shard"]].append(row)
    return rows


def _table_faults(out: Path, build: dict[str, Any] | None) -> Iterator[Fault]:
    if build is None:
        yield Fault(kind="build_missing", where=BUILD_NAME, detail="it is missing or cannot be read")
        return
    for name in (MANIFEST_NAME, REJECTS_NAME, RECORDS_NAME):
        if (out / name).is_file() and sha256_file(out / name) != build["sha256"].get(name):
            yield Fault(kind="table_changed", where=name, detail="its bytes are not those that the build wrote")
    try:
        rejects = Counter(read_rejects(out).column("dataset").to_pylist())
    except CorpusError as error:
        yield Fault(kind="table_torn", where=REJECTS_NAME, detail=str(error))
        return
    kept = Counter(read_manifest(out, columns=["dataset"]).column("dataset").to_pylist())
    for dataset, counts in build.get("datasets", {}).items():
        expected = sum(counts["kept"].values()), sum(counts["rejected"].values())
        got = kept[dataset], rejects[dataset]
        if expected != got:
            detail = f"{dataset}: expected {expected[0]} kept and {expected[1]} rejected, got {got[0]} and {got[1]}"
            yield Fault(kind="counts_differ", where=BUILD_NAME, detail=detail)


def _presence_faults(out: Path, build: dict[str, Any] | None, named: set[str], present: set[str]) -> Iterator[Fault]:
    built = set(build["shards"]) if build else named
    for name in sorted((named | built) - present):
        yield Fault(kind="shard_missing", where=name, detail="it is not there")
    for name in sorted(present - named):
        yield Fault(kind="shard_extra", where=name, detail="no row of the manifest lies in it")
    for name in sorted((present & named) - built):
        yield Fault(kind="shard_unlisted", where=name, detail="build.json does not know it")
    for path in sorted((out / SHARDS_DIR).rglob("*")):
        if path.is_file():
            yield from _stray_fault(path.relative_to(out).as_posix(), path, present)


def _stray_fault(name: str, path: Path, present: set[str]) -> Iterator[Fault]:
    if path.name.endswith(PART_SUFFIX):
        yield Fault(kind="unfinished", where=name, detail="what a killed run left; the next build removes it")
    elif path.suffix == _METADATA and path.with_suffix(".tar").relative_to(path.parents[2]).as_posix() not in present:
        yield Fault(kind="shard_missing", where=name, detail="a sidecar without its shard")
    elif path.suffix not in (".tar", _METADATA):
        yield Fault(kind="shard_extra", where=name, detail="not a file of a build")


def _shard_faults(
    out: Path, name: str, rows: list[Row], build: dict[str, Any] | None, seen: Counter[str]
) -> Iterator[Fault]:
    try:
        check_shard_name(name)
    except CorpusError as error:
        yield Fault(kind="shard_extra", where=name, detail=str(error))
        return
    sha256 = _hash(out / name)
    sidecar = None
    try:
        sidecar = read_sidecar(out / name)
    except CorpusError as error:
        yield Fault(kind="sidecar_missing", where=name, detail=str(error))
    is_changed = False
    if sidecar is not None and sha256 != sidecar.sha256:
        is_changed = True
        size = (out / name).stat().st_size
        kind = "shard_torn" if size < sidecar.size_bytes else "shard_changed"
        yield Fault(
            kind=kind, where=name, detail=f"expected {sidecar.size_bytes} bytes with another digest, got {size}"
        )
    known = (build or {"shards": {}})["shards"].get(name)
    if known is not None and known["sha256"] != sha256:
        is_changed = True
        yield Fault(kind="build_differs", where=name, detail="not the shard that the build wrote under this name")
    yield from _member_faults(out, name, rows, sidecar, seen, look_inside=is_changed)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _member_faults(
    out: Path, name: str, rows: list[Row], sidecar: Sidecar | None, seen: Counter[str], *, look_inside: bool
) -> Iterator[Fault]:
    members: dict[str, Member] = {}
    with (out / name).open("rb") as handle:
        try:
            for member in walk_tar(handle):
                members[member.name] = member
        except CorpusError as error:
            yield Fault(kind="shard_torn", where=name, detail=str(error))
        if sidecar is not None and not look_inside and sidecar.members != tuple(members.values()):
            yield Fault(kind="sidecar_differs", where=name, detail="it lists other members than the tar holds")
        split = Path(name).parent.name
        images = {n.partition(".")[0]: m for n, m in members.items() if _is_image(n)}
        seen.update(images.keys())
        for row in rows:
            yield from _row_faults(name, row, images.pop(row["sample_id"], None), split)
            if f"{row['sample_id']}{_METADATA}" not in members:
                yield Fault(kind="sample_damaged", where=name, detail="its JSON is missing", sample_id=row["sample_id"])
            if look_inside:
                handle.seek(row["offset"])
                yield from _pixel_fault(name, row, handle.read(row["size_bytes"]))
    for sample_id in sorted(images):
        yield Fault(kind="sample_extra", where=name, detail="no row of the manifest has it", sample_id=sample_id)


def _is_image(name: str) -> bool:
    suffix = name.partition(".")[2]
    return suffix in IMAGE_SUFFIXES and suffix != MASK_SUFFIX


def _row_faults(name: str, row: Row, image: Member | None, split: str) -> Iterator[Fault]:
    if image is None:
        yield Fault(kind="sample_missing", where=name, detail="the shard does not hold it", sample_id=row["sample_id"])
    elif (image.offset, image.size) != (row["offset"], row["size_bytes"]):
        detail = f"expected {row['size_bytes']} bytes at {row['offset']}, got {image.size} at {image.offset}"
        yield Fault(kind="sample_misplaced", where=name, detail=detail, sample_id=row["sample_id"])
    if row["split"] != split:
        detail = f"its row says {row['split']}"
        yield Fault(kind="split_differs", where=name, detail=detail, sample_id=row["sample_id"])


def _pixel_fault(name: str, row: Row, data: bytes) -> Iterator[Fault]:
    try:
        is_sound = pixel_sha256(decode_stored(data)) == row["pixel_sha256"]
    except DecodeError:
        is_sound = False
    if not is_sound:
        yield Fault(kind="sample_damaged", where=name, detail="its pixels differ", sample_id=row["sample_id"])
