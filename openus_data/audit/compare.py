"""Two builds side by side: what came, what went, what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from openus_data.audit.rows import EXAMPLES, Rows
from openus_data.manifest import read_manifest

KINDS: Final = {
    "came": "o.sample_id is null",
    "went": "n.sample_id is null",
    "changed": "o.pixel_sha256 <> n.pixel_sha256",
    "moved": "o.split <> n.split",
    "relabelled": "o.labels <> n.labels",
}
"""Kind of a difference to its condition over old rows `o` joined to new rows `n`; null is not true."""
_COLUMNS: Final = ("sample_id", "dataset", "split", "labels", "pixel_sha256")


def compare(rows: Rows, earlier: Path) -> dict[str, Any]:
    """Samples by id against an earlier build.

    `changed` has other pixels, `moved` another split, `relabelled` other labels under the same id.

    Raises:
        CorpusError: no finished build there.
    """
    old = read_manifest(earlier, _COLUMNS)
    rows.attach("old_rows", old)
    marks = ", ".join(f"coalesce({condition}, false) as {kind}" for kind, condition in KINDS.items())
    rows.ask(
        "create or replace temp table differences as select coalesce(n.sample_id, o.sample_id) as sample_id, "
        f"coalesce(n.dataset, o.dataset) as dataset, {marks} "
        "from old_rows o full outer join m n on o.sample_id = n.sample_id"
    )
    kinds = {
        kind: {
            "count": int(rows.one(f"select count(*) from differences where {kind}")),
            "examples": rows.column(
                f"select sample_id from differences where {kind} order by sample_id limit {EXAMPLES}"
            ),
        }
        for kind in KINDS
    }
    sums = ", ".join(f"count(*) filter ({kind})" for kind in KINDS)
    by_dataset = {
        str(dataset): {kind: int(n) for kind, n in zip(KINDS, counted, strict=True) if n}
        for dataset, *counted in rows.ask(f"select dataset, {sums} from differences group by 1 order by 1")
    }
    return {
        "before": old.num_rows,
        "now": rows.count,
        "kinds": kinds,
        "by_dataset": {dataset: counted for dataset, counted in by_dataset.items() if counted},
    }
