"""What a run tells, and to whom."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openus_model import track
from openus_model.errors import MissingExtra, UsageError
from openus_model.figures import draw_step, write_figure
from openus_model.recipe import load_recipe
from openus_model.track import Display, open_tracker

ROW = {"step": 2, "loss": 1.5, "cls": 1.0, "images_per_second": 10.0}


class _StandIn(types.SimpleNamespace):
    """The calls of Weights & Biases' client that a run makes; checked against the real one (0.31, offline) by hand."""

    def __init__(self, fault: str | None = None) -> None:
        self.calls: list[str] = []
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[dict[str, float], int]] = []
        self.fault, self.Settings = fault, dict

    def init(self, **options: Any) -> _StandIn:
        if self.fault:
            raise RuntimeError(self.fault)
        self.calls.append("init")
        self.begun.append(options)
        self.id = options["id"] or f"id-{len(self.begun)}"
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        self.calls.append("log")
        self.rows.append((row, step))

    def finish(self) -> None:
        self.calls.append("finish")


def test_rows_reach_the_log_and_tensorboard(tmp_path: Path) -> None:
    recipe = load_recipe("smoke", ("engine.tensorboard=true",)).to_dict()
    tracker = open_tracker(tmp_path, recipe=recipe, total=4, done=0, quiet=True)
    tracker.advance(2)
    tracker.write(ROW)
    tracker.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_sink_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    recipe = load_recipe("smoke", ("engine.wandb=mine",)).to_dict()
    with pytest.raises(MissingExtra, match="pip install wandb"):
        open_tracker(tmp_path, recipe=recipe, total=4, done=0, quiet=True)


def test_rows_reach_weights_and_biases_through_its_own_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _StandIn()
    monkeypatch.setitem(sys.modules, "wandb", client)
    recipe = load_recipe("smoke", ("engine.wandb=mine",)).to_dict()
    for _ in ("first", "resumed"):
        tracker = open_tracker(tmp_path, recipe=recipe, total=4, done=0, quiet=True)
        tracker.write(ROW)
        tracker.close()
    assert client.calls == ["init", "log", "finish"] * 2
    assert [run["project"] for run in client.begun] == ["mine", "mine"]
    assert client.begun[0]["config"]["name"] == "smoke"
    assert client.rows == [(ROW, 2)] * 2
    assert [run["id"] for run in client.begun] == [None, "id-1"], "a resumed run is one run there too"


def test_weights_and_biases_are_told_nothing_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _StandIn()
    monkeypatch.setitem(sys.modules, "wandb", client)
    recipe = load_recipe("smoke", ("engine.wandb=mine", "backbone.weights=/clinic/doe/run")).to_dict()
    assert "doe" in str(recipe)
    open_tracker(tmp_path, recipe=recipe, total=4, done=0, quiet=True).close()
    assert "doe" not in str(client.begun[0]["config"])
    settings = client.begun[0]["settings"]
    assert settings == {"console": "off", "host": "-", "program": "-", "x_disable_machine_info": True}


def test_a_client_that_cannot_start_is_one_line_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _StandIn(fault="no permission for /clinic/doe/run\nmore")
    monkeypatch.setitem(sys.modules, "wandb", client)
    recipe = load_recipe("smoke", ("engine.wandb=mine",)).to_dict()
    with pytest.raises(UsageError, match=r"got RuntimeError; wandb login, or WANDB_MODE=offline") as caught:
        open_tracker(tmp_path, recipe=recipe, total=4, done=0, quiet=True)
    assert "doe" not in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_terminal_there_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(track, "LINE_EVERY_S", 0.0)
    display = Display("smoke", total=4, done=0)
    with caplog.at_level(logging.INFO):
        display.write(ROW)
        display.close()
    assert "step 2 of 4, loss 1.5000" in caplog.text


def test_on_a_terminal_the_table_shows_every_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    display = Display("smoke", total=4, done=0)
    display.advance(2)
    display.write(ROW)
    display.close()
    shown = capsys.readouterr().err
    for word in ("smoke", "2/4", "loss", "images_per_second"):
        assert word in shown


def test_the_figure_has_a_row_per_image_and_shows_the_mask(tmp_path: Path) -> None:
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).repeat(2, 1, 1)
    image = torch.rand(2, 3, 64, 64)
    pictures = {
        "image": image, "reconstruction": torch.zeros(2, 3, 64, 64), "mask": mask,
        "attention": torch.rand(2, 2, 2), "difficulty": torch.rand(2, 2, 2),
    }  # fmt: skip
    drawn = draw_step(pictures)
    assert drawn.shape == (18 + 2 * 68, 5 * 64 + 4 * 4, 3)
    masked, rebuilt = drawn[18:82, 3 * 68 : 3 * 68 + 64], drawn[18:82, 4 * 68 : 4 * 68 + 64]
    assert (masked[:32, :32] == 90).all()
    assert (rebuilt[:32, :32] == 0).all()
    original = np.round(image[0].permute(1, 2, 0).numpy() * 255)
    np.testing.assert_array_equal(masked[32:], original[32:])
    write_figure(tmp_path / "figures" / "step.png", drawn)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["step.png"]
