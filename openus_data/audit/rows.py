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
    manifests, rejects = [], []
    for index, out in enumerate(outs):
        table = read_manifest(out)
        manifests.append(table.append_column("corpus", pa.array([index] * table.num_rows, pa.int32())))
        rejects.append(read_rejects(out))
    connection = duckdb.connect(config={"threads": "2"})
    try:
        connection.register("all_rows", pa.concat_tables(manifests))
        connection.register("all_rejects", pa.concat_tables(rejects))
        connection.execute("set enable_external_access = false")
        try:
            connection.execute(f"create temp table m as select * from all_rows where ({where or 'true'})")
        except duckdb.Error as error:
            reason = " ".join(str(error).split())
            raise UsageError("not a condition over the manifest's columns", where=str(where), got=reason) from None
        connection.execute("create temp table rejects as select * from all_rejects")
        connection.unregister("all_rows")
        del manifests, rejects
        yield Rows(connection, int(connection.execute("select count(*) from m").fetchall()[0][0]))
    finally:
        connection.close()
