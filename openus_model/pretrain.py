"""`openus-model pretrain` as a library call.

report = pretrain("quickstart", data="OUT", out="RUN")

RUN/recipe.yaml, metrics.jsonl, checkpoints/step-<8 digits>/, tensorboard/, figures/, seen.parquet
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from openus_model.assemble import build_engine, build_stream, changed_keys, make_clock
from openus_model.checkpoint import Checkpoint, checkpoints, load_checkpoint, newest_sound, run_lock
from openus_model.distributed import World, barrier, join_world
from openus_model.engine import Engine, Outcome
from openus_model.errors import UsageError
from openus_model.hub import locate
from openus_model.recipe import PretrainRecipe, load_recipe
from openus_model.seen import write_seen
from openus_model.stream import ShardStream
from openus_model.track import Tracker, check_sinks, open_tracker

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainReport:
    """How a run went.

    Args:
        run: its folder.
        recipe: name of the recipe.
        steps: updates done, of `total`.
        resumed_from: step that this part began at.
        images: images seen in this part, over all processes.
        images_per_second: over this part, start and saving included.
        first_loss, last_loss: first and last logged in this part; None where nothing was logged.
        checkpoint: folder of the newest checkpoint.
        stopped_by: name of the signal that stopped it early, or None.
        skipped: steps that were not finite.
        unreadable: samples that could not be read, each named in the log and replaced by another.
        is_main: whether this process speaks for all; the others of a torchrun have nothing to say.
    """

    run: str
    recipe: str
    steps: int
    total: int
    resumed_from: int
    images: int
    images_per_second: float
    first_loss: float | None
    last_loss: float | None
    checkpoint: str | None
    stopped_by: str | None
    skipped: int
    unreadable: int = 0
    is_main: bool = True

    @property
    def exit_code(self) -> int:
        """0 when done or preempted (SIGTERM; `--resume` goes on), 130 when interrupted by hand."""
        return 130 if self.stopped_by == "SIGINT" else 0

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)

    def to_text(self) -> str:
        """A few lines for a person; nothing from any process but the main one."""
        if not self.is_main:
            return ""
        losses = "" if self.first_loss is None else f", loss {self.first_loss:.4f} -> {self.last_loss:.4f}"
        lines = [
            f"{self.recipe}: {self.steps} of {self.total} steps, {self.images} images "
            f"at {self.images_per_second:.1f}/s{losses}",
            f"checkpoint  {self.checkpoint}",
            f"metrics     {self.run}/metrics.jsonl",
        ]
        if self.unreadable:
            lines.append(f"{self.unreadable} samples could not be read; run openus-data verify")
        if self.stopped_by:
            lines.append(f"stopped by {self.stopped_by}; go on with --resume")
        return "\n".join(lines)


def pretrain(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    *,
    quiet: bool = False,
) -> PretrainReport:
    """Pretrain a backbone on shards; under torchrun, this is one of several processes. A refused call leaves no folder.

    Args:
        recipe: name of a recipe, or a YAML file.
        data: an OUT that `openus-data build` made.
        out: the run's folder, made if it is not there.
        overrides: `section.key=value`, in order.
        resume: go on from the newest sound checkpoint in `out`; start anew where there is none.
        quiet: no display.

    Raises:
        RecipeError, UsageError: the recipe, or the folder, cannot be used as asked.
        LockedError: another run holds the folder.
        DataError: the shards cannot be read.
        DivergedError: the loss is not finite.
    """
    resolved = load_recipe(recipe, overrides)
    run = Path(out)
    check_sinks(resolved.to_dict())
    with _machine(resolved), join_world(resolved.engine.device) as world:
        stream = build_stream(resolved, data, world)
        clock = make_clock(resolved, len(stream))
        engine = build_engine(resolved, stream, clock=clock, samples=len(stream.corpus), world=world, run=run)
        with _alone(run, world):  # makes the folder: whatever else can be refused was refused above
            saved = _find_start(run, resolved, resume)
            barrier()
            return _run(resolved, stream, engine, world, saved, quiet)


def _run(
    recipe: PretrainRecipe, stream: ShardStream, engine: Engine, world: World, saved: Checkpoint | None, quiet: bool
) -> PretrainReport:
    if saved is not None:
        engine.restore(saved)
    run, done, tracker = engine.run_folder, engine.step, Tracker()
    if world.is_main:
        (run / RECIPE).write_text(recipe.to_yaml())
        start = recipe.backbone.weights
        write_seen(run, stream.corpus, before=locate(start) if start else None)
        tracker = open_tracker(run, recipe=recipe.to_dict(), total=engine.total, done=done, quiet=quiet)
    try:
        outcome = engine.run(tracker)
    finally:
        tracker.close()
    report = _report(recipe, run, outcome, total=engine.total, resumed_from=done, is_main=world.is_main)
    return replace(report, unreadable=len(stream.skipped))


def _report(
    recipe: PretrainRecipe, run: Path, outcome: Outcome, *, total: int, resumed_from: int, is_main: bool
) -> PretrainReport:
    newest = newest_sound(run) if is_main else None
    return PretrainReport(
        run=str(run),
        recipe=recipe.name,
        steps=outcome.step,
        total=total,
        resumed_from=resumed_from,
        images=outcome.images,
        images_per_second=outcome.images / max(outcome.seconds, 1e-9),
        first_loss=outcome.first_row.get("loss"),
        last_loss=outcome.last_row.get("loss"),
        checkpoint=str(newest) if newest else None,
        stopped_by=signal.Signals(outcome.signal).name if outcome.signal else None,
        skipped=outcome.skipped,
        is_main=is_main,
    )


def _find_start(run: Path, recipe: PretrainRecipe, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from.

    Raises:
        UsageError: there are checkpoints and nobody asked to resume, none of them is sound, or the recipe has changed.
    """
    if not checkpoints(run):
        return None
    if not resume:
        raise UsageError("the folder holds a run", where=run.name, next_step="add --resume, or use another --out")
    newest = newest_sound(run)
    if newest is None:
        raise UsageError("no checkpoint is sound", where=run.name, next_step="start anew with another --out")
    saved = load_checkpoint(newest)
    changed = changed_keys(saved.state["recipe"], recipe.to_dict())
    if changed:
        raise UsageError(
            f"the recipe has changed since {newest.name}",
            where=changed[0],
            next_step="resume with the recipe in RUN/recipe.yaml, or start anew with another --out",
        )
    logger.info("going on from %s", newest.name)
    return saved


@contextmanager
def _alone(run: Path, world: World) -> Iterator[None]:
    """The folder's lock, held by the main process."""
    if not world.is_main:
        yield
        return
    with run_lock(run):
        yield


@contextmanager
def _machine(recipe: PretrainRecipe) -> Iterator[None]:
    """Threads, determinism and random state for the run, put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if recipe.engine.threads is not None:
        torch.set_num_threads(recipe.engine.threads)
    if recipe.engine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # DDP's advice on depthwise kernels, whose two layouts are the same bytes
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
