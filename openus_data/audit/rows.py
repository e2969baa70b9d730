"""The manifests of one or several corpora as one table that SQL can ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from openus_data.errors import UsageError
from openus_data.manifest import read_manifest, read_rejects
from openus_data.schema import MANIFEST_NAME

EXAMPLES: Final = 8
"""Sample ids or groups that a finding names at most."""


class Rows:
    """Manifest and rejects, in DuckDB, inside this process. Use `open_rows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        self._connection = connection
        self.count = count

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query over the tables `m` (manifest, with a column `corpus`) and `rejects`."""
        return list(self._connection.execute(sql, list(parameters)).fetchall())

    def attach(self, name: str, table: pa.Table) -> None:
        """Make an Arrow table known under a name, without a copy."""
        self._connection.register(name, table)

    def learn_years(self, years: Mapping[str, int]) -> None:
        """Keep the year in which each dataset was published, for the made column `year`."""
        columns = {"dataset": list(years), "year": list(years.values())}
        self.attach("years", pa.table(columns, schema=pa.schema([("dataset", pa.string()), ("year", pa.int32())])))

    def one(self, sql: str) -> Any:
        """The single value of a query."""
        return self.ask(sql)[0][0]

    def column(self, sql: str) -> list[Any]:
        """The first column of a query."""
        return [row[0] for row in self.ask(sql)]


@contextmanager
def open_rows(outs: Sequence[Path], where: str | None) -> Iterator[Rows]:
    """Read the manifests of `outs`, keep the rows that satisfy `where`.

    Raises:
        CorpusError: no finished build in one of them.
        UsageError: the condition is not valid.
    """
    for out in outs:
        read_manifest(out, ["sample_id"])  # refuses what is missing, torn or of another schema
    connection = duckdb.connect(config={"threads": "2"})
    try:
        connection.execute("set enable_progress_bar = false")  # it would draw into the answer on standard output
        connection.register("all_rejects", pa.concat_tables([read_rejects(out) for out in outs]))
        connection.execute("create temp table rejects as select * from all_rejects")
        # The engine reads the file itself, in pieces: through Arrow, all rows would be in memory twice.
        files = [f"select *, {k} as corpus from read_parquet({_literal(out)})" for k, out in enumerate(outs)]
        rows = f"select * from ({' union all '.join(files)}) where ({where or 'true'})"
        try:
            connection.execute(f"create temp table m as {rows}; set enable_external_access = false")
        except duckdb.Error as error:
            reason = " ".join(str(error).split())
            raise UsageError("not a condition over the manifest's columns", where=str(where), got=reason) from None
        yield Rows(connection, int(connection.execute("select count(*) from m").fetchall()[0][0]))
    finally:
        connection.close()


def _literal(out: Path) -> str:
    """The manifest's path as an SQL string."""
    return "'" + str(out / MANIFEST_NAME).replace("'", "''") + "'"
