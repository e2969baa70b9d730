"""How every command ends: one answer on standard output, talk on standard error, an exit code; never a traceback.

Shared by nothing but `cli`; kept apart from it so that `cli` is only a list of commands.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import typer

from openus_data.errors import OpenUSDataError, UsageError

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
# What typer raises for a call that it cannot parse: a class of click's, which newer versions of typer carry themselves.
_UNPARSED: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])


class Report(Protocol):
    """What a command's library call returns."""

    @property
    def exit_code(self) -> int:
        """0 done, 1 some work failed or faults were found."""
        ...

    def to_json(self) -> Mapping[str, Any]:
        """The answer for machines."""
        ...

    def to_text(self) -> str:
        """The answer for people."""
        ...


def answer(report: Report, *, as_json: bool) -> int:
    """Print a report on standard output and give its exit code."""
    text = json.dumps(report.to_json(), sort_keys=True, ensure_ascii=False) if as_json else report.to_text()
    if text:
        sys.stdout.write(text + "\n")
    return report.exit_code


def invoke(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Parse a command line and run its command to an exit code; what cannot be parsed gets one line, like every error.

    Args:
        app: the commands.
        arguments: those of this program if None.
    """
    try:
        code = app(args=arguments, prog_name="openus-data", standalone_mode=False)
    except _UNPARSED as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error}\n")
            return EXIT_USAGE
        return _say(_unparsed_line(error), EXIT_USAGE)
    return code if isinstance(code, int) else EXIT_DONE


def _unparsed_line(error: Any) -> str:
    """What, where and the next step of a call that typer cannot parse."""
    what = " ".join(error.format_message().split()).rstrip(".")
    what = what[:1].lower() + what[1:]
    path = error.ctx.command_path if getattr(error, "ctx", None) else "openus-data"
    where = path.partition(" ")[2]
    return f"{where}: {what}; see {path} --help" if where else f"{what}; see {path} --help"


def run(command: Callable[[], int]) -> int:
    """Run a command to its exit code, with every error as one line on standard error."""
    try:
        return command()
    except UsageError as error:
        return _say(str(error), EXIT_USAGE)
    except OpenUSDataError as error:
        return _say(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        exec("")  # an interrupt inside exec(), as of a dataclass, else ends `python -m` by the signal, not by our code
        return _say("interrupted; run the same command again to go on", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough: nothing more to say, nor to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except MemoryError:
        return _say("out of memory; use fewer --workers", EXIT_FAILED)
    except OSError as error:
        # The message of an OSError holds the path, which may be a patient's name: the code's text alone is shown.
        return _say(
            f"{os.strerror(error.errno) if error.errno else type(error).__name__} ({_place(error)})", EXIT_FAILED
        )
    except Exception as error:
        return _say(
            f"a fault in openus-data itself: {type(error).__name__} at {_place(error)}; please report it", EXIT_FAILED
        )


def _say(line: str, code: int) -> int:
    sys.stderr.write(f"openus-data: {line}\n")
    return code


def _place(error: BaseException) -> str:
    """Module and line of our own code that raised; never a value, which could name a patient."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "openus_data" in f.filename]
    if not frames:
        return "an unknown place"
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
