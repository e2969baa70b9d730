"""Running `work` over every file of a build, and taking in what earlier runs have done already.

first = FirstStage(plan, staging, executor)
first.run()                         # every file that needs it is worked on
if not first.is_current(): first.fill(table)
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_data.build_plan import BuildPlan
from openus_data.build_report import PIXEL_LIBRARIES, DatasetCounts, is_failure, versions
from openus_data.errors import UsageError
from openus_data.executor import Executor, Outcome, TaskLimits
from openus_data.first_stage.folder import (
    RECORDS_BOOK,
    RECORDS_NAME,
    Staging,
    is_whole,
    item_name,
    read_build,
    rejects_of,
)
from openus_data.first_stage.inputs import Inputs
from openus_data.first_stage.records import SourceTask, StagedResult, StageOne, item_id
from openus_data.first_stage.sample_table import SampleTableBuilder
from openus_data.first_stage.seen import SeenFiles, file_states, seen_key
from openus_data.first_stage.staged import work
from openus_data.first_stage.summary import read_summary
from openus_data.first_stage.votes import Ballot, Votes, cone_digest
from openus_data.manifest import read_rejects
from openus_data.progress import Progress
from openus_data.records import Cone, Item, Reject
from openus_data.schema import MANIFEST_NAME, PIPELINE_VERSION, REJECTS_NAME
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
        worked_on, reused, mended: number of files; mended ones got the scan area that most of their kind agree on.
        failures: rejects that are bad input.
    """

    plan: BuildPlan
    staging: Staging
    executor: Executor
    counts: dict[str, DatasetCounts] = field(default_factory=lambda: defaultdict(DatasetCounts))
    cards: dict[str, str] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    worked_on: int = 0
    reused: int = 0
    mended: int = 0
    failures: int = 0
    _stage: StageOne = field(init=False)
    _old: dict[str, Any] = field(init=False)
    _inputs: Inputs = field(default_factory=Inputs)
    _seen: dict[str, tuple[SeenFiles, list[int]]] = field(default_factory=dict)
    _items: bytearray = field(default_factory=bytearray)
    _votes: Votes = field(default_factory=Votes)
    _uncounted: bytearray = field(default_factory=bytearray)
    """Ids of the files whose ballots lie in their records and were not counted as they came."""
    _doubtful: list[str] = field(default_factory=list)
    _carried: set[str] = field(default_factory=set)
    _said: set[tuple[str, str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._stage = self.plan.stage
        self._old = read_build(self.plan.request.out)

    def run(self) -> None:
        """Work on every file that has no record yet."""
        self._check_carried()
        for dataset, license_class in self.plan.refused:
            self._add_unrecorded(
                Reject(dataset=dataset, item="*", stage="license", reason="not_wanted", detail=license_class)
            )
        with Progress("build", total=None, quiet=self.plan.request.quiet) as progress:
            for outcome in self._outcomes(self._tasks(progress)):
                self._take(outcome)
                progress.advance(1, note=f"{self._inputs.turned_away} rejected, {self.reused} reused")

    def inputs(self) -> dict[str, str]:
        """Digest of what each dataset of OUT is made from."""
        return self._inputs.digests() | {name: self._old.get("inputs", {}).get(name, "") for name in self._carried}

    def is_current(self) -> bool:
        """Whether OUT is what this build would give; then the counts are those of the build that made it."""
        old, out = self._old, self.plan.request.out
        cards = self.cards | {name: old["cards"][name] for name in self._carried if name in old["cards"]}
        same = {"recipe": self.plan.recipe_json(), "versions": versions(), "cards": cards, "inputs": self.inputs()}
        if any(old.get(key) != value for key, value in same.items()) or not is_whole(out):
            return False
        for name in (MANIFEST_NAME, REJECTS_NAME, RECORDS_NAME):
            if not (out / name).is_file() or sha256_file(out / name) != old["sha256"].get(name):
                return False
        self.cards = cards
        self.counts = {name: DatasetCounts.from_json(counts) for name, counts in old["datasets"].items()}
        rows = (Reject(**row) for row in read_rejects(out).to_pylist() if row["dataset"] not in self._carried)
        failed = [reject for reject in rows if is_failure(reject)]
        self.failures = len(failed)
        for reject in failed:
            self._say(reject)
        return True

    def fill(self, table: SampleTableBuilder) -> None:
        """Put the samples of every file into the table, after the vote on doubtful scan areas."""
        if self.plan.recipe.image.consensus:
            self._mend()
        if self._carried:
            self._carry_over(table)
        for book, start in self._places(self._inputs.items()):
            found = self.staging.packed_at(book, start)
            summary = read_summary(found.summary)
            counts = self.counts[summary.dataset]
            counts.frames += summary.frames
            counts.frames_skipped += summary.skipped
            counts.candidates += summary.number
            for reject in rejects_of(self.staging.record_at(book, start).header) if summary.rejects else ():
                self.add_reject(reject)
            self._items += item_name(found.mark.item).encode()
            table.add(found, summary, book)

    def places(self) -> NDArray[np.int64]:
        """Book and start, (N, 2), of every record in use, sorted by the file's keyed id."""
        items = np.sort(np.frombuffer(bytes(self._items), dtype=f"S{_ITEM_LETTERS}"))
        return np.array([self.staging.place(item.decode()) for item in items.tolist()], dtype=np.int64).reshape(-1, 2)

    def remember(self) -> None:
        """Note which files need not be read next time; called when OUT is complete."""
        for memory, keys in self._seen.values():
            memory.save(keys)

    def add_reject(self, reject: Reject) -> None:
        """Count a reject, and say so where it is bad input."""
        self.rejects.append(reject)
        self.counts[reject.dataset].rejected[f"{reject.stage}/{reject.reason}"] += 1
        if is_failure(reject):
            self.failures += 1
            self._say(reject)

    def _add_unrecorded(self, reject: Reject) -> None:
        """A reject that no record holds."""
        self._inputs.add_reject(reject)
        self.add_reject(reject)

    def _say(self, reject: Reject) -> None:
        """Name bad input on standard error, once, and not without end."""
        line = (reject.item, reject.reason, reject.detail)
        if line in self._said or len(self._said) > _MOST_LINES:
            return
        self._said.add(line)
        if len(self._said) > _MOST_LINES:
            logger.warning("more files failed; rejects.parquet has them all")
        else:
            logger.warning("%s %s: %s: %s", reject.dataset, reject.item, reject.reason, reject.detail)

    def _outcomes(self, tasks: Iterable[SourceTask]) -> Iterator[Outcome[SourceTask, StagedResult]]:
        bounds = self.plan.recipe.limits
        limits = TaskLimits(seconds=bounds.seconds, memory_mb=bounds.memory_mb)
        yield from self.executor.run(partial(work, stage=self._stage), tasks, limits=limits)

    def _tasks(self, progress: Progress) -> Iterator[SourceTask]:
        """Every file that may need work; those that have not changed since they were read are counted and left out."""
        total, is_fresh = 0, not self.staging.holds_any
        for source in self.plan.sources:
            terms, request = source.terms, self.plan.request
            self.cards[terms.dataset] = terms.card_sha256
            self.counts[terms.dataset].images += 0  # a dataset without a file is still accounted for
            self._inputs.expect(terms.dataset)
            memory, keys = SeenFiles.load(request.root, request.out, terms.dataset), list[int]()
            self._seen[terms.dataset] = memory, keys
            for entry in source.list():
                if isinstance(entry, Reject):
                    self._add_unrecorded(entry)
                    continue
                self.counts[terms.dataset].images += 1
                progress.expect(total := total + 1)
                name = "" if is_fresh else item_id(entry, terms)
                known = self.staging.known(name) if name else None
                key = seen_key(entry, file_states(entry), known, terms) if known else None
                if known and key is not None and key in memory:
                    self._reuse(terms.dataset, name, known, key)
                    progress.advance(1)
                else:
                    yield SourceTask(item=entry, known=known)

    def _reuse(self, dataset: str, name: str, fingerprint: str, key: int | None) -> None:
        self.reused += 1
        self._uncounted += name.encode()
        self._inputs.add(dataset, name, fingerprint)
        if key is not None:
            self._seen[dataset][1].append(key)

    def _take(self, outcome: Outcome[SourceTask, StagedResult]) -> None:
        item = outcome.item.item
        result = outcome.value
        name = item_id(item, self._stage.datasets[item.dataset]) if result is None else result.item
        if result is None:
            kind, detail = (outcome.failure.kind, outcome.failure.detail) if outcome.failure else ("error", "")
            self._add_unrecorded(
                Reject(dataset=item.dataset, item=name, stage="decode", reason=_FAILURES[kind], detail=detail)
            )
        elif result.is_unchanged:
            self._reuse(item.dataset, name, result.fingerprint, result.seen)
        elif any(r.stage == "decode" and r.reason in _NOT_KEPT for r in result.rejects):
            for reject in result.rejects:
                self._add_unrecorded(reject)
        else:
            self.worked_on += 1
            self._keep(result)
            self._count_vote(item.dataset, name, result.ballot, is_mended=False)
            self._inputs.add(item.dataset, name, result.fingerprint)
            if result.seen is not None:
                self._seen[item.dataset][1].append(result.seen)

    def _keep(self, result: StagedResult) -> None:
        self.staging.keep(result.item, result.fingerprint, result.parts)
        self._inputs.turned_away += len(result.rejects)
        for reject in result.rejects:
            if is_failure(reject):
                self._say(reject)

    def _places(self, items: Iterable[str]) -> list[tuple[int, int]]:
        """Book and start of the records of files, in the order in which they lie on the disk."""
        return sorted(map(self.staging.place, items))

    def _count_vote(self, dataset: str, name: str, ballot: Ballot | None, *, is_mended: bool) -> None:
        if ballot is not None:
            self._votes.add(dataset, ballot)
            if is_mended or Votes.is_doubtful(ballot):
                self._doubtful.append(name)

    def _mend(self) -> None:
        """Work again on files whose scan area is doubtful, or no longer, now that all have cast their ballots."""
        known = bytes(self._uncounted).decode()
        self._uncounted.clear()
        for place in self._places(known[i : i + _ITEM_LETTERS] for i in range(0, len(known), _ITEM_LETTERS)):
            header = self.staging.record_at(*place).header
            self._count_vote(header["dataset"], header["item"], header["ballot"], is_mended=bool(header["prior"]))
        wanted: dict[str, tuple[Cone | None, Ballot]] = {}
        for name in self._doubtful:
            header = self.staging.record_at(*self.staging.place(name)).header
            prior = self._votes.prior(header["dataset"], header["ballot"])
            self.mended += prior is not None
            if header["prior"] != (None if prior is None else cone_digest(prior)):
                wanted[name] = prior, header["ballot"]
        for outcome in self._outcomes(self._again(wanted)) if wanted else ():
            result = outcome.value
            if result is not None and not result.is_unchanged and result.fingerprint:
                self._keep(result)

    def _again(self, wanted: Mapping[str, tuple[Cone | None, Ballot]]) -> Iterator[SourceTask]:
        for source in self.plan.sources:
            for entry in source.list():
                if isinstance(entry, Item) and (name := item_id(entry, source.terms)) in wanted:
                    yield SourceTask(item=entry, prior=wanted[name][0], ballot=wanted[name][1])

    def _check_carried(self) -> None:
        """Find out which datasets of earlier builds stay, and whether they can."""
        old = self._old
        requested = {s.terms.dataset for s in self.plan.sources} | {name for name, _ in self.plan.refused}
        self._carried.update(set(old.get("datasets", {})) - requested)
        if not self._carried:
            return
        check_same_recipe(self.plan, old, self._carried)
        records = self.plan.request.out / RECORDS_NAME
        if not records.exists() or sha256_file(records) != old.get("sha256", {}).get(RECORDS_NAME):
            raise UsageError(
                "the records of earlier builds in OUT are damaged",
                where=", ".join(sorted(self._carried)),
                next_step="name these datasets too, so that they are built again",
            )

    def _carry_over(self, table: SampleTableBuilder) -> None:
        """Keep the datasets of earlier builds that are not asked for this time."""
        old = self._old
        for found in self.staging.carried(self._carried):
            self._items += item_name(found.mark.item).encode()
            table.add(found, read_summary(found.summary), RECORDS_BOOK)
        for row in read_rejects(self.plan.request.out).to_pylist():
            if row["dataset"] in self._carried and row["stage"] not in DECIDED_AGAIN:
                self.rejects.append(Reject(**row))
                self.counts[row["dataset"]].rejected[f"{row['stage']}/{row['reason']}"] += 1
        for name in self._carried:
            counts = self.counts[name]
            for key in ("images", "frames", "frames_skipped", "candidates"):
                setattr(counts, key, old["datasets"][name][key])
            if name in old["cards"]:
                self.cards[name] = old["cards"][name]


def check_same_recipe(plan: BuildPlan, old: dict[str, Any], carried: set[str]) -> None:
    """Refuse to put datasets of another recipe beside new ones.

    Raises:
        UsageError: the recipes differ in what changes bytes.
    """
    new = plan.recipe_json()
    changed = [key for key in new if key not in _FREE_KEYS and old.get("recipe", {}).get(key) != new[key]]
    releases, old_releases = versions(PIXEL_LIBRARIES), old.get("versions", {})
    changed += [name for name in PIXEL_LIBRARIES if releases.get(name) != old_releases.get(name)]
    changed += ["pipeline version"] if old.get("pipeline_version") != PIPELINE_VERSION else []
    if changed:
        raise UsageError(
            "OUT holds datasets that were built with another recipe or release",
            where=", ".join(sorted(carried)),
            got=f"another {', '.join(changed)}",
            next_step="name these datasets too, use their recipe, or choose another --out",
        )
