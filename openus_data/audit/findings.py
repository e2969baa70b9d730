"""Faults that the rows show: leaks between splits, duplicates, conflicts, doubtful outlines, header-like text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from openus_data.audit.request import Finding, Severity
from openus_data.audit.rows import EXAMPLES, Rows
from openus_data.card import Card

DOUBTFUL_CONFIDENCE: Final = 0.5


def row_findings(rows: Rows, cards: Mapping[str, Card]) -> list[Finding]:
    """Every finding that needs no picture; those that count nothing are left out."""
    checks: tuple[Callable[[Rows], Iterator[Finding]], ...] = (
        subject_crossings,
        group_crossings,
        contamination,
        exact_duplicates,
        near_duplicates,
        label_conflicts,
        doubtful_cones,
        cone_outliers,
        poor_pictures,
        unknown_licences,
    )
    found = [finding for check in checks for finding in check(rows)]
    return [f for f in (*found, *missing_subject_keys(rows, cards)) if f.count]


def _grouped(rows: Rows, finding: str, severity: Severity, title: str, detail: str, sql: str) -> Iterator[Finding]:
    """A finding whose SQL gives one keyed group a row."""
    groups = [str(g) for g in rows.column(sql)]
    yield Finding(
        id=finding, severity=severity, title=title, count=len(groups), detail=detail, examples=tuple(groups[:EXAMPLES])
    )


def subject_crossings(rows: Rows) -> Iterator[Finding]:
    """Subjects in more than one split."""
    return _grouped(
        rows,
        "subject_crosses_splits",
        "error",
        "subjects in more than one split",
        "A test score over these subjects would measure memory. Build again; if it stays, report it.",
        "select subject_id from m group by dataset, subject_id having count(distinct split) > 1 order by subject_id",
    )


def group_crossings(rows: Rows) -> Iterator[Finding]:
    """Near-duplicate groups in more than one split."""
    return _grouped(
        rows,
        "group_crosses_splits",
        "error",
        "near-duplicate groups in more than one split",
        "The same picture would be trained on and tested on.",
        "select duplicate_group from m where duplicate_group is not null group by duplicate_group "
        "having count(distinct split) > 1 order by duplicate_group",
    )


def contamination(rows: Rows) -> Iterator[Finding]:
    """Pretraining images that are also test images, by pixels or by group."""
    return _grouped(
        rows,
        "contamination",
        "error",
        "pretraining images that equal or resemble a test image",
        "Scores on the test split would be too good.",
        "select distinct p.sample_id from m p join m t on t.split = 'test' and p.split = 'pretrain' and "
        "(p.pixel_sha256 = t.pixel_sha256 or p.duplicate_group = t.duplicate_group) order by p.sample_id",
    )


def exact_duplicates(rows: Rows) -> Iterator[Finding]:
    """Pictures stored twice."""
    return _grouped(
        rows,
        "exact_duplicates",
        "warning",
        "pictures stored more than once",
        "The build keeps one of equal pictures; several corpora read as one may still share some.",
        "select min(sample_id) from m group by pixel_sha256 having count(*) > 1 order by 1",
    )


def near_duplicates(rows: Rows) -> Iterator[Finding]:
    """Near-duplicate groups over more than one dataset."""
    return _grouped(
        rows,
        "near_duplicates",
        "note",
        "near-duplicate groups that join two datasets or more",
        "Sources share pictures; the groups stay in one split. Cite both, count once.",
        "select duplicate_group from m where duplicate_group is not null group by duplicate_group "
        "having count(distinct dataset) > 1 order by duplicate_group",
    )


def label_conflicts(rows: Rows) -> Iterator[Finding]:
    """One picture with two labels."""
    return _grouped(
        rows,
        "label_conflicts",
        "warning",
        "pictures with two different labels",
        "Equal pixels, or near-duplicates in one dataset, under different labels: the source contradicts itself.",
        "select min(sample_id) from m where labels <> '{}' group by dataset, coalesce(duplicate_group, pixel_sha256) "
        "having count(distinct labels) > 1 order by 1",
    )


def doubtful_cones(rows: Rows) -> Iterator[Finding]:
    """Outlines that are likelier wrong than right."""
    return _grouped(
        rows,
        "doubtful_cones",
        "note",
        f"scan areas with a confidence under {DOUBTFUL_CONFIDENCE}",
        "Their box was kept whole, so no tissue is lost, but text beside the scan area may remain. Look at a preview.",
        f"select sample_id from m where cone_confidence < {DOUBTFUL_CONFIDENCE} order by cone_confidence, sample_id",
    )


def cone_outliers(rows: Rows) -> Iterator[Finding]:
    """Boxes far from those of the same scanner and frame size."""
    return _grouped(
        rows,
        "cone_outliers",
        "note",
        "scan areas far smaller than the usual one of their dataset and device",
        "Under half the median area of ten or more images with the same device: an outline may have missed echo.",
        "with a as (select sample_id, dataset, device_model, width_px::bigint * height_px as area from m), "
        "g as (select dataset, device_model, median(area) as usual from a group by all having count(*) >= 10) "
        "select a.sample_id from a join g on a.dataset = g.dataset "
        "and a.device_model is not distinct from g.device_model "
        "where a.area < 0.5 * g.usual order by a.sample_id",
    )


def poor_pictures(rows: Rows) -> Iterator[Finding]:
    """Quality flags, one note each."""
    for flag, count in rows.ask("select f, count(*) from (select unnest(quality) as f from m) group by f order by f"):
        if flag == "colour":
            continue
        ids = rows.column(
            f"select sample_id from m where list_contains(quality, '{flag}') order by sample_id limit {EXAMPLES}"
        )
        title = f"pictures flagged {flag.replace('_', ' ')}"
        yield Finding(id="poor_pictures", severity="note", title=title, count=int(count), examples=tuple(ids))


def unknown_licences(rows: Rows) -> Iterator[Finding]:
    """Datasets whose licence nobody published."""
    return _grouped(
        rows,
        "unknown_licences",
        "note",
        "datasets without a known licence",
        "Private use at your own risk; do not hand on images or weights without asking the owners.",
        "select dataset from m where license is null group by dataset order by dataset",
    )


def missing_subject_keys(rows: Rows, cards: Mapping[str, Card]) -> Iterator[Finding]:
    """Datasets for which leakage between splits cannot be excluded."""
    present = [str(d) for d in rows.column("select distinct dataset from m order by 1")]
    blind = [d for d in present if d in cards and not _has_subject_key(cards[d])]
    yield Finding(
        id="no_subject_key",
        severity="note",
        title="datasets that publish no subject key",
        count=len(blind),
        detail="Clips and near-duplicate groups stand in; leakage of a subject between splits cannot be excluded.",
        examples=tuple(blind[: 4 * EXAMPLES]),
    )


def _has_subject_key(card: Card) -> bool:
    rule = card.subject
    return bool(rule.path or rule.table or rule.header)
