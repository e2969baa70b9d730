"""What may be done with a corpus: licence classes, what each kind of use would keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openus_data.audit.rows import Rows
from openus_data.card import Card

PRIVATE: Final = "private"
COMMERCIAL_CLASSES: Final = ("attribution",)


def licence(rows: Rows, cards: Mapping[str, Card]) -> dict[str, Any]:
    """Images by class and by licence, and what each kind of use would keep. A reading of terms, no legal advice."""
    listed = []
    by_dataset = rows.ask(
        "select dataset, coalesce(license, 'unknown'), count(*), count(*) filter (redistributable) "
        "from m group by 1, 2 order by 1, 2"
    )
    classes: dict[str, int] = {}
    licences: dict[str, int] = {}
    redistributable = commercial = 0
    for dataset, name, count, shareable in by_dataset:
        kind = _class(str(dataset), cards)
        classes[kind] = classes.get(kind, 0) + int(count)
        licences[str(name)] = licences.get(str(name), 0) + int(count)
        redistributable += int(shareable)
        listed.append(
            {
                "dataset": dataset,
                "class": kind,
                "licence": name,
                "images": int(count),
                "redistributable": int(shareable),
            }
        )
        commercial += int(count) if kind in COMMERCIAL_CLASSES else 0
    return {
        "classes": dict(sorted(classes.items())),
        "licences": dict(sorted(licences.items())),
        "redistributable_images": redistributable,
        "commercial_images": commercial,
        "datasets": listed,
        "note": "A reading of published terms, no legal advice. `build --license-class attribution` keeps these only.",
    }


def _class(dataset: str, cards: Mapping[str, Card]) -> str:
    return cards[dataset].license.class_ if dataset in cards else PRIVATE
