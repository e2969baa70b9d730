"""The loop, with a method of two numbers in place of the real one."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openus_model import engine as module
from openus_model.checkpoint import checkpoints, load_checkpoint, newest_sound
from openus_model.contracts import Batch, Losses
from openus_model.distributed import World
from openus_model.engine import Engine, Outcome, split_batch, step_seed
from openus_model.errors import DivergedError
from openus_model.optimizer import Rates, build_adamw
from openus_model.recipe import EngineRecipe, OptimizerRecipe
from openus_model.track import JsonLines, Tracker


def make_batch(step: int, images: int = 4) -> Batch:
    value = torch.full((images, 2, 1, 32, 32), step + 1, dtype=torch.uint8)
    return Batch(
        global_BVCHW=value,
        local_BVCHW=value[:, :0],
        global_valid_BVHW=torch.ones(images, 2, 1, 1),
        local_valid_BVHW=torch.ones(images, 0, 1, 1),
        sample_ids=tuple(f"s{step}-{k}" for k in range(images)),
        sample_index_B=torch.arange(images),
    )


class ToyStream:
    def __init__(self, signals: Mapping[int, int] | None = None) -> None:
        self.step, self.signals = 0, dict(signals or {})

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self.step in self.signals:
                signal.raise_signal(self.signals.pop(self.step))
            yield make_batch(self.step)
            self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])


class ToyMethod(nn.Module):
    """Uses the global random state as dropout would; `bad` names steps whose loss is not a number."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.student = nn.Linear(2, 1)
        with torch.no_grad():
            self.student.weight.fill_(0.5)
            self.student.bias.fill_(0.1)
        self.register_buffer("updates", torch.zeros(()))
        self.bad = bad

    def step(self, batch: Batch, step: int, *, pictures: bool = False) -> Losses:
        return self(batch, step, pictures=pictures)

    def forward(self, batch: Batch, step: int, *, pictures: bool = False) -> Losses:
        x = batch.global_BVCHW.float().mean((2, 3, 4)) + torch.rand(len(batch.sample_ids), 2)
        loss = (self.student(x) - 1).square().mean()
        if step in self.bad:
            loss = loss * torch.nan
        return Losses(total=loss, terms={"toy": loss.detach()}, facts={"alpha": 0.5}, pictures={})

    def after_update(self, step: int) -> None:
        self.updates += 1

    def trainable(self) -> nn.Module:
        return self.student


def make_engine(run: Path, total: int = 6, *, method: ToyMethod | None = None, **changes: Any) -> Engine:
    signals = changes.pop("signals", None)
    recipe = EngineRecipe(
        **({"log_every": 1, "checkpoint_every": 2, "batch_size": 4, "precision": "fp32", "figure_every": 0} | changes)
    )
    method = method or ToyMethod()
    run.mkdir(exist_ok=True)
    return Engine(
        method=method,
        stream=ToyStream(signals),
        optimizer=build_adamw(method.student, rule="matrices", betas=(0.9, 0.999), eps=1e-8),
        rates=lambda step: Rates(lr=0.01, weight_decay=0.0),
        world=World(rank=0, size=1, device=torch.device("cpu")),
        recipe=recipe,
        clipping=OptimizerRecipe(),
        run=run,
        total=total,
        about={"recipe": {}},
    )


def train(engine: Engine) -> Outcome:
    return engine.run(Tracker([JsonLines(engine.run_folder / "metrics.jsonl", after_step=0)]))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_logs_saves_rotates_and_ends(tmp_path: Path) -> None:
    outcome = train(make_engine(tmp_path, keep=2))
    assert (outcome.step, outcome.images, outcome.signal, outcome.skipped) == (6, 24, None, 0)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "toy", "lr", "weight_decay", "alpha", "images_per_second", "data_wait_share", "grad_norm"} <= set(
        rows[0]
    )
    assert [step for step, _ in checkpoints(tmp_path)] == [6, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_steps_end_and_the_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, number: int
) -> None:
    whole = make_engine(tmp_path / "whole")
    train(whole)
    cut = make_engine(tmp_path / "cut", signals={3: number})
    outcome = train(cut)
    assert (outcome.step, outcome.signal) == (4, number)
    resumed = make_engine(tmp_path / "cut")
    resumed.restore(load_checkpoint(newest_sound(tmp_path / "cut")))
    assert train(resumed).step == 6
    for name, tensor in whole.method.state_dict().items():
        assert tensor.equal(resumed.method.state_dict()[name]), name


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(make_engine(tmp_path, total=1))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_not_finite_stops_with_the_samples_and_the_last_good_state_saved(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, method=ToyMethod(bad=(3,)))
    with pytest.raises(DivergedError, match=r"step 3.*toy nan.*diverged\.json"):
        train(engine)
    told = json.loads((tmp_path / "diverged.json").read_text())
    assert (told["step"], told["sample_ids"]) == (3, ["s3-0", "s3-1", "s3-2", "s3-3"])
    saved = load_checkpoint(newest_sound(tmp_path))
    assert saved.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in saved.method.values())


def test_single_bad_steps_are_skipped_and_counted_where_the_recipe_bears_them(tmp_path: Path) -> None:
    method = ToyMethod(bad=(1, 3))
    outcome = train(make_engine(tmp_path, method=method, max_nonfinite=1))
    assert (outcome.step, outcome.skipped) == (6, 2)
    assert method.updates == 4
    assert torch.isfinite(method.student.weight).all()
    assert rows_of(tmp_path)[1]["loss"] is None


def test_two_bad_steps_in_a_row_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="step 4"):
        train(make_engine(tmp_path, method=ToyMethod(bad=(3, 4)), max_nonfinite=1))


def test_a_full_disk_does_not_stop_training_until_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = module.save_checkpoint, []

    def fail_first(run: Path, checkpoint: Any) -> Path:
        calls.append(checkpoint.step)
        if checkpoint.step < 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(run, checkpoint)

    monkeypatch.setattr(module, "save_checkpoint", fail_first)
    assert train(make_engine(tmp_path)).step == 6
    assert calls == [2, 4, 6]
    assert [step for step, _ in checkpoints(tmp_path)] == [6]


def test_accumulated_parts_give_the_gradient_of_the_whole() -> None:
    method, batch = ToyMethod(), make_batch(0)
    whole = torch.autograd.grad(
        sum((method.student(b.global_BVCHW.float().mean((2, 3, 4))) - 1).square().mean() for b in split_batch(batch, 2))
        / 2,
        list(method.student.parameters()),
    )
    joint = torch.autograd.grad(
        (method.student(batch.global_BVCHW.float().mean((2, 3, 4))) - 1).square().mean(),
        list(method.student.parameters()),
    )
    for one, other in zip(whole, joint, strict=True):
        torch.testing.assert_close(one, other)


def test_cutting_a_batch_keeps_every_image_once() -> None:
    batch = dataclasses.replace(make_batch(0), row_B=tuple({"organ": str(k)} for k in range(4)))
    parts = split_batch(batch, 2)
    assert [part.sample_ids for part in parts] == [("s0-0", "s0-1"), ("s0-2", "s0-3")]
    assert parts[1].row_B == ({"organ": "2"}, {"organ": "3"})
    assert split_batch(batch, 1)[0] is batch


def test_the_seed_of_a_step_depends_on_step_and_rank() -> None:
    seeds = {step_seed(0, step, rank) for step in range(20) for rank in range(4)}
    assert len(seeds) == 80
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_resumed_log_drops_the_rows_that_will_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    log = JsonLines(path, after_step=2)
    log.write({"step": 3, "loss": 1.0})
    log.close()
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3]
