"""Schedules are pure, and equal to those of the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openus_model.schedules import Clock, cosine, linear_warmup, over_run, warmup_cosine


@pytest.mark.parametrize("steps_per_epoch", [5, 2416])
def test_rates_decay_and_momentum_equal_the_authors(fixtures_algorithm: Path, steps_per_epoch: int) -> None:
    expected = json.loads((fixtures_algorithm / "schedules.json").read_text())[f"niter{steps_per_epoch}"]
    clock = Clock(steps=151 * steps_per_epoch, epochs=151)
    assert clock.steps == expected["length"]
    for i, step in enumerate(expected["points"]):
        rate = warmup_cosine(step, peak=5e-4, end=1e-6, warmup=clock.steps_of(10), steps=clock.steps)
        decay = cosine(step, start=0.04, end=0.4, steps=clock.steps)
        momentum = cosine(step, start=0.996, end=1.0, steps=clock.steps)
        assert (rate, decay, momentum) == pytest.approx(
            (expected["lr"][i], expected["wd"][i], expected["momentum"][i]), rel=1e-9, abs=1e-15
        )


def test_temperatures_equal_the_authors(fixtures_algorithm: Path) -> None:
    expected = json.loads((fixtures_algorithm / "schedules.json").read_text())["teacher_patch_temp"]
    ours = [linear_warmup(epoch, start=0.04, end=0.07, epochs=30) for epoch in range(151)]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_alpha_and_the_chosen_share_equal_the_authors(fixtures_algorithm: Path) -> None:
    meta = json.loads(bytes(np.load(fixtures_algorithm / "parity_mask.npz")["meta"]))
    for row in meta["rows"]:
        epoch = row["epoch"]
        for shape in ("cosine", "linear"):
            ours = over_run(epoch, start=0.1, end=0.9, epochs=151, shape=shape)
            assert ours == pytest.approx(row[f"alpha_{shape}"], rel=1e-12)
        assert over_run(epoch, start=0.1, end=0.9, epochs=151, shape="linear") == pytest.approx(row["m_t"], rel=1e-12)


def test_every_step_belongs_to_an_epoch_also_when_epochs_are_not_whole() -> None:
    clock = Clock(steps=60, epochs=10)
    assert [clock.epoch(step) for step in (0, 5, 6, 59)] == [0, 0, 1, 9]
    odd = Clock(steps=7, epochs=2.5)
    epochs = [odd.epoch(step) for step in range(7)]
    assert epochs == sorted(epochs)
    assert (epochs[0], epochs[-1]) == (0, 2)


def test_a_constant_stays() -> None:
    assert over_run(70, start=0.3, end=0.9, epochs=151, shape="constant") == 0.3


def test_a_warm_up_of_one_step_starts_at_the_peak() -> None:
    assert warmup_cosine(0, peak=1.0, end=0.0, warmup=1, steps=10) == 1.0
