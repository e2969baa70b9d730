"""Two builds side by side: what came, what went, what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openus_data.audit.rows import EXAMPLES, Rows, open_rows


def compare(rows: Rows, earlier: Path) -> dict[str, Any]:
    """Samples by id against an earlier build.

    `changed` has other pixels, `moved` another split, `relabelled` other labels under the same id.

    Raises:
        CorpusError: no finished build there.
    """
    columns = ("pixel_sha256", "split", "labels", "dataset")
    with open_rows([earlier], None) as old_rows:
        old = {r[0]: r[1:] for r in old_rows.ask(f"select sample_id, {', '.join(columns)} from m")}
    new = {r[0]: r[1:] for r in rows.ask(f"select sample_id, {', '.join(columns)} from m")}
    both = sorted(new.keys() & old.keys())
    differences = {
        "came": sorted(new.keys() - old.keys()),
        "went": sorted(old.keys() - new.keys()),
        "changed": [i for i in both if new[i][0] != old[i][0]],
        "moved": [i for i in both if new[i][1] != old[i][1]],
        "relabelled": [i for i in both if new[i][2] != old[i][2]],
    }
    by_dataset: dict[str, dict[str, int]] = {}
    for kind, ids in differences.items():
        for sample in ids:
            dataset = str((new.get(sample) or old[sample])[3])
            by_dataset.setdefault(dataset, {}).setdefault(kind, 0)
            by_dataset[dataset][kind] += 1
    return {
        "before": len(old),
        "now": len(new),
        "kinds": {kind: {"count": len(ids), "examples": ids[:EXAMPLES]} for kind, ids in differences.items()},
        "by_dataset": dict(sorted(by_dataset.items())),
    }
