"""Time and memory of an audit of a large manifest, with and without the page, against reading the file alone.

python benchmarks/audit.py [rows]        # default 308,000; target: under 10 s and 1 GB, page under 5 MB
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from openus_data.manifest import TableWriter, write_rejects
from openus_data.records import Reject
from openus_data.schema import MANIFEST_NAME, manifest_schema

DATASETS, SHARD_ROWS = 42, 10_000


def make(out: Path, rows: int) -> None:
    """A manifest of 42 datasets of uneven size, with clips, devices and near-duplicates, but no shards."""
    rng = np.random.default_rng(0)
    sizes = rng.dirichlet(np.full(DATASETS, 0.4))
    with TableWriter(out / MANIFEST_NAME, manifest_schema()) as writer:
        for start in range(0, rows, SHARD_ROWS):
            writer.write_table(_table(rng, sizes, start, min(SHARD_ROWS, rows - start)))
    write_rejects(out, [Reject(dataset=f"set_{k % 42}", item=f"{k:08x}", stage="decode", reason="truncated")
                        for k in range(20_000)])  # fmt: skip
    (out / "build.json").write_text("{}")


def _table(rng: np.random.Generator, sizes: np.ndarray, start: int, count: int) -> pa.Table:
    of = rng.choice(DATASETS, count, p=sizes)
    number = np.arange(start, start + count)
    hexes = [f"{n:016x}" * 4 for n in number]
    organs = np.array(["breast", "thyroid", "cardiac", "fetal", "lung", "abdomen"])
    makers, models = np.array(["ge", "philips", "siemens", "mindray"]), np.array([f"model {k}" for k in range(30)])
    polygon = rng.uniform(0, 500, (40, 2)).round(1).tolist()
    text, real = pa.string(), pa.float64()
    columns = {
        "sample_id": [f"set-{d}-{h[:20]}" for d, h in zip(of, hexes, strict=True)],
        "dataset": [f"set_{d}" for d in of],
        "subject_id": [f"{n // 9:016x}" for n in number],
        "study_id": [f"{n // 5:016x}" for n in number],
        "frame_index": number % 5,
        "split": np.array(["pretrain", "train", "val", "test"])[(of + number // 9) % 4 // 2],
        "role": ["pretrain"] * count,
        "shard": [f"shards/pretrain/openus-pretrain-{start // SHARD_ROWS:06d}.tar"] * count,
        "offset": number * 90_000,
        "size_bytes": np.full(count, 80_000),
        "width_px": rng.integers(200, 1000, count),
        "height_px": rng.integers(200, 900, count),
        "channels": np.ones(count, np.int8),
        "organ": organs[of % 6],
        "anatomy": [f"anatomy {d}" for d in of],
        "labels": [json.dumps({"class": str(n % 7), "box": f"{n % 9973}"}) for n in number],
        "device_manufacturer": makers[of % 4],
        "device_model": models[(of + number % 3) % 30],
        "cone_geometry": np.array(["sector", "curvilinear", "linear"])[of % 3],
        "cone_polygon": [polygon] * count,
        "cone_box": [[0.0, 0.0, 640.0, 480.0]] * count,
        "cone_confidence": rng.beta(8, 1, count).astype(np.float32),
        "cone_method": ["image"] * count,
        "text_boxes_removed": [[[1.0, 2.0, 30.0, 14.0]]] * count,
        "deid_actions": [["mask_outside"]] * count,
        "pixel_sha256": hexes,
        "source_sha256": hexes,
        "phash": hexes,
        "duplicate_group": [f"{n // 3:016x}" if n % 5 == 0 else None for n in number],
        "quality": [["dark"] if n % 50 == 0 else [] for n in number],
        "license": ["CC-BY-4.0"] * count,
        "redistributable": [True] * count,
        "card_sha256": ["0" * 64] * count,
        "pipeline_version": ["1"] * count,
    }
    optional = {"spacing_row_mm": real, "spacing_col_mm": real, "view": text, "pathology": text, "transducer": text,
                "frequency_mhz": real, "institution": text, "country": text}  # fmt: skip
    columns |= {name: pa.nulls(count, kind) for name, kind in optional.items()}
    return pa.table({name: columns[name] for name in manifest_schema().names}, schema=manifest_schema())


_RUN = """
import resource, sys, time, json
from pathlib import Path
out, what = Path(sys.argv[1]), sys.argv[2]
import openus_data.manifest as manifest
from openus_data.audit import AuditRequest, audit
start = time.perf_counter()
if what == "read":
    manifest.read_manifest(out)
else:
    audit(AuditRequest(outs=(out,), images="none", quiet=True, html=out / "audit.html" if what == "page" else None,
                       compare=out if what == "compare" else None))
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def main() -> None:
    """Print the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 308_000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make(out, rows)
        print(f"{rows:,} rows, manifest of {(out / MANIFEST_NAME).stat().st_size / 1e6:.0f} MB")
        print(f"{'what':<10}{'seconds':>9}{'peak MB':>9}{'x reading':>11}")
        floor = 0.0
        for what in ("read", "audit", "compare", "page"):
            answer = subprocess.run(
                [sys.executable, "-c", _RUN, folder, what], capture_output=True, text=True, check=True
            )
            seconds, peak = json.loads(answer.stdout.splitlines()[-1])
            floor = floor or seconds
            print(f"{what:<10}{seconds:>9.2f}{peak:>9.0f}{seconds / floor:>11.1f}")
        print(f"page: {(out / 'audit.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
