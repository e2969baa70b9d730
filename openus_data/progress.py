"""Progress for people: bars on a terminal, silence elsewhere, everything on standard error.

with Progress("build", total=120, quiet=False) as progress:
    progress.advance(1, note="3 rejected")
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Progress:
    """A progress bar with a rate, the time left and a note; does nothing when quiet or when nobody looks.

    Args:
        title: what is being done.
        total: number of units, or None when it is not known yet.
        quiet: never draw.
        unit: word behind the rate.
    """

    def __init__(self, title: str, *, total: int | None, quiet: bool = False, unit: str = "files") -> None:
        self._live: RichProgress | None = None
        self._done = 0
        if quiet or not sys.stderr.isatty():
            return
        self._live = _make_bar(unit)
        self._task = self._live.add_task(title, total=total, note="")

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def advance(self, units: int = 1, *, note: str | None = None) -> None:
        """Count `units` as done; `note` replaces the text at the end of the line."""
        self._done += units
        if self._live:
            self._live.advance(self._task, units)
            if note is not None:
                self._live.update(self._task, note=note)

    def expect(self, total: int) -> None:
        """Say how many units there are, once that is known."""
        if self._live:
            self._live.update(self._task, total=total)


def _make_bar(unit: str) -> RichProgress:
    # rich takes a tenth of the start of a program: loaded only where somebody looks
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
