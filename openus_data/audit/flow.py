"""Where items went: what each card promised, what was turned away and why, what is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openus_data.audit.rows import Rows
from openus_data.card import Card

PAPER_IMAGES: Final = 309_364
"""Sum of the 42 datasets in the OpenUS paper's list."""


def flow(rows: Rows, cards: Mapping[str, Card]) -> list[dict[str, Any]]:
    """One object a dataset: promised, kept, turned away by stage and reason; sorted by id."""
    kept = {str(d): int(n) for d, n in rows.ask("select dataset, count(*) from m group by 1")}
    away: dict[str, list[dict[str, Any]]] = {}
    turned = rows.ask(
        "select dataset, stage, reason, count(*) as n from rejects group by all order by dataset, n desc, stage, reason"
    )
    for dataset, stage, reason, count in turned:
        away.setdefault(str(dataset), []).append({"stage": stage, "reason": reason, "items": int(count)})
    return [_dataset(name, kept.get(name, 0), away.get(name, []), cards.get(name)) for name in sorted({*kept, *away})]


def _dataset(name: str, kept: int, away: list[dict[str, Any]], card: Card | None) -> dict[str, Any]:
    return {
        "dataset": name,
        "title": card.title if card else "private folder",
        "promised": card.expected.images if card else None,
        "in_paper": card.expected.openus_images if card else None,
        "kept": kept,
        "turned_away": sum(reason["items"] for reason in away),
        "reasons": away,
    }


def beside_the_paper(datasets: list[dict[str, Any]]) -> dict[str, Any]:
    """What is here of the paper's corpus."""
    shared = [d for d in datasets if d["in_paper"]]
    return {
        "openus_images": PAPER_IMAGES,
        "openus_datasets": 42,
        "datasets_here": sum(1 for d in shared if d["kept"]),
        "images_here": sum(d["kept"] for d in shared),
    }
