"""A built OUT as the trainer sees it: the manifest's rows, filtered, and samples read one by one at their offsets.

The only module of openus_model that knows openus_data, and it knows the schema alone. A shard is a plain tar, so one
`pread` at the manifest's offset gives an image without a scan, and the manifest's counts and hashes catch what a tar
reader would lose without a word.

    corpus = Corpus.open(Path("OUT"), split="pretrain", where="organ = 'breast'")
    image = corpus.image(0)
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openus_data import schema
from openus_model.errors import DataError, UsageError

Pixels = NDArray[np.uint8]
MASK_SUFFIX = schema.MASK_SUFFIX


class CorruptSample(DataError):
    """One image is not what the manifest says; the caller decides how many of these it bears.

    Args:
        fault: what is wrong, and with which sample of which shard.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault, next_step="run openus-data verify")
        self.fault = fault

    def __reduce__(self) -> tuple[type[CorruptSample], tuple[str]]:
        return CorruptSample, (self.fault,)


@dataclass(slots=True)
class Corpus:
    """Rows of a manifest and the shards they lie in.

    Args:
        root: the OUT folder.
        table: the kept rows, in the manifest's order.
        digest: SHA-256 of manifest.parquet, for checkpoints and caches.
        missing: shards that the manifest names and the disk lacks; empty unless they were allowed.
    """

    root: Path
    table: pa.Table
    digest: str
    missing: tuple[str, ...] = ()
    _handles: dict[str, int] = field(default_factory=dict, repr=False)
    _columns: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        split: str | None = None,
        dataset: str | None = None,
        where: str | None = None,
        allow_missing: bool = False,
    ) -> Corpus:
        """Read the manifest and check that every shard it names is there and whole.

        Args:
            root: a folder that `openus-data build` made.
            split: keep one split; None keeps all.
            dataset: keep one dataset.
            where: an SQL condition over manifest columns, for example "organ = 'breast' and channels = 1".
            allow_missing: drop the rows of missing shards instead of refusing.

        Raises:
            DataError: no manifest, a missing or torn shard, or no row left.
            UsageError: the condition is not valid SQL over the columns.
        """
        path = root / schema.MANIFEST_NAME
        if not path.is_file():
            raise DataError(
                "no manifest", where=root.name, expected=schema.MANIFEST_NAME, next_step="run openus-data build"
            )
        try:
            table = pq.read_table(path, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                "the manifest cannot be read", where=path.name, next_step="run openus-data verify"
            ) from error
        if split is not None:
            table = table.filter(pa.compute.field("split") == split)
        if dataset is not None:
            table = table.filter(pa.compute.field("dataset") == dataset)
        if where:
            table = filter_rows(table, where)
        missing = _missing_shards(root, table)
        if missing and not allow_missing:
            raise DataError(
                "missing or torn" if len(missing) == 1 else f"missing or torn, and {len(missing) - 1} more shards",
                where=missing[0],
                next_step="run openus-data verify, or pretrain without them by data.allow_missing=true",
            )
        if missing:
            table = table.filter(~pa.compute.field("shard").isin(missing))
        if table.num_rows == 0:
            picked = ", ".join(f"{k}={v}" for k, v in (("split", split), ("dataset", dataset), ("where", where)) if v)
            hint = "`openus-data query` shows what the columns hold" if where else ""
            raise DataError("no sample left", where=root.name, got=picked or "an empty manifest", next_step=hint)
        return cls(root=root, table=table, digest=_file_digest(path), missing=missing)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getstate__(self) -> tuple[Path, pa.Table, str, tuple[str, ...]]:
        """Without open files, so that workers can take a copy."""
        return self.root, self.table, self.digest, self.missing

    def __setstate__(self, state: tuple[Path, pa.Table, str, tuple[str, ...]]) -> None:
        self.root, self.table, self.digest, self.missing = state
        self._handles, self._columns = {}, {}

    def column(self, name: str) -> list[Any]:
        """A column as Python values, read once."""
        if name not in self._columns:
            self._columns[name] = self.table.column(name).to_pylist()
        return self._columns[name]

    def row(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """Some columns of one row."""
        return {name: self.table.column(name)[index].as_py() for name in names}

    def image(self, index: int, *, check: bool = True) -> Pixels:
        """Decode one image: uint8 (H, W), or (H, W, 3) RGB where the manifest says three channels.

        Raises:
            CorruptSample: the bytes are cut, do not decode, or are not those the manifest hashed.
        """
        data = self.image_bytes(index)
        grey = self.table.column("channels")[index].as_py() == 1
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        if pixels is None:
            raise self._corrupt(index, "does not decode")
        image: Pixels = pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        if check and schema.pixel_sha256(image) != self.table.column("pixel_sha256")[index].as_py():
            raise self._corrupt(index, "pixels differ from the manifest's hash")
        return image

    def image_bytes(self, index: int) -> bytes:
        """The encoded image member as it lies in its shard."""
        offset, size = self.table.column("offset")[index].as_py(), self.table.column("size_bytes")[index].as_py()
        data = os.pread(self._handle(index), size, offset)
        if len(data) != size:
            raise self._corrupt(index, f"cut short: expected {size} bytes, got {len(data)}")
        return data

    def mask(self, index: int) -> Pixels | None:
        """The sample's mask, uint8 (H, W), from the member that follows the image; None where it has none."""
        end = self.table.column("offset")[index].as_py() + self.table.column("size_bytes")[index].as_py()
        key = self.table.column("sample_id")[index].as_py()
        with (self.root / self.table.column("shard")[index].as_py()).open("rb") as shard:
            shard.seek(-(-end // 512) * 512)
            with tarfile.open(fileobj=shard, mode="r:") as members:
                for member in members:
                    if not member.name.startswith(f"{key}."):
                        return None
                    if member.name == f"{key}.{MASK_SUFFIX}":
                        file = members.extractfile(member)
                        data = file.read() if file else b""
                        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                        if mask is None:
                            raise self._corrupt(index, "its mask does not decode")
                        return np.asarray(mask, dtype=np.uint8)
        return None

    def polygon(self, index: int) -> NDArray[np.float32]:
        """Outline of the scan area, (P, 2) of x, y in pixels of the image; (0, 2) where it is not known."""
        points = self.table.column("cone_polygon")[index].as_py() or []
        return np.asarray(points, np.float32).reshape(-1, 2)

    def labels(self, index: int) -> dict[str, str]:
        """The dataset's own labels of one sample."""
        labels: dict[str, str] = json.loads(self.table.column("labels")[index].as_py() or "{}")
        return labels

    def _handle(self, index: int) -> int:
        shard = self.table.column("shard")[index].as_py()
        if shard not in self._handles:
            if len(self._handles) >= 64:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[shard] = os.open(self.root / shard, os.O_RDONLY)
        return self._handles[shard]

    def _corrupt(self, index: int, what: str) -> CorruptSample:
        shard, sample = (self.table.column(name)[index].as_py() for name in ("shard", "sample_id"))
        return CorruptSample(f"{shard}: {sample}: {what}")


def filter_rows(table: pa.Table, where: str) -> pa.Table:
    """Rows of a manifest that satisfy an SQL condition, in their old order.

    Raises:
        UsageError: the condition does not parse or names no column.
    """
    import duckdb  # taken only by those who filter: it costs a fifth of a second to load

    connection = duckdb.connect(config={"enable_external_access": "false", "threads": "1"})
    try:
        indexed = table.append_column("__row", pa.array(range(table.num_rows), pa.int64()))
        connection.register("manifest", indexed)
        # A row is kept or not: the condition stands in a value, where it can be no second statement.
        kept = connection.execute(f"select __row from manifest where ({where}) order by __row").fetchnumpy()["__row"]
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            "not a condition over the manifest's columns",
            where=where,
            got=reason,
            next_step=_column_hint(reason, table.column_names),
        ) from None
    finally:
        connection.close()
    return table.take(pa.array(kept))


def _column_hint(reason: str, columns: Sequence[str]) -> str:
    """What may have been meant, where the database names a column that is not there."""
    unknown = re.search(r'column "([^"]+)" not found', reason)
    if not unknown:
        return "text stands in single quotes, for example organ = 'breast'"
    near = difflib.get_close_matches(unknown[1], columns, n=1)
    return f"did you mean {near[0]}?" if near else f"no such column; text stands in single quotes: '{unknown[1]}'"


def _missing_shards(root: Path, table: pa.Table) -> tuple[str, ...]:
    missing = []
    for shard in sorted(table.column("shard").unique().to_pylist()):
        relative = Path(shard)
        if relative.is_absolute() or ".." in relative.parts or ":" in shard:
            raise DataError("a shard's name must be a plain relative path", where=shard)
        path = root / relative
        sidecar = path.with_suffix(".json")
        if (
            not path.is_file()
            or not sidecar.is_file()
            or json.loads(sidecar.read_bytes())["bytes"] != path.stat().st_size
        ):
            missing.append(shard)
    return tuple(missing)


def _file_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
