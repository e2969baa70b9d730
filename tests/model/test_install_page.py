"""The page on installing for CUDA against what pyproject.toml and the Makefile say."""

from __future__ import annotations

import tomllib
from pathlib import Path

from openus_model import cuda_check

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/install-cuda.md").read_text()


def _blocks() -> list[list[str]]:
    return [block.strip().splitlines() for block in PAGE.split("```")[1::2]]


def test_the_page_lists_the_extras_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["mamba"] in _blocks()


def test_the_two_step_install_takes_what_the_extra_takes_and_switches_isolation_off():
    (steps,) = [block for block in _blocks() if any("MAMBA_KEEP_CUDA_BUILD" in line for line in block)]
    tools = [
        line
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["mamba"]
        if line.isalpha()
    ]
    assert all(tool in steps[0].split() for tool in tools)
    assert "--no-build-isolation" in steps[1] and '"openus[mamba]"' in steps[1]


def test_make_cuda_check_runs_the_check_that_the_page_names():
    rule = (ROOT / "Makefile").read_text().split("cuda-check:")[-1]
    assert f"-m {cuda_check.__name__}" in rule.splitlines()[1]
    assert "make cuda-check" in PAGE and f"python -m {cuda_check.__name__}" in PAGE
