"""The check for GPU machines, run on the CPU through the same interface."""

from __future__ import annotations

import json

import pytest
import torch

from openus_model import cuda_check as module
from openus_model.cuda_check import cuda_check, main

NANO = ["--device", "cpu", "--backbone", "vmamba_nano", "--image", "64", "--batch", "2"]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "SHAPES", ((2, 4, 4, 1, 49), (1, 2, 3, 2, 61)))


def test_the_cpu_backend_agrees_and_repeats(capsys):
    assert main([*NANO, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (check,) = report["checks"]
    assert check["backend"] == "cpu" and check["repeats_to_the_bit"] and report["agrees"] == {"cpu": True}
    assert check["error_float32"] < 1e-5 and check["train_images_per_s"] > 0


def test_the_text_is_a_table_for_the_docs(capsys):
    assert main(NANO) == 0
    assert "| cpu | " in capsys.readouterr().out


def test_a_backend_that_is_wrong_fails_the_check(monkeypatch, capsys):
    right = module.scan_groups
    wrong = lambda *x: right(*x) * (1.001 if x[-1] == "cpu" else 1)  # noqa: E731
    monkeypatch.setattr(module, "scan_groups", wrong)
    assert main(NANO) == 1
    assert "WRONG: cpu" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_no_gpu_is_said_in_one_line(capsys):
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no CUDA device" in said.err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_installed_backend_agrees_on_the_gpu():
    report = cuda_check(backbone="vmamba_nano", image_px=64, batch=2)
    assert report.exit_code == 0, report.to_text()
