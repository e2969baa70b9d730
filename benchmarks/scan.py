"""The CPU scan against its rivals, and VMamba-S's step against the reference scan: the tables of docs/explain/scan.md.

OMP_NUM_THREADS=1 python benchmarks/scan.py [scan|step ...]
"""

from __future__ import annotations

import sys

from openus_model.bench import bench

if __name__ == "__main__":
    for what in sys.argv[1:] or ("scan", "step"):
        print(bench(what).to_text(), end="\n\n")
