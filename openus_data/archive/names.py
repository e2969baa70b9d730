"""The one rule for names of archive members: what a name may be, and when two names are too alike to both be kept."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from openus_data.errors import UnsafeArchive

COMPONENT_BYTES: Final = 255
PATH_BYTES: Final = 2048
_DRIVE: Final = re.compile(r"[A-Za-z]:")
# controls, line and paragraph separators, marks that turn the direction of text
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def printable(name: str) -> str:
    """A name as one line, with ASCII escapes for whatever does not print: a terminal would obey it."""
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else ascii(c)[1:-1] for c in name)


def shown(name: str) -> str:
    """A member's name fit for a message: one line, ASCII escapes for whatever does not print, at most 80 characters."""
    text = printable(name)
    return text if len(text) <= 80 else f"{text[:50]}...{text[-25:]}"


def safe_parts(name: str) -> tuple[str, ...]:
    """The components of a member's name, none of which leads out of the folder; empty for the folder itself.

    Raises:
        UnsafeArchive: absolute, with `..`, a drive, a backslash, a control or direction mark, or too long.
    """
    fault = _fault(name)
    parts = tuple(p for p in name.split("/") if p not in ("", "."))
    if fault is None and ".." in parts:
        fault = "a name with .."
    if fault is None and any(len(p.encode()) > COMPONENT_BYTES for p in parts):
        fault = f"a name component beyond {COMPONENT_BYTES} bytes"
    if fault is not None:
        raise UnsafeArchive(fault, where=shown(name), next_step="nothing was unpacked; ask the publisher")
    return parts


def _fault(name: str) -> str | None:
    if not name:
        return "an empty name"
    if name.startswith("/") or _DRIVE.match(name):
        return "an absolute name"
    if "\\" in name:
        return "a name with a backslash"
    if _UNSEEN.search(name):
        return "a name with control characters"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "a name that is not Unicode"
    return f"a name beyond {PATH_BYTES} bytes" if size > PATH_BYTES else None


class Names:
    """The names taken so far; refuses a second one that some file system would take for the first."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, int]] = {}  # folded path to path and the archive it came from, 0 for folders
        self._archive = 1

    def next_archive(self) -> None:
        """Say that the names to come are another archive's."""
        self._archive += 1

    def add_folder(self, parts: tuple[str, ...]) -> None:
        """Take a folder and those above it; taking a folder again is fine.

        Raises:
            UnsafeArchive: the name is a file's, or differs from a folder's by case or Unicode form alone.
        """
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            known = self._taken.setdefault(_fold(path), (path, 0))
            if known != (path, 0):
                _refuse(path, known[0])

    def add_file(self, parts: tuple[str, ...]) -> bool:
        """Take a file; False where an earlier archive has this very name, and the bytes must be compared.

        Raises:
            UnsafeArchive: the name is taken already, or all but taken.
        """
        self.add_folder(parts[:-1])
        path = "/".join(parts)
        known, archive = self._taken.get(_fold(path), ("", 0))
        if known == path and 0 < archive < self._archive:
            return False
        if known:
            _refuse(path, known)
        self._taken[_fold(path)] = (path, self._archive)
        return True


def _fold(path: str) -> str:
    return (
        path.lower() if path.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    )


def _refuse(path: str, known: str) -> None:
    words = "two members of one name" if path == known else "two names that differ by case or Unicode form alone"
    raise UnsafeArchive(words, where=shown(path), got=f"also {shown(known)}", next_step="nothing was unpacked")
