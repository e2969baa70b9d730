"""What a build would do, without doing it: files, bytes, and disk and time by working on a few files of each dataset.

    describe(plan)      # a BuildReport with `planned`

Clips and volumes cost a thousand times what a small picture does, and no suffix or size tells how many frames the card
and the recipe keep; so a few files of each dataset, chosen by their keyed ids, go through the first stage in a worker,
and their results are thrown away.
"""

from __future__ import annotations

import heapq
import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from openus_data.build_plan import BuildPlan, Source
from openus_data.build_report import BuildReport, DatasetCounts
from openus_data.executor import TaskLimits, open_executor
from openus_data.first_stage.candidate import process
from openus_data.first_stage.folder import undecided_row
from openus_data.first_stage.records import SourceTask, StageOne, item_id
from openus_data.records import Item
from openus_data.store import free_bytes

_TRIED: Final = 4
"""Files of each dataset that are worked on."""
_MOST_SECONDS: Final = 60.0
_FILE_SECONDS: Final = 20.0
_BARRIER_SECONDS: Final = 0.0004
"""A sample's share of duplicates, records and shards, measured (docs/explain/build.md)."""
_UNTRIED_SECONDS: Final = 0.03
_COPIES: Final = 2
"""Staging and shards lie on the disk side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What working on one file took and gave.

    Args:
        seconds: CPU time.
        size_bytes: of the encoded pictures and their rows.
        samples: pictures.
    """

    seconds: float
    size_bytes: int
    samples: int


@dataclass(slots=True, kw_only=True)
class _Dataset:
    """What the listing of one dataset says, and what trying some of it gave."""

    counts: DatasetCounts = field(default_factory=DatasetCounts)
    input_bytes: int = 0
    chosen: list[tuple[str, int, Item]] = field(default_factory=list)
    tried_bytes: int = 0
    tried: list[Tried] = field(default_factory=list)

    def scaled(self, total: float) -> float:
        """A total over the files that were tried, as it would be over all."""
        return total * self.input_bytes / max(1, self.tried_bytes)


def describe(plan: BuildPlan) -> BuildReport:
    """Files, bytes, samples, disk and time of a build; writes nothing."""
    found = {source.terms.dataset: _list(source) for source in plan.sources}
    _try(plan, found)
    tried = [d for d in found.values() if d.tried]
    untried = sum(d.counts.images for d in found.values() if not d.tried)
    seconds = sum(d.scaled(sum(t.seconds for t in d.tried)) for d in tried) + _UNTRIED_SECONDS * untried
    samples = round(sum(d.scaled(sum(t.samples for t in d.tried)) for d in tried)) + untried
    stored = sum(d.scaled(sum(t.size_bytes for t in d.tried)) for d in tried)
    stored += sum(d.input_bytes for d in found.values() if not d.tried)
    workers = plan.request.workers or os.cpu_count() or 1
    at_once = min(workers, os.cpu_count() or 1) if plan.request.executor == "local" else workers
    return BuildReport(
        datasets={name: dataset.counts for name, dataset in found.items()},
        missing=dict(plan.missing),
        is_changed=False,
        planned={
            "files": sum(d.counts.images for d in found.values()),
            "input_bytes": sum(d.input_bytes for d in found.values()),
            "disk_needed_bytes": int(_COPIES * stored),
            "disk_free_bytes": free_bytes(plan.request.out),
            "workers": workers,
            "estimated_samples": samples,
            "estimated_seconds": round(seconds / at_once + _BARRIER_SECONDS * samples, 1),
            "tried_files": sum(len(d.tried) for d in found.values()),
        },
    )


def _list(source: Source) -> _Dataset:
    dataset = _Dataset()
    for entry in source.list():
        if not isinstance(entry, Item):
            dataset.counts.rejected[f"{entry.stage}/{entry.reason}"] += 1
            continue
        size = entry.path.stat().st_size
        dataset.counts.images += 1
        dataset.input_bytes += size
        dataset.chosen.append((item_id(entry, source.terms), size, entry))
        if len(dataset.chosen) > 64 * _TRIED:
            dataset.chosen = _first(dataset.chosen)
    dataset.chosen = _first(dataset.chosen)
    return dataset


def _first(chosen: list[tuple[str, int, Item]]) -> list[tuple[str, int, Item]]:
    return heapq.nsmallest(_TRIED, chosen, key=lambda one: one[0])


def _try(plan: BuildPlan, found: dict[str, _Dataset]) -> None:
    """Work on the chosen files, the first of every dataset first, until the time is up."""
    chosen = [one for place in range(_TRIED) for d in found.values() for one in d.chosen[place : place + 1]]
    limits = TaskLimits(seconds=_FILE_SECONDS, memory_mb=plan.recipe.limits.memory_mb)
    executor = open_executor("local", workers=1, limits=limits)
    end = time.monotonic() + _MOST_SECONDS
    outcomes = executor.run(partial(measure, stage=plan.stage), (SourceTask(item=item) for *_, item in chosen))
    for outcome in outcomes:
        dataset, size = found[outcome.item.item.dataset], chosen[outcome.index][1]
        dataset.tried_bytes += size
        dataset.tried.append(outcome.value or Tried(seconds=_FILE_SECONDS, size_bytes=0, samples=0))
        if time.monotonic() > end:
            break


def measure(task: SourceTask, stage: StageOne) -> Tried:
    """Work on one file and tell what it took."""
    start = time.process_time()
    samples = process(task, stage).samples
    seconds = time.process_time() - start
    size = sum(len(s.image) + len(s.mask or b"") + len(undecided_row(s.candidate.row).encode()) for s in samples)
    return Tried(seconds=seconds, size_bytes=size, samples=len(samples))
