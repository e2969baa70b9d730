"""Citations as BibTeX: one entry per dataset card, for `show`, and for the audit's file of citations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from openus_data.card import Card

_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_SPECIAL = re.compile(r"(?<!\\)([&%#_])")


def bibtex(card: Card) -> str:
    """The citation of one dataset as a BibTeX entry; the key is the card's id."""
    fields = {
        "title": _plain(card.title),
        "note": _plain(card.citation.text),
        "year": str(publication_year(card) or ""),
        "doi": card.citation.doi or card.citation.data_doi or "",
        "url": card.homepage or "",
    }
    body = ",\n".join(f"  {key} = {{{value}}}" for key, value in sorted(fields.items()) if value)
    return f"@misc{{{card.id},\n{body}\n}}"


def bibliography(datasets: Iterable[str], cards: Mapping[str, Card]) -> str:
    """An entry for every dataset that has a card, in the order of ids; empty where none has one."""
    entries = [bibtex(cards[name]) for name in sorted(set(datasets)) if name in cards]
    return "\n\n".join(entries) + ("\n" if entries else "")


def publication_year(card: Card) -> int | None:
    """The last year that the citation's text names, which is the venue's; None where it names none."""
    years = _YEAR.findall(re.sub(r"10\.\d{4,}/\S+|https?://\S+|\d+[-:]\d+", " ", card.citation.text))
    return int(years[-1]) if years else None


def _plain(text: str) -> str:
    """Text that BibTeX and LaTeX take as it stands."""
    return _SPECIAL.sub(r"\\\1", text.replace("\\", "/").replace("{", "(").replace("}", ")"))
