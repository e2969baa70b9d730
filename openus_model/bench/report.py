"""How a benchmark reports: rows of a figure, its baseline and their ratio."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure beside its baseline.

    Args:
        name: what was measured.
        value: the figure.
        unit: `s` (less is better) or a rate such as `images/s` (more is better).
        baseline: what it is compared with.
        baseline_value: the baseline's figure, in the same unit.
        wanted: the ratio that the project promises, None where it promises nothing.
    """

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    wanted: float | None = None

    @property
    def ratio(self) -> float:
        """How many times better than the baseline."""
        return self.value / self.baseline_value if "/" in self.unit else self.baseline_value / self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What a benchmark found.

    Args:
        what: its name.
        rows: the comparisons.
        facts: figures without a baseline, and what they were measured on.
    """

    what: str
    rows: tuple[Row, ...]
    facts: Mapping[str, float | int | str]

    exit_code = 0

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        rows = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in self.rows]
        return {"what": self.what, "rows": rows, "facts": dict(self.facts)}

    def to_text(self) -> str:
        """A table, and the facts below it."""
        table = [("what", "figure", "baseline", "its figure", "ratio", "wanted")]
        for row in self.rows:
            wanted = "" if row.wanted is None else f">= {row.wanted:g}x"
            figures = (f"{row.value:.4g} {row.unit}", row.baseline, f"{row.baseline_value:.4g} {row.unit}")
            table.append((row.name, *figures, f"{row.ratio:.2f}x", wanted))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        return "\n".join(
            [*(line.rstrip() for line in lines), *(f"{key}: {value}" for key, value in self.facts.items())]
        )


def cpu_seconds(calls: Mapping[str, Callable[[], object]], repeats: Mapping[str, int]) -> dict[str, float]:
    """The least CPU time of each call in seconds: on a shared machine the least disturbed one counts.

    The calls take turns, so that what else the machine does meets all of them alike.

    Args:
        calls: what to time, by name.
        repeats: how often to run each.
    """
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(max(repeats.values())):
        for name, call in calls.items():
            if turn < repeats[name]:
                start = time.process_time()
                call()
                best[name] = min(best[name], time.process_time() - start)
    return best
