"""How patient the engine is, and how it stops: the numbers that decide between waiting, trying again and giving up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from openus_data.errors import SourceUnavailable

Result = TypeVar("Result")


class Stopped(BaseException):
    """Another thread asked the engine to stop; not an error, and not to be caught per file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The bounds of a transfer.

    Args:
        connect_timeout_s: time for a connection to stand.
        silence_timeout_s: time without a single byte, before or within a body.
        min_bytes_per_s: a body slower than this over `slow_window_s` is given up and tried again.
        slow_window_s: the window of the speed check, in seconds.
        attempts: tries in a row that bring less than `progress_bytes`; real progress starts the count again.
        total_attempts: tries for one file, whatever they bring.
        progress_bytes: what counts as progress.
        backoff_s: wait before the second try; doubles from try to try, with jitter.
        backoff_cap_s: longest wait of our own choice.
        retry_after_cap_s: longest wait at a server's wish.
        max_redirects: hops of one request.
        max_unknown_bytes: cap on a body whose length nobody states.
        reserve_bytes: free space that a download leaves on the disk.
    """

    connect_timeout_s: float = 20.0
    silence_timeout_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    slow_window_s: float = 30.0
    attempts: int = 7
    total_attempts: int = 200
    progress_bytes: int = 1 << 20
    backoff_s: float = 0.5
    backoff_cap_s: float = 60.0
    retry_after_cap_s: float = 300.0
    max_redirects: int = 10
    max_unknown_bytes: int = 64 << 30
    reserve_bytes: int = 64 << 20

    def wait_s(self, failures: int, asked_s: float | None) -> float:
        """Seconds to wait after `failures` in a row; never less than a server asked for, up to the cap."""
        own = min(self.backoff_s * 2.0 ** (failures - 1), self.backoff_cap_s) * random.uniform(0.5, 1.0)
        return max(own, min(asked_s or 0.0, self.retry_after_cap_s))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms (RFC 9110 section 10.2.3); None if absent."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def pause(seconds: float, stop: threading.Event) -> None:
    """Sleep, but wake at once when asked to stop.

    Raises:
        Stopped: `stop` is set.
    """
    if stop.wait(seconds):
        raise Stopped


def retry(action: Callable[[], Result], policy: Policy, stop: threading.Event, say: Callable[[str], None]) -> Result:
    """Carry out `action` until it ends or has failed `policy.attempts` times with SourceUnavailable.

    Args:
        say: told in one line why and how long it waits.
    """
    failures = 0
    while True:
        try:
            return action()
        except SourceUnavailable as error:
            failures += 1
            if failures >= policy.attempts:
                raise
            wait_s = policy.wait_s(failures, error.retry_after_s)
            say(f"{error}; trying again in {wait_s:.0f} s")
            pause(wait_s, stop)
