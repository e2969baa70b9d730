"""A pretraining run that is killed, preempted or refused, from shards to checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from openus_model.checkpoint import METHOD, OPTIMIZER, checkpoints, run_lock
from openus_model.cli import app
from openus_model.errors import DataError, LockedError, MissingExtra, RecipeError, UsageError, WeightsError
from openus_model.pretrain import pretrain
from openus_model.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FAST = ("engine.checkpoint_every=2", "engine.keep=10", "engine.figure_every=0")
CODE = "import sys; from openus_model.cli import main; main()"


def _toy() -> ModuleType:
    """The corpus writer that the trainer's own tests use."""
    spec = importlib.util.spec_from_file_location("toy_corpus", ROOT / "tests" / "model" / "conftest.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _toy().write_corpus(tmp_path_factory.mktemp("out"), 14, size=96)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    report = pretrain("smoke", corpus, run, FAST, quiet=True)
    assert (report.steps, report.total, report.exit_code, report.stopped_by) == (6, 6, 0, None)
    return run


def _rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _start(corpus: Path, run: Path, *options: str) -> subprocess.Popen[str]:
    sets = [part for option in (*FAST, *options) for part in ("--set", option)]
    command = [
        sys.executable,
        "-c",
        CODE,
        "pretrain",
        "smoke",
        "--data",
        str(corpus),
        "--out",
        str(run),
        *sets,
        "--json",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes)


def _wait(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not ready() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert ready(), process.communicate()[1] if process.poll() is not None else "nothing happened"


def _assert_equal_runs(run: Path, whole: Path) -> None:
    for name in (METHOD, OPTIMIZER):
        path = f"checkpoints/step-00000006/{name}"
        ours, theirs = load_file(run / path), load_file(whole / path)
        assert set(ours) == set(theirs)
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=0, atol=0, equal_nan=True, msg=key)
    clock = ("images_per_second", "step_seconds", "data_wait_share")
    plain = [[{k: v for k, v in row.items() if k not in clock} for row in _rows(r)] for r in (run, whole)]
    assert plain[0] == plain[1]


def test_a_run_killed_at_any_step_goes_on_to_the_same_bits_also_with_other_workers(
    corpus: Path, whole: Path, tmp_path: Path
) -> None:
    process = _start(corpus, tmp_path / "run")
    _wait(lambda: len(_rows(tmp_path / "run")) >= 3, process)
    process.kill()
    process.communicate()
    assert max(step for step, _ in checkpoints(tmp_path / "run")) < 6
    report = pretrain("smoke", corpus, tmp_path / "run", (*FAST, "data.workers=1"), resume=True, quiet=True)
    assert report.resumed_from in (2, 4)
    _assert_equal_runs(tmp_path / "run", whole)


def test_preemption_saves_and_exits_with_0_and_the_run_goes_on(corpus: Path, whole: Path, tmp_path: Path) -> None:
    process = _start(corpus, tmp_path / "run", "engine.checkpoint_every=100", "data.workers=1")
    _wait(lambda: len(_rows(tmp_path / "run")) >= 1, process)
    os.killpg(process.pid, signal.SIGTERM)  # the whole group, as schedulers do: the worker must not die of it
    answer, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    told = json.loads(answer)
    assert told["stopped_by"] == "SIGTERM"
    assert 1 <= told["steps"] < 6
    report = pretrain("smoke", corpus, tmp_path / "run", FAST, resume=True, quiet=True)
    assert report.resumed_from == told["steps"]
    _assert_equal_runs(tmp_path / "run", whole)


def test_a_torn_checkpoint_falls_back_to_the_one_before(corpus: Path, whole: Path, tmp_path: Path) -> None:
    pretrain("smoke", corpus, tmp_path / "run", FAST, quiet=True)
    (tmp_path / "run" / "checkpoints" / "step-00000006" / METHOD).write_bytes(b"torn")
    report = pretrain("smoke", corpus, tmp_path / "run", FAST, resume=True, quiet=True)
    assert report.resumed_from == 4
    _assert_equal_runs(tmp_path / "run", whole)


def test_a_run_without_a_sound_checkpoint_is_not_taken_for_a_new_one(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "step-00000002").mkdir(parents=True)
    with pytest.raises(UsageError, match="no checkpoint is sound"):
        pretrain("smoke", corpus, tmp_path / "run", FAST, resume=True, quiet=True)


def test_a_finished_run_resumed_does_nothing(corpus: Path, whole: Path) -> None:
    report = pretrain("smoke", corpus, whole, FAST, resume=True, quiet=True)
    assert (report.resumed_from, report.steps, report.images) == (6, 6, 0)


def test_a_folder_that_holds_a_run_is_not_written_over(corpus: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        pretrain("smoke", corpus, whole, FAST, quiet=True)


def test_a_recipe_that_changed_is_refused_and_names_the_key(corpus: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match=r"optimizer\.lr"):
        pretrain("smoke", corpus, whole, (*FAST, "optimizer.lr=0.5"), resume=True, quiet=True)


def test_another_corpus_is_refused(whole: Path, tmp_path: Path) -> None:
    other = _toy().write_corpus(tmp_path / "other", 16, size=96)
    with pytest.raises(DataError, match="another"):
        pretrain("smoke", other, whole, FAST, resume=True, quiet=True)


def test_a_held_folder_is_refused(corpus: Path, tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"), pytest.raises(LockedError):
        pretrain("smoke", corpus, tmp_path / "run", FAST, quiet=True)


@pytest.mark.parametrize(
    ("override", "error", "word"),
    [
        ("engine.sed=1", RecipeError, "seed"),
        ("engine.accumulate=3", UsageError, "multiple of 3"),
        ("data.where=\"organ = 'nose'\"", DataError, "no sample left"),
        ("data.where=\"organs = 'breast'\"", UsageError, "organ"),
        ("data.split=test", DataError, "test"),
        ("backbone.weights=nowhere", WeightsError, "nowhere"),
        ("engine.wandb=mine", MissingExtra, "pip install wandb"),
        pytest.param(
            "engine.device=cuda", UsageError, "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_leaves_nothing_behind(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, error: type[Exception], word: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(error, match=word):
        pretrain("smoke", corpus, tmp_path / "runs" / "run", (*FAST, override), quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_runs_folder_should_be_is_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match="--out: cannot make the run's folder; got File exists"):
        pretrain("smoke", corpus, tmp_path / "run", FAST, quiet=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_corpus_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-corpus"):
        pretrain("smoke", tmp_path / "no-corpus", tmp_path / "runs" / "run", FAST, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_condition_on_the_command_line_is_the_recipes_own(corpus: Path, tmp_path: Path) -> None:
    condition = "organ = 'breast' and dataset != 'a: b # c'"  # what YAML would take apart
    sets = [part for option in FAST for part in ("--set", option)]
    run = tmp_path / "run"
    arguments = ["pretrain", "smoke", "--data", str(corpus), "--out", str(run), "--where", condition, "--json", *sets]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, json.loads(done.stdout)["steps"]) == (0, 6), done.output
    assert load_recipe(run / "recipe.yaml").data.where == condition
