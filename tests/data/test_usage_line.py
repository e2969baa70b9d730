"""A call that cannot be parsed gets one line, like every other error: what, where, what next; exit code 2."""

from __future__ import annotations

import pytest
import typer

from openus_data import cli as data_cli
from openus_data import commands as data_commands
from openus_model import cli as model_cli
from openus_model import commands as model_commands


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("bogus", "openus-data: no such command 'bogus'"),
        ("list --lisense x", "openus-data: list: no such option: --lisense"),
        ("fetch busi --jobs 99", "openus-data: fetch: invalid value for '--jobs'"),
        ("fetch busi --jobs many", "openus-data: fetch: invalid value for '--jobs'"),
        ("build busi", "openus-data: build: missing option '--out'"),
        ("cone", "openus-data: cone: missing argument 'PATH...'"),
        ("verify one two", "openus-data: verify: got unexpected extra argument"),
    ],
)
def test_one_line_says_what_where_and_what_next(capsys: pytest.CaptureFixture[str], call: str, line: str) -> None:
    assert data_commands.invoke(data_cli.app, call.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert err.rstrip().endswith("--help")
    command = line.split(":")[1].strip() if line.count(":") > 1 else ""
    assert f"see openus-data {command}".rstrip() in err


@pytest.mark.parametrize("call", ["bogus", "pretrain", "embed --weigts x", "bench speed"])
def test_the_other_program_does_the_same(capsys: pytest.CaptureFixture[str], call: str) -> None:
    assert model_commands.invoke(model_cli.app, call.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("openus-model: ")


@pytest.mark.parametrize(
    ("app", "invoke"), [(data_cli.app, data_commands.invoke), (model_cli.app, model_commands.invoke)]
)
def test_help_and_version_are_answers_and_no_command_shows_the_help(
    capsys: pytest.CaptureFixture[str], app: typer.Typer, invoke: object
) -> None:
    assert callable(invoke)
    for call in (["--help"], ["--version"]):
        assert invoke(app, call) == 0
        assert capsys.readouterr().out.startswith(("Usage:", "openus-"))
    assert invoke(app, []) == 2
    shown = capsys.readouterr()
    assert (shown.out + shown.err).startswith("Usage:")


def test_the_exit_code_of_a_command_comes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_commands.invoke(data_cli.app, ["show", "busi"]) == 0
    assert data_commands.invoke(data_cli.app, ["show", "no-such-id"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
