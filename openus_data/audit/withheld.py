"""Values that read like a patient's header: found once, reported by shape, and never shown after that.

`withhold` goes first. It replaces what it finds in the tables that the rest of the audit counts and shows, so that no
report, page or picture caption can repeat a leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from openus_data.audit.request import Finding
from openus_data.audit.rows import EXAMPLES, Rows
from openus_data.deid.residual import SHAPES, scan_row
from openus_data.schema import MANIFEST_COLUMNS, REJECT_COLUMNS

_LOOSE: Final = (
    r"\^|@|\\\\|file://|/[\w.-]+/|[A-Za-z]:\\|(?i:\b(dr|mr|mrs|ms|prof)\b)|\+\d|\d{3}[) -]+\d{3}|\d{2}[-./]\d{2}|"
    r"(\d\.){4}|(^|[^0-9.])\d{6}"
)
"""Lets through every string in which `deid.residual.KINDS` could find something; the engine sorts out the others."""
_NOT_TEXT: Final = ("pipeline_version",)


def withhold(rows: Rows, words: frozenset[str] = frozenset()) -> list[Finding]:
    """Replace header-like values in `m` and `rejects` by "withheld (kind)", ids by "withheld 1"; say what was found.

    Args:
        rows: the audited rows.
        words: folded words of the source's own headers, which no value may hold.
    """
    kinds: Counter[str] = Counter()
    shapes: dict[str, str] = {}
    for table, columns in (("m", MANIFEST_COLUMNS), ("rejects", REJECT_COLUMNS)):
        for column in columns:
            if column.type != pa.string() or column.name in _NOT_TEXT:
                continue
            bad: dict[str, str] = {}
            for value, count in _suspects(rows, table, column.name, is_any=bool(words)):
                found = next(iter(scan_row({column.name: value}, words=words)), None)
                if found is not None:
                    kinds[f"{column.name}: {found.kind}"] += count
                    shapes[f"{column.name}: {found.kind}"] = found.shape
                    bad[value] = found.kind
            _replace(rows, table, column.name, bad)
    if not kinds:
        return []
    return [
        Finding(
            id="header_like_text",
            severity="error",
            title="values that read like a patient's header",
            count=sum(kinds.values()),
            detail="Shapes only are shown. Do not share this corpus; find the rows with openus-data query.",
            examples=tuple(f"{kind} like {shapes[kind]} ({n:,})" for kind, n in sorted(kinds.items()))[:EXAMPLES],
        )
    ]


def _suspects(rows: Rows, table: str, column: str, *, is_any: bool) -> Iterator[tuple[str, int]]:
    """Distinct values that need a closer look, with counts: ids of another shape, and text that the engine lets by.

    Args:
        rows: the audited rows.
        table, column: where to look.
        is_any: every text needs a closer look.
    """
    shape = SHAPES.get(column)
    if shape is None and is_any:
        sql = f"select {column}, count(*) from {table} where {column} is not null group by 1 order by 1"
        yield from ((str(value), int(count)) for value, count in rows.ask(sql))
        return
    test = f"not regexp_full_match({column}, ?)" if shape is not None else f"regexp_matches({column}, ?)"
    pattern = shape.pattern if shape is not None else _LOOSE
    sql = f"select {column}, count(*) from {table} where {column} is not null and {test} group by 1 order by 1"
    yield from ((str(value), int(count)) for value, count in rows.ask(sql, pattern))


def _replace(rows: Rows, table: str, column: str, bad: dict[str, str]) -> None:
    if not bad:
        return
    if column == "labels":
        values = ["{}" for _ in bad]
    elif column in SHAPES:  # ids stay apart: two subjects must not become one
        values = [f"withheld {number}" for number in range(1, len(bad) + 1)]
    else:
        values = [f"withheld ({kind})" for kind in bad.values()]
    rows.attach("bad_values", pa.table({"value": list(bad), "safe": values}))
    rows.ask(f"update {table} set {column} = b.safe from bad_values b where {table}.{column} = b.value")
