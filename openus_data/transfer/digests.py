"""Digests over a stream of bytes, beside the reading and writing of it."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterable
from typing import Final

_THREAD_FROM_BYTES: Final = 4 << 20


class RunningDigests:
    """Digests over a stream. Long streams are hashed on a thread of their own, so that reading does not wait."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *algorithms}}
        self._seen = 0
        self._queue: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, piece: bytes) -> None:
        """Add bytes; the piece must not change afterwards."""
        self._seen += len(piece)
        if self._queue is None and self._seen > _THREAD_FROM_BYTES:
            self._queue = queue.Queue(maxsize=8)
            self._thread = threading.Thread(target=self._work, args=(self._queue,), daemon=True, name="digest")
            self._thread.start()
        if self._queue is None:
            self._add(piece)
        else:
            self._queue.put(piece)

    def hexdigests(self) -> dict[str, str]:
        """Digests of all bytes so far, by algorithm; the stream may go on afterwards."""
        self.close()
        return {name: h.hexdigest() for name, h in self._hashes.items()}

    def close(self) -> None:
        """Wait for what is queued and end the thread."""
        if self._queue is not None and self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        self._queue = self._thread = None

    def _work(self, pieces: queue.Queue[bytes | None]) -> None:
        while (piece := pieces.get()) is not None:
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        for h in self._hashes.values():
            h.update(piece)
