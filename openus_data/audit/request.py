"""What an audit is asked, and what it holds the answers against."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from openus_data.errors import RecipeError

Severity = Literal["error", "warning", "note"]
"""error: the corpus must not be used or shared so. warning: a person should look. note: a limit to state in a paper."""

DEFAULT_ALLOWED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """One audit.

    Args:
        outs: corpora, read as one.
        by: further columns to count by.
        where: SQL condition; only these rows are audited.
        compare: an earlier build.
        html: write the page here.
        bibtex: write the citations here.
        recipe: YAML file of finding id to the number that is still allowed.
        images: how many pictures are looked at again: none, a sample of 500, or all.
        sources: folder that the corpora were built from; no identifying word of its headers may be in them.
        strict: a finding over its threshold makes the exit code 1.
        quiet: no progress bar.
    """

    outs: tuple[Path, ...]
    by: tuple[str, ...] = ()
    where: str | None = None
    compare: Path | None = None
    html: Path | None = None
    bibtex: Path | None = None
    recipe: Path | None = None
    images: str = "sample"
    sources: Path | None = None
    strict: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, doubtful, or to be stated.

    Args:
        id: word of a closed list; thresholds are set by it.
        severity: see `Severity`.
        title: one line.
        count: how many rows, groups or pairs.
        detail: what it means and what to do.
        examples: sample ids or keyed groups, a few.
    """

    id: str
    severity: Severity
    title: str
    count: int
    detail: str = ""
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "id": self.id,
            "severity": self.severity,
            "title": self.title,
            "count": self.count,
            "detail": self.detail,
            "examples": list(self.examples),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How many of each finding are still allowed under `strict`; notes never fail.

    Args:
        allowed: finding id to count; what is not named is allowed 0 times.
    """

    allowed: dict[str, int] = field(default_factory=dict)

    def exceeded(self, finding: Finding) -> bool:
        """Whether this finding fails a strict audit."""
        return finding.severity != "note" and finding.count > self.allowed.get(finding.id, DEFAULT_ALLOWED)


def load_thresholds(path: Path | None, known: frozenset[str]) -> Thresholds:
    """Read thresholds, strictly.

    Raises:
        RecipeError: not a mapping of known finding ids to whole numbers.
    """
    if path is None:
        return Thresholds()
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError("the thresholds cannot be read", where=path.name, got=type(error).__name__) from None
    if not isinstance(raw, dict):
        raise RecipeError("not a mapping", where=path.name, expected="lines like `near_duplicates: 10`")
    for key, value in raw.items():
        if key not in known:
            raise RecipeError("no such finding", where=f"{path.name}: {key}", expected=", ".join(sorted(known)))
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RecipeError("not a count", where=f"{path.name}: {key}", expected="a whole number", got=repr(value))
    return Thresholds(allowed=dict(raw))
