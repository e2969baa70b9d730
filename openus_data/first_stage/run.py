"""Running `process` over every file of a build, and taking in what earlier runs have done already."""

from __future__ import annotations

import json
import logging
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_data.build_plan import BuildPlan, Source
from openus_data.build_report import PIXEL_LIBRARIES, DatasetCounts, is_failure, versions
from openus_data.errors import UsageError
from openus_data.executor import Outcome, TaskLimits, open_executor
from openus_data.first_stage.candidate import process
from openus_data.first_stage.folder import RECORDS_BOOK, RECORDS_NAME, Staging, rejects_of
from openus_data.first_stage.journal import Record
from openus_data.first_stage.records import SourceResult, SourceTask, StageOne, item_id
from openus_data.first_stage.sample_table import SampleTableBuilder
from openus_data.manifest import read_rejects
from openus_data.progress import Progress
from openus_data.records import Item, Reject
from openus_data.schema import BUILD_NAME
from openus_data.store import sha256_file

logger = logging.getLogger(__name__)
DECIDED_AGAIN: Final = ("duplicate", "split")
"""Stages whose rejects are never carried over, since they depend on the other datasets."""
_FAILURES: Final = {"error": "internal_error", "memory": "memory_limit", "timeout": "time_limit", "died": "worker_died"}
_NOT_KEPT: Final = frozenset({"missing_extra", "unreadable"})
"""Reasons that may pass without the file changing, so that the file is looked at again next time."""
_FREE_KEYS: Final = ("datasets", "license_classes", "shards", "limits")
"""Parts of a recipe that may differ between the builds that add up to one corpus."""
_MOST_LINES: Final = 50
_ITEM_LETTERS: Final = 20


@dataclass(slots=True)
class FirstStage:
    """What the first stage did.

    Attributes:
        counts: by dataset.
        cards: digest of each dataset's card.
        rejects: of every file.
        worked_on, reused: number of files.
        failures: rejects that are bad input.
    """

    plan: BuildPlan
    staging: Staging
    counts: dict[str, DatasetCounts] = field(default_factory=lambda: defaultdict(DatasetCounts))
    cards: dict[str, str] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    worked_on: int = 0
    reused: int = 0
    failures: int = 0
    _stage: StageOne = field(init=False)
    _items: bytearray = field(default_factory=bytearray)
    _places: array[int] = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self._stage = self.plan.stage

    def run(self, table: SampleTableBuilder) -> None:
        """Work on every file that has no record yet, and put the samples of all of them into the table."""
        plan = self.plan
        self._carry_over(table)
        for dataset, license_class in plan.refused:
            self.add_reject(
                Reject(dataset=dataset, item="*", stage="license", reason="not_wanted", detail=license_class)
            )
        limits = TaskLimits(seconds=plan.recipe.limits.seconds, memory_mb=plan.recipe.limits.memory_mb)
        executor = open_executor(plan.request.executor, workers=plan.request.workers, limits=limits)
        with Progress("build", total=None, quiet=plan.request.quiet) as progress:
            for outcome in executor.run(partial(process, stage=self._stage), self._tasks(progress)):
                self._take(outcome, table)
                progress.advance(1, note=f"{len(self.rejects)} rejected, {self.reused} reused")

    def places(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """Of every record in use, sorted by the file's keyed id: the id, and (book, start), (N, 2)."""
        items = np.frombuffer(bytes(self._items), dtype=f"S{_ITEM_LETTERS}")
        places = np.frombuffer(self._places, dtype=np.int64).reshape(-1, 2)
        order = np.argsort(items, kind="stable")
        return items[order], places[order]

    def _tasks(self, progress: Progress) -> Iterator[SourceTask]:
        total = 0
        for source in self.plan.sources:
            self.cards[source.terms.dataset] = source.terms.card_sha256
            self.counts[source.terms.dataset].images += 0  # a dataset without a file is still accounted for
            for item in self._images(source):
                self.counts[item.dataset].images += 1
                total += 1
                progress.expect(total)
                yield SourceTask(item=item, known=self.staging.known(item_id(item, source.terms)))

    def _images(self, source: Source) -> Iterator[Item]:
        for entry in source.list():
            if isinstance(entry, Reject):
                self.add_reject(entry)
            else:
                yield entry

    def _take(self, outcome: Outcome[SourceTask, SourceResult], table: SampleTableBuilder) -> None:
        item = outcome.item.item
        name = item_id(item, self._stage.datasets[item.dataset])
        result = outcome.value
        if result is None:
            kind, detail = (outcome.failure.kind, outcome.failure.detail) if outcome.failure else ("error", "")
            self.add_reject(
                Reject(dataset=item.dataset, item=name, stage="decode", reason=_FAILURES[kind], detail=detail)
            )
        elif result.is_unchanged:
            self.reused += 1
            record, book = self.staging.record(name)
            self._use(record, book, table)
        elif any(r.stage == "decode" and r.reason in _NOT_KEPT for r in result.rejects):
            for reject in result.rejects:
                self.add_reject(reject)
        else:
            self.worked_on += 1
            self._use(*self.staging.keep(item.dataset, name, result), table)

    def _use(self, record: Record, book: int, table: SampleTableBuilder) -> None:
        header = record.header
        counts = self.counts[header["dataset"]]
        counts.frames += header["frames"]
        counts.frames_skipped += header["skipped"]
        counts.candidates += len(header["samples"])
        for reject in rejects_of(header):
            self.add_reject(reject)
        self._hold(record, book, table)

    def _hold(self, record: Record, book: int, table: SampleTableBuilder) -> None:
        self._items += record.header["item"].encode()
        self._places.extend((book, record.start))
        table.add(record, book)

    def add_reject(self, reject: Reject) -> None:
        """Count a reject, and say so where it is bad input."""
        self.rejects.append(reject)
        self.counts[reject.dataset].rejected[f"{reject.stage}/{reject.reason}"] += 1
        if is_failure(reject):
            self.failures += 1
            if self.failures <= _MOST_LINES:
                logger.warning("%s %s: %s: %s", reject.dataset, reject.item, reject.reason, reject.detail)
            elif self.failures == _MOST_LINES + 1:
                logger.warning("more files failed; rejects.parquet has them all")

    def _carry_over(self, table: SampleTableBuilder) -> None:
        """Keep the datasets of earlier builds that are not asked for this time."""
        old = read_build(self.plan.request.out)
        requested = {s.terms.dataset for s in self.plan.sources} | {name for name, _ in self.plan.refused}
        carried = set(old.get("datasets", {})) - requested
        if not carried:
            return
        check_same_recipe(self.plan, old, carried)
        records = self.plan.request.out / RECORDS_NAME
        if not records.exists() or sha256_file(records) != old.get("sha256", {}).get(RECORDS_NAME):
            raise UsageError(
                "the records of earlier builds in OUT are damaged",
                where=", ".join(sorted(carried)),
                next_step="name these datasets too, so that they are built again",
            )
        for record in self.staging.carried(requested):
            self._hold(record, RECORDS_BOOK, table)
        for row in read_rejects(self.plan.request.out).to_pylist():
            if row["dataset"] in carried and row["stage"] not in DECIDED_AGAIN:
                self.rejects.append(Reject(**row))
                self.counts[row["dataset"]].rejected[f"{row['stage']}/{row['reason']}"] += 1
        for name in carried:
            counts = self.counts[name]
            for key in ("images", "frames", "frames_skipped", "candidates"):
                setattr(counts, key, old["datasets"][name][key])
            if name in old["cards"]:
                self.cards[name] = old["cards"][name]


def read_build(out: Path) -> dict[str, Any]:
    """The content of OUT/build.json; empty where there is none or it cannot be read."""
    try:
        content: dict[str, Any] = json.loads((out / BUILD_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content


def check_same_recipe(plan: BuildPlan, old: dict[str, Any], carried: set[str]) -> None:
    """Refuse to put datasets of another recipe beside new ones.

    Raises:
        UsageError: the recipes differ in what changes bytes.
    """
    new = plan.recipe_json()
    changed = [key for key in new if key not in _FREE_KEYS and old.get("recipe", {}).get(key) != new[key]]
    releases, old_releases = versions(PIXEL_LIBRARIES), old.get("versions", {})
    changed += [name for name in PIXEL_LIBRARIES if releases.get(name) != old_releases.get(name)]
    if changed:
        raise UsageError(
            "OUT holds datasets that were built with another recipe or release",
            where=", ".join(sorted(carried)),
            got=f"another {', '.join(changed)}",
            next_step="name these datasets too, use their recipe, or choose another --out",
        )
