"""Aggregated cells: counts for each combination of values, so that a page can filter without the rows."""

from __future__ import annotations

from typing import Any, Final

from openus_data.audit.composition import expression
from openus_data.audit.rows import Rows

COLUMNS: Final = (
    "organ",
    "device_manufacturer",
    "dataset",
    "anatomy",
    "device_model",
    "split",
    "license",
    "cone_geometry",
    "view",
    "pathology",
    "transducer",
    "country",
    "institution",
)
MOST_CELLS: Final = 8000


def cells(rows: Rows) -> dict[str, Any]:
    """`{"columns", "values", "codes", "images"}`: per column its values, per cell a code for each column, and a count.

    Columns are left out from the end until at most `MOST_CELLS` combinations remain.
    """
    for kept in range(len(COLUMNS), 0, -1):
        columns = COLUMNS[:kept]
        names = ", ".join(f"{expression(c)} as c{k}" for k, c in enumerate(columns))
        grouped = f"select {names}, count(*) as n from m group by all"
        if kept > 1 and int(rows.one(f"select count(*) from ({grouped})")) > MOST_CELLS:
            continue
        found = rows.ask(f"select * from ({grouped}) order by all limit {MOST_CELLS}")
        values = [sorted({str(r[k]) for r in found}) for k in range(kept)]
        codes = [{v: i for i, v in enumerate(vs)} for vs in values]
        return {
            "columns": list(columns),
            "values": values,
            "codes": [[codes[k][str(r[k])] for k in range(kept)] for r in found],
            "images": [int(r[-1]) for r in found],
        }
    raise AssertionError("one column is always kept")
