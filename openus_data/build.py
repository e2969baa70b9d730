"""`openus-data build`: from fetched datasets and private folders to shards, manifest and rejects.

    cards, folders -> plan -> items -> process (one file each, any number of workers)          candidate.py
      -> records in OUT/.staging -> duplicates and splits over all of them, no pixels          sample_table.py, split.py
      -> shards -> manifest.parquet, rejects.parquet, build.json -> their final names          shard_task.py, publish.py

Equal inputs and recipe give equal bytes, whatever the workers, the executor, the order in which files are done, and the
number of times the build was killed and run again.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data import datacard
from openus_data.build_plan import BuildPlan, BuildRequest, plan_build, unwritable
from openus_data.build_report import BuildReport, build_json
from openus_data.duplicates import DuplicateSettings
from openus_data.errors import CorpusError, NoSpace, UsageError
from openus_data.executor import Executor, TaskLimits, open_executor
from openus_data.first_stage.estimate import describe
from openus_data.first_stage.folder import RECORDS_NAME, Staging
from openus_data.first_stage.journal import Journal, Place, placed_parts
from openus_data.first_stage.run import FirstStage
from openus_data.first_stage.sample_table import SampleTable, SampleTableBuilder
from openus_data.manifest import TableWriter, write_rejects
from openus_data.progress import Progress
from openus_data.publish import DERIVED_NAMES, finish_commit, publish
from openus_data.recipe import BuildRecipe
from openus_data.records import Reject
from openus_data.remote_folder import local_request
from openus_data.schema import BUILD_NAME, MANIFEST_NAME, REJECTS_NAME, SPLITS, manifest_schema
from openus_data.shard_task import PlannedSample, ShardPlan, ShardResult, write_shard
from openus_data.shards import Sidecar, plan_shards
from openus_data.split import Assignment, SplitSettings, assign
from openus_data.store import folder_lock, sha256_file, write_text_aside

__all__ = ["BuildReport", "BuildRequest", "build"]

logger = logging.getLogger(__name__)
_MOST_NAMES: Final = 3
_NO_LIMITS: Final = TaskLimits(seconds=0, memory_mb=0)
_RECORDS_AT_ONCE: Final = 256
_FEW_SAMPLES, _FEW_BYTES = 500, 128 << 20
"""So little is written to shards by the main process: a worker takes longer to start."""


def build(request: BuildRequest) -> BuildReport:
    """Build a corpus, or bring one up to date.

    Raises:
        UsageError: the request cannot be carried out as written.
        LockedError: another run works in OUT.
        NoSpace: the disk is full; what is done stands, and the next run goes on from it.
    """
    with local_request(request) as local:
        return _build(local, time.monotonic())


def _build(request: BuildRequest, started: float) -> BuildReport:
    plan = plan_build(request)
    _say_missing(plan)
    if request.dry_run:
        return describe(plan)
    if not plan.sources:
        return BuildReport(datasets={}, missing=dict(plan.missing), failures=0, is_changed=False)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable("--out", error) from error
    try:
        with folder_lock(request.out):
            return _run(plan, started)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace("the disk is full", next_step="free space and run the same command again") from error
        raise


def _say_missing(plan: BuildPlan) -> None:
    """One line, however many datasets are not there."""
    if len(plan.missing) == 1:
        ((dataset, step),) = plan.missing
        logger.warning("%s: its files are not there; %s", dataset, step)
    elif plan.missing:
        names = ", ".join(name for name, _ in plan.missing[:_MOST_NAMES])
        logger.warning(
            "%d datasets are not there: %s; fetch them with openus-data fetch ID...",
            len(plan.missing),
            names if len(plan.missing) <= _MOST_NAMES else f"{names}, ... (--json lists them under `missing`)",
        )


def _run(plan: BuildPlan, started: float) -> BuildReport:
    out = plan.request.out
    finish_commit(out)
    with ExitStack() as stack:
        staging = stack.enter_context(Staging(out))
        local = stack.enter_context(open_executor("local", workers=plan.request.workers))
        is_elsewhere = plan.request.executor != "local"
        executor = open_executor(plan.request.executor, workers=plan.request.workers) if is_elsewhere else local
        first = FirstStage(plan, staging, executor)
        first.run()
        is_current = first.is_current()
        shards: tuple[str, ...] = ()
        if not is_current:
            first, shards = _rebuild(plan, staging, first, local)
    is_changed = not is_current and publish(out, shards)
    if is_current:
        shutil.rmtree(staging.folder)
    if is_changed or not all((out / name).exists() for name in DERIVED_NAMES):
        datacard.write_cards(out, plan.cards(first.counts))
    first.remember()
    for source in plan.sources:
        if not first.counts[source.terms.dataset].images:
            step = "openus-data check-card says what its rules pick" if source.terms.card else "look at --images"
            logger.warning("%s: its folder holds no picture; %s", source.terms.dataset, step)
    return BuildReport(
        datasets=first.counts,
        missing=dict(plan.missing),
        failures=first.failures,
        worked_on=first.worked_on,
        reused=first.reused,
        seconds=time.monotonic() - started,
        is_changed=is_changed,
        hints=(f"{first.mended} files cut as most of their device and size are",) if first.mended else (),
    )


def _rebuild(
    plan: BuildPlan, staging: Staging, first: FirstStage, local: Executor
) -> tuple[FirstStage, tuple[str, ...]]:
    """All that lies behind the first stage, up to the finished files in .staging/new, and the names of the shards."""
    first, table, assignment = _decide(plan, staging, first)
    built = _write_shards(plan, staging, table, assignment, local)
    _account(first, table, assignment, staging)
    _write_records(staging, first, table, built)
    _write_tables(plan, staging, first, built)
    return first, tuple(built.shards)


def _decide(plan: BuildPlan, staging: Staging, first: FirstStage) -> tuple[FirstStage, SampleTable, Assignment]:
    """The barrier: every candidate, and where it goes.

    A sample that no split held in an earlier build, and that one holds now, was not kept: its file is worked on again.
    """
    while True:
        with SampleTableBuilder(staging.folder) as builder:
            first.fill(builder)
        table = builder.finish(_duplicate_settings(plan.recipe))
        assignment = assign(table.split_input, _split_settings(plan.recipe))
        lost = np.flatnonzero(assignment.is_kept & ~table.is_stored)
        if not len(lost):
            return first, table, assignment
        _forget(plan, staging, table, lost)
        first = FirstStage(plan, staging, first.executor)
        first.run()


def _forget(plan: BuildPlan, staging: Staging, table: SampleTable, lost: NDArray[np.int64]) -> None:
    headers = [staging.record_at(int(table.book[i]), int(table.start[i])).header for i in lost]
    datasets = {h["dataset"] for h in headers}
    gone = datasets - {s.terms.dataset for s in plan.sources}
    if gone:
        raise UsageError("pictures of earlier builds are needed again", where=", ".join(sorted(gone)),
                         next_step="name these datasets too")  # fmt: skip
    staging.forget({h["item"] for h in headers})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """What the shards hold, by index into the sample table where not said otherwise.

    Args:
        shards: sidecar by name, in order.
        shard: index of the sample's shard; -1 for a dropped sample.
        image, mask: (N, 3) offset, size and CRC-32 in the shard; size -1 where there is none.
        rows: rows of the manifest.
    """

    shards: dict[str, Sidecar]
    shard: NDArray[np.int64]
    image: NDArray[np.int64]
    mask: NDArray[np.int64]


def _write_shards(
    plan: BuildPlan, staging: Staging, table: SampleTable, assignment: Assignment, local: Executor
) -> _Built:
    """Write every shard that is not there yet, and the manifest, a row group a shard, in the order of the plan."""
    plans = list(_shard_plans(plan, staging, table, assignment))
    none = np.full((len(table), 3), -1, dtype=np.int64)
    built = _Built(shards={}, shard=np.full(len(table), -1, dtype=np.int64), image=none, mask=none.copy())
    with (
        Progress("shards", total=len(plans), quiet=plan.request.quiet, unit="shards") as progress,
        TableWriter(staging.new / MANIFEST_NAME, manifest_schema()) as manifest,
    ):
        sizes = table.size_bytes[assignment.is_kept]
        is_little = len(sizes) <= _FEW_SAMPLES and int(sizes.sum()) <= _FEW_BYTES
        results = _shard_results([shard for shard, _ in plans], None if is_little else local)
        for result, (_, indices) in zip(results, plans, strict=True):
            _note(built, result, indices)
            manifest.write_table(result.table())
            progress.advance()
    return built


def _shard_results(shards: list[ShardPlan], executor: Executor | None) -> Iterator[ShardResult]:
    """The shards in order, written by workers or by this process."""
    if executor is None:
        yield from map(write_shard, shards)
        return
    for outcome in executor.run(write_shard, shards, ordered=True, limits=_NO_LIMITS):
        if outcome.value is None:
            raise _shard_error(outcome.failure.detail if outcome.failure else "")
        yield outcome.value


def _shard_plans(
    plan: BuildPlan, staging: Staging, table: SampleTable, assignment: Assignment
) -> list[tuple[ShardPlan, NDArray[np.int64]]]:
    """Every shard and the samples in it: a split's samples in the order of their keyed hash, cut by number and size."""
    groups = _duplicate_groups(table, assignment)
    plans = []
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(assignment.is_kept & (assignment.split == number))
        bounds = plan.recipe.shards
        counts = plan_shards(
            table.size_bytes[chosen].tolist(),
            max_samples=bounds.most_samples,
            max_bytes=bounds.most_megabytes * 10**6,
        )
        for index, indices in enumerate(np.split(chosen, np.cumsum(counts)[:-1])) if counts else ():
            samples = tuple(
                PlannedSample(
                    book=int(table.book[i]),
                    start=int(table.start[i]),
                    number=int(table.number[i]),
                    duplicate_group=groups.get(int(i)),
                )
                for i in indices
            )
            shard = ShardPlan(out=plan.request.out, target=staging.new, split=split, index=index, samples=samples)
            plans.append((shard, indices))
    return plans


def _duplicate_groups(table: SampleTable, assignment: Assignment) -> dict[int, str]:
    """Group id of every kept sample that shares its group with another kept one, by index."""
    kept = np.flatnonzero(assignment.is_kept)
    labels, which, sizes = np.unique(table.split_input.near[kept], return_inverse=True, return_counts=True)
    names = {int(n): f"dup-{table.key[labels[n]].decode()}" for n in np.flatnonzero(sizes > 1)}
    return {int(i): names[int(n)] for i, n in zip(kept, which, strict=True) if int(n) in names}


def _note(built: _Built, result: ShardResult, indices: NDArray[np.int64]) -> None:
    built.shard[indices] = len(built.shards)
    built.shards[result.name] = result.sidecar
    built.image[indices] = [image for image, _ in result.places]
    built.mask[indices] = [mask or (-1, -1, -1) for _, mask in result.places]


def _shard_error(detail: str) -> CorpusError | NoSpace:
    if detail.startswith(NoSpace.__name__):
        return NoSpace("the disk is full", next_step="free space and run the same command again")
    return CorpusError(
        "a shard could not be written", got=detail, next_step="openus-data verify OUT says what is damaged"
    )


def _account(first: FirstStage, table: SampleTable, assignment: Assignment, staging: Staging) -> None:
    """Count what every split holds, and add the samples that none may hold to the rejects."""
    for name, split in zip(table.dataset[assignment.is_kept], assignment.split[assignment.is_kept], strict=True):
        first.counts[table.datasets[name]].kept[SPLITS[split]] += 1
    for drop in assignment.dropped:
        header = staging.record_at(int(table.book[drop.index]), int(table.start[drop.index])).header
        frame = header["samples"][int(table.number[drop.index])]["frame"]
        other = f"{table.datasets[table.dataset[drop.because_of]]}-{table.key[drop.because_of].decode()}"
        first.add_reject(
            Reject(
                dataset=header["dataset"],
                item=header["item"],
                stage=drop.stage,
                reason=drop.reason,
                detail=f"frame {frame}, as {other}",
            )
        )


def _write_tables(plan: BuildPlan, staging: Staging, first: FirstStage, built: _Built) -> None:
    write_rejects(staging.new, first.rejects)
    text = build_json(
        recipe=plan.recipe_json(),
        datasets=first.counts,
        cards=first.cards,
        inputs=first.inputs(),
        shards={
            name: {"samples": s.samples, "bytes": s.size_bytes, "sha256": s.sha256} for name, s in built.shards.items()
        },
        digests={name: sha256_file(staging.new / name) for name in (MANIFEST_NAME, REJECTS_NAME, RECORDS_NAME)},
    )
    write_text_aside(staging.new / BUILD_NAME, text)


def _write_records(staging: Staging, first: FirstStage, table: SampleTable, built: _Built) -> None:
    """Write OUT/.records: every file's header, with the place of each sample's bytes, by the files' ids."""
    codes = 2 * table.start + table.book
    order = np.lexsort((table.number, codes))
    records = first.places()
    wanted = 2 * records[:, 1] + records[:, 0]
    firsts, ends = (np.searchsorted(codes[order], wanted, side) for side in ("left", "right"))
    names = list(built.shards)
    path = staging.new / RECORDS_NAME
    path.unlink(missing_ok=True)
    with Journal(path) as journal:
        waiting: list[bytes] = []
        for (book, start), low, high in zip(records.tolist(), firsts, ends, strict=True):
            places = [_place(built, names, int(index)) for index in order[low:high]]
            waiting += placed_parts(staging.packed_at(book, start), places)
            if len(waiting) == _RECORDS_AT_ONCE:
                journal.append(waiting)
                waiting = []
        journal.append(waiting)


def _place(built: _Built, names: list[str], index: int) -> Place:
    if built.shard[index] < 0:
        return None
    mask = built.mask[index].tolist()
    return {
        "shard": names[built.shard[index]],
        "image": built.image[index].tolist(),
        "mask": mask if mask[1] >= 0 else None,
    }


def _duplicate_settings(recipe: BuildRecipe) -> DuplicateSettings:
    chosen = recipe.duplicates
    return DuplicateSettings(
        most_distance=chosen.most_distance,
        least_correlation=chosen.least_correlation,
        flips=chosen.flips,
        crops=chosen.crops,
    )


def _split_settings(recipe: BuildRecipe) -> SplitSettings:
    return SplitSettings(
        val=recipe.split.val,
        test=recipe.split.test,
        train_of_both=recipe.split.train_of_both,
        drop_exact=recipe.duplicates.exact_in_pretrain == "drop",
        drop_near=recipe.duplicates.near_in_pretrain == "drop",
    )
