"""The manifest and the rejects as Parquet: one schema, the same bytes for the same rows, whole or absent.

with TableWriter(out / MANIFEST_NAME, manifest_schema()) as writer:
    writer.write(rows_of_one_shard)      # one row group a shard
table = read_manifest(out)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

import pyarrow as pa
import pyarrow.json as arrow_json
import pyarrow.parquet as pq

from openus_data.errors import CorpusError
from openus_data.records import Reject
from openus_data.schema import (
    BUILD_NAME,
    MANIFEST_NAME,
    REJECTS_NAME,
    SCHEMA_VERSION,
    manifest_schema,
    reject_schema,
)
from openus_data.store import write_aside

Row = Mapping[str, object]
REJECTS_PER_GROUP: Final = 50_000
_COMPRESSION_LEVEL: Final = 3


class TableWriter(AbstractContextManager["TableWriter"]):
    """Writes a Parquet file in row groups, aside, and names it when all is written.

    The writer's options are fixed, and nothing but the schema goes into the metadata, so that equal rows in equal
    groups give equal bytes with one version of pyarrow.

    Args:
        path: the final name.
        schema: Arrow schema; every row is checked against it.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._context = write_aside(path)
        self._name = path.name
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> TableWriter:
        self._writer = pq.ParquetWriter(
            self._context.__enter__(),
            self._schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            version="2.6",
            data_page_version="1.0",
            write_statistics=True,
            store_schema=True,
        )
        return self

    def write(self, rows: Sequence[Row]) -> None:
        """Append one row group.

        Raises:
            CorpusError: a row lacks a column, holds one too many, a value of another type, or null where none may be.
        """
        if rows:
            self.write_table(table_of(rows, self._schema, where=self._name))

    def write_table(self, table: pa.Table) -> None:
        """Append a table of the schema as one row group."""
        assert self._writer is not None, "used outside its block"
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.rows += table.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None, "used outside its block"
        try:
            self._writer.close()
        except OSError as failure:
            if error is None:  # the disk is full, say: the file must not get its name
                self._context.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._context.__exit__(kind, error, trace)


def table_of(rows: Sequence[Row], schema: pa.Schema, *, where: str) -> pa.Table:
    """Rows as an Arrow table of exactly this schema.

    Raises:
        CorpusError: see TableWriter.write.
    """
    for row in rows:
        check_columns(row, schema, where=where)
    try:
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False).encode() for row in rows]
    except (TypeError, ValueError) as error:
        raise CorpusError("a row holds a value of another type", where=where) from error
    return table_of_json(b"\n".join(lines), schema, where=where)


def check_columns(row: Row, schema: pa.Schema, *, where: str) -> None:
    """Raise CorpusError where a row lacks a column of the schema or has one too many."""
    if row.keys() != set(schema.names):
        wrong = sorted(row.keys() ^ set(schema.names))
        raise CorpusError("a row does not have the columns of the schema", where=where, got=", ".join(wrong))


def table_of_json(rows: bytes, schema: pa.Schema, *, where: str) -> pa.Table:
    """Rows as lines of JSON, at least one, as an Arrow table of exactly this schema; a column that a row lacks is null.

    Arrow reads JSON by itself; from Python's lists it would load pandas first, which takes a fifth of a second.

    Raises:
        CorpusError: a row holds a column too many, a value of another type, or null where none may be.
    """
    loose = pa.schema([column.with_nullable(True) for column in schema])
    try:
        table = arrow_json.read_json(
            pa.BufferReader(rows),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(rows) + 1),
            parse_options=arrow_json.ParseOptions(explicit_schema=loose, unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid as error:
        raise CorpusError("a row holds a value of another type", where=where) from error
    for column in schema:
        if not column.nullable and table.column(column.name).null_count:
            raise CorpusError("a required column is empty", where=f"{where}: {column.name}")
    return pa.Table.from_arrays([table.column(name) for name in schema.names], schema=schema)


def write_manifest(out: Path, shards: Iterable[Sequence[Row]]) -> int:
    """Write OUT/manifest.parquet from the rows of each shard in order; returns the number of rows."""
    with TableWriter(out / MANIFEST_NAME, manifest_schema()) as writer:
        for rows in shards:
            writer.write(rows)
    return writer.rows


def write_rejects(out: Path, rejects: Iterable[Reject]) -> int:
    """Write OUT/rejects.parquet, sorted by every column; returns the number of rows."""
    rows = sorted((r.dataset, r.item, r.stage, r.reason, r.detail) for r in rejects)
    names = reject_schema().names
    with TableWriter(out / REJECTS_NAME, reject_schema()) as writer:
        for start in range(0, len(rows), REJECTS_PER_GROUP):
            writer.write([dict(zip(names, row, strict=True)) for row in rows[start : start + REJECTS_PER_GROUP]])
    return writer.rows


def read_manifest(out: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read OUT/manifest.parquet.

    Args:
        out: the OUT folder.
        columns: read these only.

    Raises:
        CorpusError: there is none, it is torn, or it has another schema.
    """
    return _read(out, MANIFEST_NAME, manifest_schema(), columns)


def read_rejects(out: Path) -> pa.Table:
    """Read OUT/rejects.parquet; raises like read_manifest."""
    return _read(out, REJECTS_NAME, reject_schema(), None)


def _read(out: Path, name: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
    path = out / name
    if not path.is_file():
        hint = (
            "run openus-data build again, it goes on where it stopped" if out.is_dir() else "is this a build's --out?"
        )
        raise CorpusError("no finished build here: the table is missing", where=name, next_step=hint)
    try:
        file = pq.ParquetFile(path)  # read_table would load pyarrow.dataset, and that pandas: most of a second
        found = file.schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError("the file is torn or not Parquet", where=name, next_step="run the build again") from error
    version = (found.metadata or {}).get(b"openus.schema_version", b"none").decode("ascii", "replace")
    if not found.equals(schema) or version != str(SCHEMA_VERSION):
        raise CorpusError(
            "made with another schema",
            where=name,
            expected=f"version {SCHEMA_VERSION}",
            got=f"version {version}",
            next_step="build it again with this release",
        )
    try:
        return file.read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError("the file is torn", where=name, next_step="run the build again") from error


FINISHED_NAMES: Final = (MANIFEST_NAME, REJECTS_NAME, BUILD_NAME)
"""What a finished OUT holds beside its shards."""
