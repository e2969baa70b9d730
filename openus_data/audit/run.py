"""The audit from beginning to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openus_data.audit.compare import compare
from openus_data.audit.composition import CROSSED, STANDARD, concentration, counts, cross, totals
from openus_data.audit.findings import row_findings
from openus_data.audit.flow import beside_the_paper, flow
from openus_data.audit.licence import licence
from openus_data.audit.page import write_page
from openus_data.audit.pixels import look, pixel_findings
from openus_data.audit.report import AuditReport
from openus_data.audit.request import AuditRequest, load_thresholds
from openus_data.audit.rows import Rows, open_rows
from openus_data.audit.sections import cones, duplicates, privacy, quality
from openus_data.audit.sources import source_words
from openus_data.audit.withheld import withhold
from openus_data.card import Card, find_cards_dirs, load_card
from openus_data.citation import bibliography, publication_year
from openus_data.errors import UsageError
from openus_data.store import write_bytes_aside

KNOWN_FINDINGS: Final = frozenset(
    {
        "subject_crosses_splits",
        "group_crosses_splits",
        "contamination",
        "exact_duplicates",
        "near_duplicates",
        "label_conflicts",
        "doubtful_cones",
        "cone_outliers",
        "poor_pictures",
        "header_like_text",
        "unknown_licences",
        "no_subject_key",
        "residual_text",
        "damaged_pictures",
        "masks_do_not_fit",
        "header_like_metadata",
    }
)
_WORST_FIRST: Final = ("error", "warning", "note")


def audit(request: AuditRequest) -> AuditReport:
    """Audit one or several corpora.

    Raises:
        UsageError, RecipeError: a column, a condition or a threshold is wrong.
        CorpusError: no finished build in one of the folders.
    """
    if request.images not in ("none", "sample", "all"):
        raise UsageError("no such choice", where="--images", expected="none, sample or all", got=request.images)
    thresholds = load_thresholds(request.recipe, KNOWN_FINDINGS)
    words = source_words(request.sources) if request.sources is not None else frozenset()
    with open_rows(request.outs, request.where) as rows:
        looked_at, shown = look(rows, request.outs, request.images, request.quiet, words)
        leaks = withhold(rows, words)
        cards = _cards_of(rows)
        rows.learn_years({name: year for name, card in cards.items() if (year := publication_year(card))})
        by = {column: counts(rows, column) for column in dict.fromkeys((*STANDARD, *request.by))}
        datasets = flow(rows, cards)
        found = [*leaks, *row_findings(rows, cards), *pixel_findings(looked_at, shown)]
        found.sort(key=lambda f: (_WORST_FIRST.index(f.severity), f.id, f.title))
        written = {}
        if request.bibtex is not None:
            names = [str(d["dataset"]) for d in datasets if d["kept"]]
            write_bytes_aside(request.bibtex, bibliography(names, cards).encode())
            written["citations"] = str(request.bibtex)
        if request.html is not None:
            written["page"] = str(request.html)
        report = AuditReport(
            totals=totals(rows),
            by=by,
            cross={f"{a} x {b}": cross(rows, a, b) for a, b in CROSSED},
            concentration=concentration(by),
            phantom_share=_phantom_share(rows, cards),
            flow=datasets,
            paper=beside_the_paper(datasets),
            licence=licence(rows, cards),
            findings=found,
            looked_at=looked_at,
            cones=cones(rows),
            duplicates=duplicates(rows),
            quality=quality(rows),
            privacy=privacy(rows),
            compare=compare(rows, request.compare) if request.compare is not None else None,
            strict=request.strict,
            thresholds=thresholds,
            asked=request.by,
            written=written,
        )
        if request.html is not None:
            write_page(request.html, report, rows, request.outs, shown, cards)
    return report


def _phantom_share(rows: Rows, cards: Mapping[str, Card]) -> float | None:
    counted = {str(d): int(n) for d, n in rows.ask("select dataset, count(*) from m group by 1")}
    known = {d: n for d, n in counted.items() if d in cards}
    if not known:
        return None
    phantoms = sum(n for d, n in known.items() if cards[d].imaged == "phantom")
    return round(phantoms / sum(known.values()), 4)


def _cards_of(rows: Rows) -> dict[str, Card]:
    """The cards of the datasets that are here or were turned away whole; private folders have none."""
    names = rows.column("select dataset from m union select dataset from rejects order by 1")
    paths = [folder / f"{name}.toml" for folder in find_cards_dirs() for name in names]
    return {path.stem: load_card(path) for path in paths if path.is_file()}
