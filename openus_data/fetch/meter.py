"""Total progress and bandwidth of a fetch: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Final

from openus_data.progress import Progress
from openus_data.transfer import Watcher

logger = logging.getLogger(__name__)

_MEGABYTE: Final = 1_000_000
_NOTE_EVERY_S: Final = 0.5
_LINE_EVERY_S: Final = 60.0


class Meter(Watcher):
    """Counts bytes from any thread.

    Args:
        quiet: say nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress("fetch", total=None, quiet=quiet, unit="MB")
        self._mutex = threading.Lock()
        self._expected = self._seen = self._shown_mb = 0
        self._began = self._noted = self._spoke = time.monotonic()
        self._window: list[tuple[float, int]] = []
        self._quiet = quiet

    def __enter__(self) -> Meter:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._show()
        self._progress.__exit__(kind, error, trace)

    def expect(self, size: int) -> None:
        """Say that so many bytes more are to come, as far as that is known."""
        with self._mutex:
            self._expected += size
            if self._expected > 0:
                self._progress.expect(_megabytes(self._expected))

    def hold(self, size: int) -> None:
        """Count bytes that were here before, without taking them for speed."""
        with self._mutex:
            self._seen += size
            self._window = [(then, seen + size) for then, seen in self._window]

    def add(self, size: int) -> None:
        """Count bytes as received; negative where some had to be dropped."""
        with self._mutex:
            self._seen += size
            now = time.monotonic()
            if now - self._noted < _NOTE_EVERY_S:
                return
            self._noted = now
            self._window = [*self._window[-20:], (now, self._seen)]
            self._show()
            if now - self._spoke > _LINE_EVERY_S and not self._quiet:
                self._spoke = now
                expected_mb = _megabytes(self._expected)
                logger.info("fetch: %d of %d MB, %.1f MB/s", self._shown_mb, expected_mb, self._rate())

    def _show(self) -> None:
        """Bring the bar up to date."""
        seen_mb = max(0, _megabytes(self._seen))
        self._progress.advance(seen_mb - self._shown_mb, note=f"{self._rate():.1f} MB/s")
        self._shown_mb = seen_mb

    def _rate(self) -> float:
        if not self._window:
            return 0.0
        (then, before), (now, seen) = self._window[0], self._window[-1]
        return max(0.0, (seen - before) / _MEGABYTE / (now - then)) if now > then else 0.0


def _megabytes(size: int) -> int:
    """Megabytes begun, so that what is done and what is expected end on the same number."""
    return -(-size // _MEGABYTE)
