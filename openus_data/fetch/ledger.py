"""The ledger `ROOT/<id>/fetch.json`: which files lie here, what they were checked against, what was unpacked.

It holds no time, no signed URL and no credential, so that two runs that do the same write the same bytes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from openus_data.store import fsync_tree, write_text_aside

LEDGER_NAME: Final = "fetch.json"
_VERSION: Final = 1
_SAVE_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file below archives/.

    Args:
        url: where it came from, without query; "by hand" for what the user gave.
        bytes: its size.
        sha256: of its bytes.
        state: verified against published checksums, or pinned at the first download.
        checksums: the published ones that held.
    """

    url: str
    bytes: int
    sha256: str
    state: Literal["verified", "pinned"]
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The unpacked tree.

    Args:
        stamp: digest of what it was made from.
        files: number of files.
        bytes: of all files.
    """

    stamp: str
    files: int
    bytes: int


@dataclass(slots=True)
class Ledger:
    """The ledger of one dataset, under that dataset's lock."""

    path: Path
    dataset: str
    card_sha256: str = ""
    complete: bool = False
    files: dict[str, Entry] = field(default_factory=dict)
    tree: Tree | None = None
    _mutex: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _unsynced: bool = False
    _saved: str = ""
    _saved_at: float = field(default_factory=time.monotonic)

    def note(self, name: str, entry: Entry) -> None:
        """Record a file; written to the disk at once or, where many come quickly, a little later."""
        with self._mutex:
            self.files[name] = entry
            self._unsynced = True
            if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
                self._save()

    def save(self) -> None:
        """Write the ledger, if it says something new."""
        with self._mutex:
            self._save()

    def _save(self) -> None:
        content = {
            "version": _VERSION,
            "dataset": self.dataset,
            "card_sha256": self.card_sha256,
            "complete": self.complete,
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "unpacked": asdict(self.tree) if self.tree else None,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if text != self._saved:
            if self._unsynced:
                fsync_tree(
                    self.path.parent / "archives"
                )  # what the ledger vouches for is on the disk before it says so
                self._unsynced = False
            write_text_aside(self.path, text)
        self._saved, self._saved_at = text, time.monotonic()


def load_ledger(folder: Path, dataset: str) -> Ledger:
    """Read a dataset's ledger; an empty one where there is none or it cannot be read, and all is checked anew."""
    path = folder / LEDGER_NAME
    ledger = Ledger(path=path, dataset=dataset)
    try:
        text = path.read_text(encoding="utf-8")
        raw: Mapping[str, Any] = json.loads(text)
        if raw["version"] != _VERSION or raw["dataset"] != dataset:
            return ledger
        ledger.files = {str(n): _entry(e) for n, e in raw["files"].items()}
        ledger.tree = Tree(**raw["unpacked"]) if raw["unpacked"] else None
        ledger.card_sha256, ledger.complete = str(raw["card_sha256"]), bool(raw["complete"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Ledger(path=path, dataset=dataset)
    ledger._saved = text
    return ledger


def _entry(raw: Mapping[str, Any]) -> Entry:
    return Entry(**{**raw, "checksums": tuple(raw["checksums"])})
