"""The loop: batches in, updates out. Knows a `Method`, not ultrasound.

Each step seeds the random numbers from (seed, step, rank), so that a resumed run goes on exactly as an uninterrupted
one with nothing saved but the step. A signal asks for a checkpoint at the next step's end; a loss that is not finite is
never applied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from openus_model import distributed
from openus_model.checkpoint import Checkpoint, rotate, save_checkpoint
from openus_model.contracts import Batch, Losses, Method
from openus_model.distributed import World
from openus_model.errors import DivergedError, WeightsError
from openus_model.figures import draw_step, write_figure
from openus_model.optimizer import Rates, clip_gradients, load_optimizer_tensors, optimizer_tensors, set_rates
from openus_model.recipe import EngineRecipe, OptimizerRecipe
from openus_model.track import Tracker

logger = logging.getLogger(__name__)

DIVERGED = "diverged.json"


class Stream(Protocol):
    """An endless source of batches with a position."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> Mapping[str, Any]:
        """The position."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position."""
        ...


@dataclass(slots=True, kw_only=True)
class Stop:
    """Whether a signal asked to stop, and which."""

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn SIGTERM (preemption) and the first SIGINT into a wish to stop; a second SIGINT interrupts at once."""
    stop = Stop()

    def ask(number: int, _frame: object) -> None:
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever owns it also owns its signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back for a moment; processes that start meanwhile hold them back for ever.

    For the stream's workers: a signal to the whole process group must reach the trainer alone, or a dying worker would
    interrupt the very step that the trainer wants to finish and save.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Args:
        step: updates done.
        first_row, last_row: first and last logged metrics of this process's part of the run.
        images: images seen in this part, over all processes.
        seconds: wall time of this part.
        signal: the signal that stopped it, or None.
        skipped: steps that were not finite.
    """

    step: int
    first_row: Mapping[str, float | int]
    last_row: Mapping[str, float | int]
    images: int
    seconds: float
    signal: int | None
    skipped: int


@dataclass(slots=True, kw_only=True)
class _Meter:
    """Time and images since the last logged row."""

    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    images: int = 0
    steps: int = 0

    def row(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return {
            "images_per_second": self.images / seconds,
            "step_seconds": seconds / max(self.steps, 1),
            "data_wait_share": self.waited / seconds,
        }


class Engine:
    """One run.

    Args:
        method: what is trained; an `nn.Module` whose forward is its step.
        stream: batches of this process.
        optimizer: over `method.trainable()`.
        rates: learning rate and weight decay of a step.
        world: where this process stands.
        recipe: the machine's side.
        clipping: of the optimizer's section.
        run: the run's folder.
        total: steps of the whole run.
        about: what goes into every checkpoint's state: recipe and versions.
    """

    def __init__(
        self,
        *,
        method: Method,
        stream: Stream,
        optimizer: AdamW,
        rates: Callable[[int], Rates],
        world: World,
        recipe: EngineRecipe,
        clipping: OptimizerRecipe,
        run: Path,
        total: int,
        about: Mapping[str, Any],
    ) -> None:
        self.method, self.stream, self.optimizer, self.rates = method, stream, optimizer, rates
        self.world, self.recipe, self.clipping = world, recipe, clipping
        self.run_folder, self.total, self.about, self.tracker = run, total, about, Tracker()
        self.step, self.skipped, self._in_a_row = 0, 0, 0
        self._saved_step = -1
        self._forward = _wrapped(cast(nn.Module, method), world)
        self._rows: list[dict[str, float | int]] = []

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            WeightsError: its tensors do not fit.
            DataError: the stream is of another corpus, seed or batch.
        """
        self.stream.load_state_dict(checkpoint.state["stream"])  # first: it knows another corpus by name
        try:
            cast(nn.Module, self.method).load_state_dict(dict(checkpoint.method))
        except RuntimeError as error:
            fault = str(error).split("\n")[1].strip()
            raise WeightsError("the checkpoint does not fit the method", got=fault) from None
        load_optimizer_tensors(self.optimizer, self.method.trainable(), checkpoint.optimizer)
        self.step = self._saved_step = checkpoint.step

    def run(self, tracker: Tracker) -> Outcome:
        """Train until the last step or a signal, and save.

        Args:
            tracker: where metrics go.

        Raises:
            DivergedError: more steps in a row were not finite than the recipe allows; the last good state is saved.
        """
        self.tracker = tracker
        started, first, meter, stop_signal = time.perf_counter(), self.step, _Meter(), None
        with stop_on_signals() as stop:
            batches = self._batches()
            while self.step < self.total:
                self._one_step(batches, meter)
                if self._due(self.recipe.log_every):
                    meter = _Meter()
                if distributed.any_of(stop.signal is not None, self.world.device):
                    stop_signal = stop.signal or signal.SIGTERM
                    break
                if self._due(self.recipe.checkpoint_every):
                    self.save()
            self.save(must=True)
        return Outcome(
            step=self.step,
            first_row=self._rows[0] if self._rows else {},
            last_row=self._rows[-1] if self._rows else {},
            images=(self.step - first) * self.recipe.batch_size,
            seconds=time.perf_counter() - started,
            signal=stop_signal,
            skipped=self.skipped,
        )

    def _due(self, every: int) -> bool:
        return bool(every) and (self.step % every == 0 or self.step == self.total)

    def _batches(self) -> Iterator[Batch]:
        """The stream's batches; its workers start with the first."""
        batches = iter(self.stream)
        with signals_held():
            first = next(batches)
        yield first
        yield from batches

    def one_step(self) -> None:
        """One step on its own, for a benchmark: nothing is logged or saved."""
        self._step_on(next(iter(self.stream)))

    def _one_step(self, batches: Iterator[Batch], meter: _Meter) -> None:
        asked = time.perf_counter()
        batch = next(batches)
        meter.waited += time.perf_counter() - asked
        losses, rates, norm = self._step_on(batch)
        meter.images += self.recipe.batch_size
        meter.steps += 1
        self._tell(losses, rates, norm, meter)

    def _step_on(self, batch: Batch) -> tuple[list[Losses], Rates, Tensor]:
        """Forward, backward, update; what the log needs."""
        batch = batch.to(self.world.device)
        torch.manual_seed(step_seed(self.recipe.seed, self.step, self.world.rank))
        rates = self.rates(self.step)
        set_rates(self.optimizer, rates)
        figure = bool(self.recipe.figure_every) and (self.step + 1) % self.recipe.figure_every == 0
        losses = self._backward(batch, pictures=figure and self.world.is_main)
        norm = clip_gradients(self.method.trainable().parameters(), self.clipping.clip, self.clipping.clip_rule)
        if self._is_finite(losses[-1].total, norm):
            self.optimizer.step()
            self.method.after_update(self.step)
            self._in_a_row = 0
        else:
            self._skip(batch, losses)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return losses, rates, norm

    def _backward(self, batch: Batch, *, pictures: bool) -> list[Losses]:
        """Forward and backward of each part of the batch; gradients meet between processes at the last part."""
        parts = split_batch(batch, self.recipe.accumulate)
        told = []
        for k, part in enumerate(parts):
            last = k == len(parts) - 1
            with self._unsynced(not last):
                with self._autocast():
                    losses: Losses = self._forward(part, self.step, pictures=pictures and last)
                (losses.total / len(parts)).backward()  # type: ignore[no-untyped-call]
            told.append(losses)
        return told

    def _unsynced(self, wanted: bool) -> AbstractContextManager[object]:
        if wanted and isinstance(self._forward, DistributedDataParallel):
            return cast(AbstractContextManager[object], self._forward.no_sync())
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _is_finite(self, loss: Tensor, norm: Tensor) -> bool:
        bad = ~(torch.isfinite(loss.detach()) & torch.isfinite(norm.to(loss.device)))
        return not distributed.any_of(bool(bad.item()), self.world.device)

    def _skip(self, batch: Batch, losses: list[Losses]) -> None:
        """Leave the step out; stop if it was one too many, with the last good state and the batch's ids saved."""
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row <= self.recipe.max_nonfinite:
            logger.warning("step %d is not finite and was skipped", self.step)
            return
        path = self.run_folder / (DIVERGED if self.world.size == 1 else f"diverged-rank{self.world.rank}.json")
        terms = {name: float(value) for part in losses for name, value in part.terms.items()}
        told = {"step": self.step, "sample_ids": batch.sample_ids, "terms": {k: str(v) for k, v in terms.items()}}
        path.write_text(json.dumps(told, indent=1) + "\n")
        self.save()
        raise DivergedError(
            "the loss or its gradient is not finite",
            where=f"step {self.step}",
            got=", ".join(f"{name} {value:.4g}" for name, value in terms.items()),
            next_step=f"sample ids are in {path.name}; lower optimizer.lr, or look at these images",
        )

    def _tell(self, losses: list[Losses], rates: Rates, norm: Tensor, meter: _Meter) -> None:
        if not self.world.is_main:
            return
        self.tracker.advance(self.step)
        if losses[-1].pictures:
            name = f"step-{self.step:08d}.png"
            write_figure(self.run_folder / "figures" / name, draw_step(losses[-1].pictures))
        if not self._due(self.recipe.log_every):
            return
        row: dict[str, float | int] = {"step": self.step, "loss": _mean([part.total for part in losses])}
        row |= {name: _mean([part.terms[name] for part in losses]) for name in losses[0].terms}
        row |= {"lr": rates.lr, "weight_decay": rates.weight_decay, **losses[-1].facts, "grad_norm": float(norm)}
        row |= {**meter.row(), "skipped": self.skipped}
        if self.world.device.type == "cuda":
            row["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.world.device) / 2**30
        self._rows = [*self._rows[:1], row]
        self.tracker.write(row)

    def save(self, *, must: bool = False) -> None:
        """Write a checkpoint of the current step and drop old ones; a full disk stops the run only where it `must`."""
        if self.step == self._saved_step:
            return
        if self.world.is_main:
            try:
                save_checkpoint(self.run_folder, self._checkpoint())
                rotate(self.run_folder, keep=self.recipe.keep, keep_every=self.recipe.keep_every)
            except OSError as error:
                logger.warning("no checkpoint at step %d: %s", self.step, error.strerror)
                if must:
                    raise
        self._saved_step = self.step
        distributed.barrier()

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            method=self.method.state_dict(),
            optimizer=optimizer_tensors(self.optimizer, self.method.trainable()),
            state={**self.about, "stream": {**self.stream.state_dict(), "step": self.step}},
        )


def _wrapped(method: nn.Module, world: World) -> nn.Module:
    """The method under DDP where there are several processes; unused norms and the teacher get no gradient."""
    if world.size == 1:
        return method
    return DistributedDataParallel(
        method,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        broadcast_buffers=False,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's random numbers on one process."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into equal parts along its images."""
    if parts == 1:
        return [batch]
    size = len(batch.sample_ids) // parts
    cuts = [slice(k * size, (k + 1) * size) for k in range(parts)]
    return [batch_rows(batch, cut) for cut in cuts]


def batch_rows(batch: Batch, cut: slice) -> Batch:
    """Some images of a batch; every field has images along its first axis."""
    fields: dict[str, Any] = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return Batch(**{name: cast(Any, value if value is None else value[cut]) for name, value in fields.items()})


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack([value.detach().float() for value in values]).mean())
