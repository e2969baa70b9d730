"""The words that the manifest may use for organ, anatomy, view, pathology and maker; data in `data/vocabulary.toml`.

What has no word stays unknown: a raw value is never guessed into the vocabulary.

    vocabulary = load_vocabulary()
    vocabulary.manufacturer("G.E. Medical Systems")  -> "ge"
    vocabulary.organ_of("liver")                     -> "abdomen"
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

FREE_COLUMNS: Final = ("device_model", "transducer", "institution")
"""Columns that hold a text of their source rather than a word of the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A word of the vocabulary.

    Args:
        slug: the word, of `[a-z0-9_]`.
        meaning: in words.
        scheme: coding scheme, SCT or DCM; None where no code was looked up.
        code: code in that scheme.
        cid: DICOM context group (PS3.16) in which the code was looked up.
        group: coarse outcome, for a pathology.
    """

    slug: str
    meaning: str
    scheme: str | None = None
    code: str | None = None
    cid: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All words.

    Args:
        organs: coarse organ to its anatomies.
        anatomy, view, pathology: slug to term.
        makers: slug to the maker's name.
        spellings: spelling in lower case to the maker's slug.
    """

    organs: Mapping[str, tuple[str, ...]]
    anatomy: Mapping[str, Term]
    view: Mapping[str, Term]
    pathology: Mapping[str, Term]
    makers: Mapping[str, str]
    spellings: Mapping[str, str] = field(repr=False)

    def is_organ(self, word: str) -> bool:
        """Whether the word is a coarse organ."""
        return word in self.organs

    def is_anatomy(self, word: str) -> bool:
        """Whether the word is a fine anatomy."""
        return word in self.anatomy

    def is_view(self, word: str) -> bool:
        """Whether the word is a standard view or plane."""
        return word in self.view

    def is_pathology(self, word: str) -> bool:
        """Whether the word is a pathology."""
        return word in self.pathology

    def organ_of(self, anatomy: str) -> str | None:
        """The organ of an anatomy; None where it is not known or belongs to several."""
        owners = [organ for organ, members in self.organs.items() if anatomy in members]
        return owners[0] if len(owners) == 1 else None

    def manufacturer(self, raw: str) -> str | None:
        """The maker that a text of a header or a card names, by the longest spelling that it holds as whole words."""
        text = " ".join(raw.lower().split())
        if text in self.makers:
            return text
        held = [s for s in self.spellings if _holds(text, s)]
        return self.spellings[max(held, key=lambda s: (len(s), s))] if held else None

    def fault(self, column: str, word: str) -> str | None:
        """Why the word may not stand in the manifest's column; None where it may."""
        words: Mapping[str, object] | None = {
            "organ": self.organs,
            "anatomy": self.anatomy,
            "view": self.view,
            "pathology": self.pathology,
            "device_manufacturer": self.makers,
        }.get(column)
        if words is None:
            return _fault_of_free(column, word)
        if word in words:
            return None
        near = difflib.get_close_matches(word, list(words), n=1)
        return f"no such {column} in the vocabulary" + (f", did you mean {near[0]!r}?" if near else "")


def _fault_of_free(column: str, word: str) -> str | None:
    if column == "country":
        return None if re.fullmatch(r"[A-Z]{2}", word) else "not an ISO 3166-1 alpha-2 code"
    return None if column in FREE_COLUMNS else "not a manifest column that a card may set"


def _holds(text: str, spelling: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(spelling)}(?![a-z0-9])", text) is not None


@functools.cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary that comes with the package, read once."""
    raw = tomllib.loads(resources.files("openus_data").joinpath("data/vocabulary.toml").read_text("utf-8"))
    return Vocabulary(
        organs={organ: tuple(members) for organ, members in raw["organs"].items()},
        anatomy=_terms(raw["anatomy"]),
        view=_terms(raw["view"]),
        pathology=_terms(raw["pathology"]),
        makers={slug: maker["name"] for slug, maker in raw["manufacturer"].items()},
        spellings={s: slug for slug, maker in raw["manufacturer"].items() for s in maker["spellings"]},
    )


def _terms(raw: Mapping[str, Mapping[str, object]]) -> dict[str, Term]:
    known = {"meaning", "scheme", "code", "cid", "group"}
    return {slug: Term(slug=slug, **{k: v for k, v in t.items() if k in known}) for slug, t in raw.items()}  # type: ignore[arg-type]
