"""Two processes that share a batch end with the weights of one that has it all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openus_model import distributed
from openus_model.errors import UsageError
from openus_model.pretrain import pretrain

STEPS = ("schedule.steps=3", "schedule.epochs=3", "schedule.warmup_epochs=1", "schedule.freeze_prototypes_epochs=0")
OPTIONS = (*STEPS, "optimizer.lr=1e-3", "engine.figure_every=0", "engine.checkpoint_every=100", "engine.log_every=1")
CODE = (
    "import sys; from openus_model.pretrain import pretrain as p; p('smoke', *sys.argv[1:3], sys.argv[3:], quiet=True)"
)
PAIR = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")


def _on_two_processes(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(distributed.__file__).parents[1]),
        "PYTHONFAULTHANDLER": "1",  # a rank was once ended by SIGABRT, and nothing said where
    }
    done = subprocess.run(
        [*PAIR, sys.executable, *command], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return done


def _assert_close(one: Path, two: Path) -> None:
    ours, theirs = (load_file(run / "checkpoints" / "step-00000003" / "method.safetensors") for run in (one, two))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            theirs[name], tensor, rtol=1e-5, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_one_process_needs_no_group() -> None:
    value = torch.ones(2, requires_grad=True)
    assert distributed.world_size() == 1
    assert distributed.rank() == 0
    assert distributed.gather_rows_with_gradient(value) is value
    assert not distributed.any_of(False, torch.device("cpu"))
    assert distributed.total(value).equal(value.detach())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"engine\.device"), distributed.join_world("cuda"):
        pass


@pytest.mark.parametrize(
    "extra",
    [
        ("losses.koleo=0.1", "masking.inside_share=0.5"),
        ("losses.centring=sinkhorn", "masking.difficulty=same_step", "engine.accumulate=1"),
    ],
)
def test_two_processes_equal_one_with_the_joint_batch(make_corpus, tmp_path: Path, extra: tuple[str, ...]) -> None:
    corpus = make_corpus(12, size=96)
    pretrain("smoke", corpus, tmp_path / "one", (*OPTIONS, *extra), quiet=True)
    _on_two_processes("-c", CODE, str(corpus), str(tmp_path / "two"), *OPTIONS, *extra)
    _assert_close(tmp_path / "one", tmp_path / "two")


def test_torchrun_gives_one_answer_and_one_process_may_finish_what_two_began(make_corpus, tmp_path: Path) -> None:
    corpus = make_corpus(12, size=96)
    options = [*OPTIONS, "engine.checkpoint_every=2"]
    sets = [part for option in options for part in ("--set", option)]
    run = tmp_path / "run"
    done = _on_two_processes(
        "-m", "openus_model.cli", "pretrain", "smoke", "--data", str(corpus), "--out", str(run), "--json", *sets
    )
    assert json.loads(done.stdout)["steps"] == 3
    assert "Grad strides" not in done.stderr
    pretrain("smoke", corpus, tmp_path / "whole", options, quiet=True)
    _assert_close(tmp_path / "whole", run)
    shutil.rmtree(run / "checkpoints" / "step-00000003")
    report = pretrain("smoke", corpus, run, options, resume=True, quiet=True)
    assert (report.resumed_from, report.steps) == (2, 3)
    _assert_close(tmp_path / "whole", run)
