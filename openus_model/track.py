"""What a run tells: metrics.jsonl always, TensorBoard and Weights & Biases on request, a live display on a terminal.

Only the main process has a tracker that does anything.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from openus_model.errors import MissingExtra, UsageError

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
WANDB_ID = "wandb-id"
Row = Mapping[str, float | int]
LINE_EVERY_S = 60.0


class Sink(Protocol):
    """Somewhere that metrics go."""

    def write(self, row: Row) -> None:
        """Take one row; `step` is among its keys."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class JsonLines:
    """RUN/metrics.jsonl, a row per logged step.

    Args:
        path: the file; rows of steps above `after_step`, which a resumed run will make again, are cut off.
        after_step: updates done before this run goes on.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= after_step]
        aside = path.with_name(f".{path.name}.part")
        aside.write_text("".join(f"{line}\n" for line in kept))
        aside.replace(path)
        self._path = path

    def write(self, row: Row) -> None:
        """Append a row; what is not finite becomes null, which JSON has."""
        plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with self._path.open("a") as handle:
            handle.write(json.dumps(plain) + "\n")

    def close(self) -> None:
        """Nothing is open."""


def _whole_lines(path: Path) -> list[str]:
    """Lines that are whole JSON: a killed run may have cut the last one."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            break
        lines.append(line)
    return lines


class TensorBoard:
    """RUN/tensorboard."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        self._writer: Any = _client("tensorboard").SummaryWriter(
            str(folder), purge_step=after_step + 1 if after_step else None
        )

    def write(self, row: Row) -> None:
        """One scalar per column."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A project at Weights & Biases: metrics and recipe, no path, nothing of the machine, its command line or output.

    Args:
        project: its name there.
        recipe: resolved, as `to_dict` gives it.
        folder: of the run; a resumed one goes on under the id that is kept in it.

    Raises:
        MissingExtra: the client is not installed.
        UsageError: the client cannot start, for want of a login or a network.
    """

    def __init__(self, project: str, recipe: Mapping[str, Any], folder: Path) -> None:
        client, kept = _client("wandb"), folder / WANDB_ID
        try:
            self._run: Any = client.init(
                project=project,
                name=recipe["name"],
                id=kept.read_text().strip() if kept.is_file() else None,
                config={**recipe, "backbone": {k: v for k, v in recipe["backbone"].items() if k != "weights"}},
                dir=str(folder),
                resume="allow",
                settings=client.Settings(console="off", host="-", program="-", x_disable_machine_info=True),
            )
        except Exception as error:  # the client raises what it likes
            raise UsageError(
                "Weights & Biases cannot start",
                where="engine.wandb",
                got=type(error).__name__,
                next_step="wandb login, or WANDB_MODE=offline, or leave engine.wandb out",
            ) from None
        kept.write_text(f"{self._run.id}\n")

    def write(self, row: Row) -> None:
        """Send a row."""
        self._run.log(dict(row), step=int(row["step"]))

    def close(self) -> None:
        """Wait until it is sent."""
        self._run.finish()


_CLIENTS = {
    "tensorboard": ("torch.utils.tensorboard", "pip install tensorboard, or --set engine.tensorboard=false"),
    "wandb": ("wandb", "pip install wandb, or leave engine.wandb out"),
}
"""Sinks that are someone else's: the module behind each key of the recipe, and what to do without it."""


def _client(name: str) -> Any:
    module, next_step = _CLIENTS[name]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(f"{name} is not installed", next_step=next_step) from None


def check_sinks(recipe: Mapping[str, Any]) -> None:
    """Refuse what `open_tracker` would refuse, before any file is made.

    Args:
        recipe: resolved, as `to_dict` gives it.

    Raises:
        MissingExtra: a sink that the recipe asks for is not installed.
    """
    for name in _CLIENTS:
        if recipe["engine"][name]:
            _client(name)


class Display:
    """A live table on a terminal; elsewhere a line a minute through the logger.

    Args:
        title: name of the recipe.
        total: steps of the run.
        done: steps already done.
        quiet: show nothing.
    """

    def __init__(self, title: str, *, total: int, done: int, quiet: bool = False) -> None:
        self._total, self._last_line, self._live = total, time.monotonic(), None
        self._quiet = quiet
        if quiet or not sys.stderr.isatty():
            return
        self._bar = Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn()
        )
        self._task = self._bar.add_task(title, total=total, completed=done)
        self._live = Live(self._bar, console=Console(stderr=True), refresh_per_second=4)
        self._live.start()

    def advance(self, step: int) -> None:
        """Say how many steps are done."""
        if self._live:
            self._bar.update(self._task, completed=step)

    def write(self, row: Row) -> None:
        """Show a row."""
        if self._live:
            self._live.update(Group(self._bar, _table(row)))
        elif not self._quiet and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            logger.info(
                "step %d of %d, loss %.4f, %.1f images/s",
                row["step"],
                self._total,
                row["loss"],
                row["images_per_second"],
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._live.stop()


def _table(row: Row) -> Table:
    """Name and value, two pairs side by side."""
    table = Table.grid(padding=(0, 2))
    shown = [(name, f"{value:.4g}") for name, value in row.items() if name != "step"]
    half = (len(shown) + 1) // 2
    for left, right in zip(shown[:half], [*shown[half:], ("", "")], strict=False):
        table.add_row(*left, *right)
    return table


class Tracker:
    """All sinks of a run as one.

    Args:
        sinks: where rows go; empty on every process but the main one.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)

    def write(self, row: Row) -> None:
        """Hand a row to every sink."""
        for sink in self._sinks:
            sink.write(row)

    def advance(self, step: int) -> None:
        """Tell the display how far the run is."""
        for sink in self._sinks:
            if isinstance(sink, Display):
                sink.advance(step)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


def open_tracker(run: Path, *, recipe: Mapping[str, Any], total: int, done: int, quiet: bool) -> Tracker:
    """The main process's tracker.

    Args:
        run: the run's folder.
        recipe: resolved, as `to_dict` gives it.
        total: steps of the run.
        done: steps already done.
        quiet: no display.

    Raises:
        MissingExtra, UsageError: a sink that the recipe asks for is not installed, or cannot start.
    """
    engine = recipe["engine"]
    sinks: list[Sink] = [JsonLines(run / METRICS, after_step=done)]
    if engine["wandb"]:
        sinks.append(WeightsAndBiases(engine["wandb"], recipe, run))
    if engine["tensorboard"]:
        sinks.append(TensorBoard(run / "tensorboard", after_step=done))
    sinks.append(Display(recipe["name"], total=total, done=done, quiet=quiet))
    return Tracker(sinks)
