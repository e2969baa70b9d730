"""The command lines keep the contract's promises about help, errors and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from openus_data import cli as data_cli
from openus_model import cli as model_cli

COMMANDS = [
    (name, command)
    for name, module in (("openus_data", data_cli), ("openus_model", model_cli))
    for command in sorted(typer.main.get_command(module.app).commands)  # type: ignore[attr-defined]
]


def run(package: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line as a user does."""
    return subprocess.run([sys.executable, "-m", f"{package}.cli", *arguments], capture_output=True, text=True, cwd=cwd)


def test_every_command_of_the_contract_exists() -> None:
    data = {
        "list",
        "show",
        "unpack",
        "check-card",
        "fetch",
        "build",
        "audit",
        "verify",
        "preview",
        "query",
        "cone",
        "deid",
    }
    model = {"pretrain", "evaluate", "embed", "masks", "export", "import-weights", "describe", "plan", "bench"}
    assert {c for p, c in COMMANDS if p == "openus_data"} == data
    assert {c for p, c in COMMANDS if p == "openus_model"} == model


@pytest.mark.parametrize(("package", "command"), COMMANDS)
def test_help_says_what_a_command_does_with_an_example(package: str, command: str) -> None:
    group = typer.main.get_command((data_cli if package == "openus_data" else model_cli).app)
    found = group.commands[command]  # type: ignore[attr-defined]
    assert found.help and found.epilog and found.epilog.startswith(f"Example: {package.replace('_', '-')} {command}")


@pytest.mark.parametrize("package", ["openus_data", "openus_model"])
def test_a_misspelt_command_exits_with_two_and_names_the_nearest(package: str) -> None:
    answer = run(package, "shwo" if package == "openus_data" else "pretrian")
    assert answer.returncode == 2 and "Did you mean" in answer.stderr and not answer.stdout


def test_bad_input_gets_one_line_and_the_documented_exit_code(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "recipe.yaml").write_text("shrads: {}\n")
    cases = [
        (("show", "no_such_dataset"), 2, "no_such_dataset"),
        (("fetch", "no_such_dataset", "--root", "r"), 2, "no_such_dataset"),
        (("build", "--images", "empty", "--name", "mine", "--out", "o", "--root", "r"), 1, ""),
        (("build", "pydicom-us", "--recipe", "recipe.yaml", "--out", "o", "--root", "r"), 2, "shards"),
        (("verify", "nowhere"), 2, "build"),
    ]
    for arguments, code, word in cases:
        answer = run("openus_data", *arguments, cwd=tmp_path)
        assert answer.returncode == code, (arguments, answer)
        assert word in answer.stderr and "Traceback" not in answer.stderr, (arguments, answer)
        assert len(answer.stderr.strip().splitlines()) <= 2, (arguments, answer)


@pytest.mark.parametrize("package", ["openus_data", "openus_model"])
def test_an_interrupt_in_the_middle_of_an_import_is_130_too(tmp_path: Path, package: str) -> None:
    (tmp_path / "interrupted.py").write_text(
        f"import sys; from {package}.commands import run\n"
        "def importing(): exec('raise KeyboardInterrupt')\n"  # what dataclasses run to make their methods
        "sys.exit(run(importing))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(data_cli.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr.count("\n")) == (130, 1), done.stderr
