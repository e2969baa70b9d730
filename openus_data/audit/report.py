"""An audit's answer: one screen for people, one object for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from openus_data.audit.request import Finding, Thresholds

SCHEMA: Final = "openus-audit/1"
_TOP: Final = 6
_SCREEN: Final = ("organ", "device_manufacturer", "dataset", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Everything an audit found.

    Args:
        totals: images, clips, subjects, datasets, bytes.
        by: column to counts, most images first.
        cross: "a x b" to images per pair.
        concentration: column to effective number and share of the largest.
        phantom_share: share of images whose card says phantom; None where no card says what was imaged.
        flow: per dataset, where items went.
        paper: what is here of the paper's corpus.
        licence: what may be done.
        findings: worst first.
        looked_at: pictures looked at again.
        cones, duplicates, quality, privacy: see `sections`.
        compare: against an earlier build, or None.
        strict: whether a finding over its threshold fails.
        thresholds: what is still allowed.
        asked: columns of `by` that the user named.
        written: files written, by kind.
    """

    totals: Mapping[str, int]
    by: Mapping[str, Sequence[Mapping[str, Any]]]
    cross: Mapping[str, Sequence[Mapping[str, Any]]]
    concentration: Mapping[str, Mapping[str, Any]]
    phantom_share: float | None
    flow: Sequence[Mapping[str, Any]]
    paper: Mapping[str, Any]
    licence: Mapping[str, Any]
    findings: Sequence[Finding]
    looked_at: int
    cones: Mapping[str, Any]
    duplicates: Mapping[str, Any]
    quality: Sequence[Mapping[str, Any]]
    privacy: Mapping[str, Any]
    compare: Mapping[str, Any] | None = None
    strict: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    asked: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)

    @property
    def failing(self) -> list[Finding]:
        """Findings over their threshold."""
        return [f for f in self.findings if self.thresholds.exceeded(f)]

    @property
    def exit_code(self) -> int:
        """1 for an error-grade finding over its threshold; under `strict`, for a warning too."""
        return 1 if any(self.strict or f.severity == "error" for f in self.failing) else 0

    def to_json(self) -> dict[str, Any]:
        """See docs/reference/audit.md."""
        return {
            "schema": SCHEMA,
            "totals": dict(self.totals),
            "by": {column: list(values) for column, values in self.by.items()},
            "cross": {pair: list(values) for pair, values in self.cross.items()},
            "concentration": {column: dict(value) for column, value in self.concentration.items()},
            "phantom_share": self.phantom_share,
            "flow": list(self.flow),
            "paper": dict(self.paper),
            "licence": dict(self.licence),
            "cones": dict(self.cones),
            "duplicates": dict(self.duplicates),
            "quality": list(self.quality),
            "privacy": dict(self.privacy),
            "findings": [f.to_json() for f in self.findings],
            "images_looked_at": self.looked_at,
            "compare": self.compare,
            "strict": self.strict,
            "clean": not self.failing,
            "written": dict(self.written),
        }

    def to_text(self) -> str:
        """One screen."""
        t = self.totals
        lines = [
            f"{t['images']:,} images, {t['subjects']:,} subjects, {t['clips']:,} clips, {t['datasets']} datasets, "
            f"{t['bytes'] / 1e6:,.1f} MB"
        ]
        for column in dict.fromkeys((*_SCREEN, *self.asked)):
            lines.append(f"{column.replace('_', ' '):<20}{_bar_line(self.by[column], t['images'])}")
        even = self.concentration.get("dataset", {}).get("effective_number", 0)
        lines.append(f"{'spread':<20}as {even:.1f} equal datasets; {_percent(self.phantom_share)} phantoms")
        turned = sum(int(d["turned_away"]) for d in self.flow)
        lines.append(
            f'{"turned away":<20}{turned:,} items; reasons in --json, or: openus-data query OUT "select * from rejects"'
        )
        p = self.paper
        lines.append(f"{'beside the paper':<20}{p['images_here']:,} of its {p['openus_images']:,} images")
        share = self.licence["redistributable_images"]
        lines.append(
            f"{'licence':<20}{share:,} may be handed on, {self.licence['commercial_images']:,} for commercial use"
        )
        if self.compare is not None:
            kinds = self.compare["kinds"]
            lines.append(f"{'since then':<20}" + ", ".join(f"{v['count']:,} {k}" for k, v in kinds.items()))
        lines.append("")
        lines += [f"{f.severity:<8} {f.count:>7,} {f.title}" for f in self.findings] or ["no findings"]
        lines.append(self._verdict())
        lines += [f"{kind}: {path}" for kind, path in self.written.items()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.failing:
            return f"clean: no error, no warning; {self.looked_at:,} pictures were looked at again"
        return f"not clean: {', '.join(sorted({f.id for f in self.failing}))}"


def _bar_line(values: Sequence[Mapping[str, Any]], total: int) -> str:
    shown = [f"{v['value']} {v['images']:,} ({_percent(v['images'] / max(1, total))})" for v in values[:_TOP]]
    return ", ".join(shown) + (f", {len(values) - _TOP} more" if len(values) > _TOP else "")


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f}%"
