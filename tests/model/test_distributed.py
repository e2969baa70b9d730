"""Two processes that share a batch end with the weights of one that has it all."""

from __future__ import annotations

import os
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
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command += [sys.executable, "-c", CODE, str(corpus), str(tmp_path / "two"), *OPTIONS, *extra]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(distributed.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    path = "checkpoints/step-00000003/method.safetensors"
    one, two = load_file(tmp_path / "one" / path), load_file(tmp_path / "two" / path)
    assert set(one) == set(two)
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-5, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
