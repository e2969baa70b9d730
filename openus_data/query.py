"""The command `query`: read-only SQL over manifest and rejects, by DuckDB inside this process.

The tables are views of the two Parquet files; the engine may read those and nothing else, and cannot write.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from openus_data.errors import UsageError
from openus_data.manifest import read_manifest, read_rejects

SHOWN_ROWS: Final = 200
"""Rows that the table for people shows; --csv and --json give all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryReport:
    """A query's answer.

    Args:
        columns: names in order.
        rows: values in order.
        as_csv: print CSV in place of a table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    as_csv: bool = False
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """`{"columns": [...], "rows": [[...]]}`."""
        return {"columns": list(self.columns), "rows": [[_plain(v) for v in row] for row in self.rows]}

    def to_text(self) -> str:
        """A table, or CSV."""
        if self.as_csv:
            sink = io.StringIO()
            csv.writer(sink, lineterminator="\n").writerows([self.columns, *([_cell(v) for v in r] for r in self.rows)])
            return sink.getvalue().rstrip("\n")
        cells = [[_cell(v) for v in row] for row in self.rows[:SHOWN_ROWS]]
        widths = [max(len(r[k]) for r in [list(self.columns), *cells]) for k in range(len(self.columns))]
        lines = ["  ".join(name.ljust(w) for name, w in zip(self.columns, widths, strict=True)).rstrip()]
        lines.append("  ".join("-" * w for w in widths))
        lines += ["  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        if len(self.rows) > SHOWN_ROWS:
            lines.append(f"... {len(self.rows) - SHOWN_ROWS} more rows; --csv or --json gives all")
        return "\n".join(lines)


def query(out: Path, sql: str, *, as_csv: bool = False) -> QueryReport:
    """Run one SELECT over the tables `manifest` and `rejects` of a corpus.

    Raises:
        UsageError: not one valid read-only statement.
        CorpusError: no finished build there.
    """
    connection = duckdb.connect(config={"threads": "2"})
    try:
        connection.execute("set enable_progress_bar = false")  # it would draw into the answer on standard output
        connection.register("manifest", read_manifest(out))
        connection.register("rejects", read_rejects(out))
        connection.execute("set enable_external_access = false; set lock_configuration = true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type.name not in ("SELECT", "EXPLAIN", "DESCRIBE"):
            raise UsageError("not a read-only query", expected="one SELECT", got=f"{len(statements)} statement(s)")
        answer = connection.execute(statements[0])
        columns = tuple(column[0] for column in answer.description or ())
        return QueryReport(columns=columns, rows=tuple(answer.fetchall()), as_csv=as_csv)
    except duckdb.Error as error:
        reason = " ".join(str(error).split())
        raise UsageError("the query failed", got=reason, next_step="columns: docs/reference/files.md") from None
    finally:
        connection.close()


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str | None):
        return value
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(_plain(value)) if isinstance(value, list | tuple) else str(value)
