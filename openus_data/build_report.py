"""What a build counted, and how it says so: the report of the command and OUT/build.json."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from openus_data.records import Reject
from openus_data.schema import PIPELINE_VERSION, SCHEMA_VERSION

FAILED_LIST_REASONS: Final = frozenset({"link", "special", "unreadable", "name", "table_missing", "table_unreadable"})
HARMLESS_DECODE_REASONS: Final = frozenset({"not_ultrasound"})
PIXEL_LIBRARIES: Final = ("openus", "av", "numpy", "opencv-python-headless", "opencv-python", "pydicom")
"""Releases that stored pixels depend on: another one, and every file is worked on again."""
_VERSIONED: Final = (*PIXEL_LIBRARIES, "pyarrow")


@dataclass(slots=True, kw_only=True)
class DatasetCounts:
    """One dataset's accounts: listed = images + not images; frames = skipped + rejected + candidates' frames.

    Args:
        images: files that are images.
        frames: frames of those that could be decoded.
        frames_skipped: left out by the frame policy.
        candidates: pictures after the first stage.
        kept: samples per split.
        rejected: rows in rejects.parquet per `stage/reason`.
    """

    images: int = 0
    frames: int = 0
    frames_skipped: int = 0
    candidates: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> DatasetCounts:
        """What `to_json` gave."""
        return cls(**{**plain, "kept": Counter(plain["kept"]), "rejected": Counter(plain["rejected"])})

    def to_json(self) -> dict[str, Any]:
        """The counts with sorted keys."""
        plain = {k: v for k, v in asdict(self).items() if k not in ("kept", "rejected")}
        return plain | {"kept": dict(sorted(self.kept.items())), "rejected": dict(sorted(self.rejected.items()))}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did.

    Args:
        datasets: counts by dataset id.
        missing: datasets that were asked for and are not there: id and what to do.
        failures: how many source files were bad input.
        worked_on, reused: source files whose work was done now, and taken over from before.
        seconds: wall clock.
        is_changed: whether anything in OUT changed.
        planned: of a dry run, what would be done; empty otherwise.
        hints: lines for a person.
    """

    datasets: Mapping[str, DatasetCounts]
    missing: Mapping[str, str] = field(default_factory=dict)
    failures: int = 0
    worked_on: int = 0
    reused: int = 0
    seconds: float = 0.0
    is_changed: bool = True
    planned: Mapping[str, Any] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when a dataset was missing, a file was bad input, or nothing came out; else 0."""
        if self.planned:
            return 1 if self.missing else 0
        return 1 if self.missing or self.failures or not self.samples else 0

    @property
    def samples(self) -> int:
        """Samples in OUT."""
        return sum(counts.kept.total() for counts in self.datasets.values())

    def to_json(self) -> dict[str, Any]:
        """The answer for machines."""
        answer: dict[str, Any] = {
            "datasets": {name: counts.to_json() for name, counts in sorted(self.datasets.items())},
            "missing": dict(sorted(self.missing.items())),
            "failures": self.failures,
        }
        if self.planned:
            return answer | {"dry_run": True, **self.planned}
        return answer | {
            "samples": self.samples,
            "worked_on": self.worked_on,
            "reused": self.reused,
            "changed": self.is_changed,
            "seconds": round(self.seconds, 3),
        }

    def to_text(self) -> str:
        """A table for people."""
        splits = ("pretrain", "train", "val", "test")
        lines = [
            f"{'dataset':<24}{'files':>8}{'frames':>9}" + "".join(f"{s:>10}" for s in splits) + f"{'rejected':>10}"
        ]
        for name, counts in sorted(self.datasets.items()):
            cells = "".join(f"{counts.kept[s]:>10}" for s in splits)
            lines.append(f"{name:<24}{counts.images:>8}{counts.frames:>9}{cells}{counts.rejected.total():>10}")
        reasons: Counter[str] = sum((c.rejected for c in self.datasets.values()), Counter())
        lines += [f"  rejected {n:>6}  {reason}" for reason, n in sorted(reasons.items())]
        lines += self.hints
        if self.planned:
            lines += [f"{key.replace('_', ' ')}: {value}" for key, value in self.planned.items()]
        else:
            done = f"{self.samples} samples; worked on {self.worked_on} files, reused {self.reused} of "
            lines.append(f"{done}{self.worked_on + self.reused}; {self.seconds:.1f} s")
        return "\n".join(lines)


def is_failure(reject: Reject) -> bool:
    """Whether a reject is bad input, which makes the exit code 1, and not a choice of card, recipe or policy."""
    if reject.stage == "decode":
        return reject.reason not in HARMLESS_DECODE_REASONS
    return reject.stage == "deid" or (reject.stage == "list" and reject.reason in FAILED_LIST_REASONS)


def build_json(
    *,
    recipe: Mapping[str, Any],
    datasets: Mapping[str, DatasetCounts],
    cards: Mapping[str, str],
    inputs: Mapping[str, str],
    shards: Mapping[str, Mapping[str, int | str]],
    digests: Mapping[str, str],
) -> str:
    """The text of OUT/build.json: no clock, no path, no worker count.

    Args:
        recipe: as resolved.
        datasets: counts by id.
        cards: digest of each dataset's card.
        inputs: digest of each dataset's files and of what the listing said of them.
        shards: samples, bytes and sha256 by name.
        digests: SHA-256 of manifest and rejects.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "pipeline_version": PIPELINE_VERSION,
        "versions": versions(),
        "recipe": dict(recipe),
        "cards": dict(cards),
        "inputs": dict(inputs),
        "datasets": {name: counts.to_json() for name, counts in datasets.items()},
        "shards": dict(shards),
        "sha256": dict(digests),
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def versions(names: Sequence[str] = _VERSIONED) -> dict[str, str]:
    """Releases of what the bytes depend on."""
    found = {name: _release(name) for name in names}
    return {name: release for name, release in found.items() if release is not None}


@functools.cache
def _release(name: str) -> str | None:
    """The installed release of a library, or None; looked up once, since that takes milliseconds each."""
    from importlib.metadata import PackageNotFoundError, version  # takes 10 ms to load, and no worker asks

    try:
        return version(name)
    except PackageNotFoundError:
        return None
