"""What `openus-model bench` measures: each figure beside its named baseline, timed in the same process.

    bench("scan").to_text()

A new benchmark is a module here with `run() -> BenchReport`, and its name in `BENCHMARKS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from openus_model.bench.report import BenchReport, Row
from openus_model.errors import UsageError

BENCHMARKS = ("scan", "step", "stream")


def bench(what: str) -> BenchReport:
    """Run one benchmark.

    Args:
        what: `scan`: the selective scan over VMamba-S's layers; `step`: a backbone's forward and backward; `stream`:
            samples from shards.

    Raises:
        UsageError: no such benchmark.
    """
    if what not in BENCHMARKS:
        raise UsageError("no such benchmark", expected=", ".join(BENCHMARKS), got=what)
    run = cast(Callable[[], BenchReport], importlib.import_module(f"openus_model.bench.{what}").run)
    return run()


__all__ = ["BENCHMARKS", "BenchReport", "Row", "bench"]
