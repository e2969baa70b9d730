"""What `fetch` says at the end: a line per dataset, and what a person has to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

_LISTED_AT_MOST: Final = 20
_ENDINGS: Final = {
    "done": ("done", "done"),
    "unchanged": ("there already", "there already"),
    "planned": ("to fetch", "to fetch"),
    "needs-person": ("needs a person", "need a person"),
    "failed": ("failed", "failed"),
}
State = Literal["done", "unchanged", "planned", "needs-person", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One file.

    Args:
        name: path below archives/.
        size_bytes: its size; None where it is not known before the download.
        state: downloaded, kept, missing (dry run), or failed.
        error: one line, where it failed.
    """

    name: str
    size_bytes: int | None
    state: Literal["downloaded", "kept", "missing", "failed"]
    error: str = ""

    def to_json(self) -> dict[str, object]:
        """A file of the `--json` object."""
        return {"name": self.name, "bytes": self.size_bytes, "state": self.state, "error": self.error or None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """One dataset.

    Args:
        id: of the card.
        state: how it ended.
        files: in the card's order.
        unpacked_files: files below files/.
        error: one line, where it failed or needs a person.
        obtain: the card's steps for a person, where one is needed.
        warnings: the card's warnings.
    """

    id: str
    state: State
    files: tuple[FileReport, ...] = ()
    unpacked_files: int | None = None
    error: str = ""
    obtain: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def known_bytes(self) -> int:
        """Bytes of the files whose size is known."""
        return sum(f.size_bytes or 0 for f in self.files)

    def to_json(self) -> dict[str, object]:
        """A dataset of the `--json` object."""
        return {
            "id": self.id,
            "state": self.state,
            "files": [f.to_json() for f in self.files],
            "bytes": self.known_bytes,
            "unpacked_files": self.unpacked_files,
            "error": self.error or None,
            "obtain": list(self.obtain),
            "warnings": list(self.warnings),
        }

    def to_lines(self) -> list[str]:
        """Lines for a person."""
        missing = [f for f in self.files if f.state == "missing"]
        words = {
            "done": f"done, {_files(len(self.files))}, {_size(self.known_bytes)}"
            if self.files
            else f"done, {_files(self.unpacked_files or 0)} taken from the folder",
            "unchanged": "there already, nothing to do",
            "planned": f"{len(missing)} of {_files(len(self.files))} to fetch, {_total(missing)}",
            "needs-person": f"needs a person: {self.error}",
            "failed": f"FAILED: {self.error}",
        }[self.state]
        lines = [f"{self.id}: {words}"]
        if self.state == "planned":
            lines += [
                f"  {f.name}  {_size(f.size_bytes)}{'' if f.state == 'missing' else ', here already'}"
                for f in self.files[:_LISTED_AT_MOST]
            ]
            if len(self.files) > _LISTED_AT_MOST:
                lines.append(f"  and {len(self.files) - _LISTED_AT_MOST} more; --json lists all")
        if self.state == "needs-person":
            lines += [f"  {number}. {step}" for number, step in enumerate(self.obtain, start=1)]
        lines += [f"  {f.name}: {f.error}" for f in self.files if f.error and f.error != self.error]
        return lines + [f"  note: {w}" for w in self.warnings]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReport:
    """The answer of `openus-data fetch`.

    Args:
        datasets: in the order asked for.
        free_bytes: free on the disk of ROOT; stated by a dry run.
    """

    datasets: tuple[DatasetReport, ...]
    free_bytes: int | None = None

    @property
    def exit_code(self) -> int:
        """1 where a dataset failed or needs a person; a dry run only fails where it could not look."""
        wrong = ("failed",) if self.free_bytes is not None else ("failed", "needs-person")
        return int(any(d.state in wrong for d in self.datasets))

    def to_json(self) -> dict[str, object]:
        """The object of `--json`."""
        answer: dict[str, object] = {"datasets": [d.to_json() for d in self.datasets]}
        if self.free_bytes is not None:
            missing = [f for d in self.datasets for f in d.files if f.state == "missing"]
            answer |= {
                "dry_run": True,
                "free_bytes": self.free_bytes,
                "missing_bytes": sum(f.size_bytes or 0 for f in missing),
                "missing_of_unknown_size": sum(f.size_bytes is None for f in missing),
            }
        return answer

    def to_text(self) -> str:
        """Lines for a person."""
        lines = [line for d in self.datasets for line in d.to_lines()]
        if len(self.datasets) > 1:
            lines.append(self._closing_line())
        if self.free_bytes is not None:
            missing = [f for d in self.datasets for f in d.files if f.state == "missing"]
            lines.append(
                f"to fetch: {_total(missing)}; free on the disk: {_size(self.free_bytes)}; "
                "unpacking needs about as much again"
            )
        return "\n".join(lines)

    def _closing_line(self) -> str:
        """How many datasets ended how, and which of them ask for something."""
        parts = []
        for state, words in _ENDINGS.items():
            ids = [d.id for d in self.datasets if d.state == state]
            named = f" ({', '.join(ids)})" if state in ("needs-person", "failed") else ""
            parts += [f"{len(ids)} {words[len(ids) > 1]}{named}"] if ids else []
        return f"{len(self.datasets)} datasets: " + ", ".join(parts)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _total(files: Sequence[FileReport]) -> str:
    """The size of files, as far as it is known."""
    known, unknown = sum(f.size_bytes or 0 for f in files), sum(f.size_bytes is None for f in files)
    if not unknown:
        return _size(known)
    more = f"{_files(unknown)} of unknown size"
    return f"{_size(known)} and {more}" if known else more


def _size(count: int | None) -> str:
    if count is None:
        return "size unknown"
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
