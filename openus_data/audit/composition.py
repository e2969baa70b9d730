"""What a corpus is made of: counts by column, cross-tables, concentration. Columnar throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openus_data.audit.rows import Rows
from openus_data.errors import UsageError
from openus_data.schema import MANIFEST_COLUMNS

STANDARD: Final = (
    "organ",
    "anatomy",
    "device_manufacturer",
    "device_model",
    "transducer",
    "frequency_mhz",
    "dataset",
    "view",
    "pathology",
    "institution",
    "country",
    "year",
    "license",
    "split",
    "role",
    "cone_geometry",
    "resolution",
    "spacing",
    "colour",
)
"""Counted always; anatomy and device first. Resolution, spacing, colour and year (of publication) are made."""
CROSSED: Final = (
    ("organ", "device_manufacturer"),
    ("organ", "split"),
    ("dataset", "organ"),
    ("dataset", "split"),
    ("anatomy", "device_model"),
)
CONCENTRATED: Final = ("dataset", "organ", "anatomy", "device_manufacturer", "device_model", "institution")
UNKNOWN: Final = "unknown"

_MADE: Final = {
    "resolution": "case when least(width_px, height_px) < 128 then 'under 128 px' "
    "when least(width_px, height_px) < 256 then '128 to 255 px' "
    "when least(width_px, height_px) < 512 then '256 to 511 px' "
    "when least(width_px, height_px) < 1024 then '512 to 1023 px' else '1024 px and more' end",
    "spacing": "case when spacing_row_mm is null then 'unknown' else 'calibrated' end",
    "year": "coalesce((select cast(y.year as varchar) from years y where y.dataset = m.dataset), 'unknown')",
    "colour": "case when channels = 1 then 'grey' else 'colour' end",
}
_COLUMNS: Final = {c.name: str(c.type) for c in MANIFEST_COLUMNS}


def expression(column: str) -> str:
    """SQL of a column as text, with unknown in words.

    Raises:
        UsageError: the manifest has no such column.
    """
    if column in _MADE:
        return _MADE[column]
    if column not in _COLUMNS:
        raise UsageError("no such column", got=column, next_step="columns: docs/reference/files.md")
    if _COLUMNS[column].startswith("list"):
        return f"coalesce(nullif(array_to_string({column}, ', '), ''), 'none')"
    return f"coalesce(cast({column} as varchar), '{UNKNOWN}')"


def totals(rows: Rows) -> dict[str, int]:
    """Images, clips, subjects and datasets."""
    found = rows.ask(
        "select count(*), count(distinct study_id) filter (frame_index > 0), count(distinct (dataset, subject_id)), "
        "count(distinct dataset), coalesce(sum(size_bytes), 0)::bigint from m"
    )[0]
    names = ("images", "clips", "subjects", "datasets", "bytes")
    return dict(zip(names, map(int, found), strict=True))


def counts(rows: Rows, column: str) -> list[dict[str, Any]]:
    """Images, clips and subjects for each value of a column, most images first."""
    found = rows.ask(
        f"select {expression(column)} as v, count(*) as n, count(distinct study_id) filter (frame_index > 0), "
        "count(distinct (dataset, subject_id)) from m group by v order by n desc, v"
    )
    return [{"value": v, "images": n, "clips": c, "subjects": s} for v, n, c, s in found]


def cross(rows: Rows, first: str, second: str) -> list[dict[str, Any]]:
    """Images for each pair of values."""
    found = rows.ask(
        f"select {expression(first)} as a, {expression(second)} as b, count(*) from m group by a, b order by a, b"
    )
    return [{first: a, second: b, "images": n} for a, b, n in found]


def concentration(by: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """How evenly images are spread: the effective number of values and the share of the largest.

    The effective number is exp(entropy) over the known values: 42 datasets of equal size give 42, one that dwarfs the
    rest gives 1.
    """
    found = {}
    for column in CONCENTRATED:
        known = [int(row["images"]) for row in by[column] if row["value"] != UNKNOWN]
        total = sum(known)
        if not total:
            found[column] = {"known": 0, "values": 0, "effective_number": 0.0, "largest": None, "largest_share": 0.0}
            continue
        entropy = -sum(n / total * math.log(n / total) for n in known)
        largest = next(row for row in by[column] if row["value"] != UNKNOWN)
        found[column] = {
            "known": total,
            "values": len(known),
            "effective_number": round(math.exp(entropy), 3),
            "largest": largest["value"],
            "largest_share": round(largest["images"] / total, 4),
        }
    return found
