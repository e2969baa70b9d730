"""Cards: what one public dataset is, where it comes from, and how its files are read. Declarative, strictly loaded.

A card is `<id>.toml` in `manifests/`. Its keys are the fields of `Card` and of its parts (`card_fields.py`); unknown
keys, bad patterns and missing licences are errors that name file and key. What is not known is left out, and
what is doubtful is listed under `uncertain`. `items.py` turns the rules into items, `masks.py` reads the annotations.

    cards = load_cards()
    cards["busi"].license.class_
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from openus_data.card_check import check, hooks
from openus_data.card_fields import (
    Card,
    Citation,
    Device,
    Doubt,
    Download,
    Example,
    Expected,
    ImageRule,
    KeyRule,
    LabelRule,
    License,
    MaskRule,
    Mirror,
    Overlap,
    SplitRule,
    Table,
)
from openus_data.errors import CardError, UsageError
from openus_data.strict import FieldDoc, field_docs, load

__all__ = [
    "Card",
    "Citation",
    "Device",
    "Doubt",
    "Download",
    "Example",
    "Expected",
    "ImageRule",
    "KeyRule",
    "LabelRule",
    "License",
    "MaskRule",
    "Mirror",
    "Overlap",
    "SplitRule",
    "Table",
    "card_reference",
    "find_cards_dirs",
    "load_card",
    "load_cards",
    "named_cards",
    "open_cards",
    "resolve_cards",
]

CARDS_VARIABLE: Final = "OPENUS_CARDS"
LARGEST_CARD_BYTES: Final = 1 << 20


def find_cards_dirs(extra_dirs: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Folders that hold cards: the built-in one, those of OPENUS_CARDS, then `extra_dirs`; later ones win.

    Raises:
        UsageError: a folder that was asked for does not exist.
    """
    asked = [Path(p) for p in os.environ.get(CARDS_VARIABLE, "").split(os.pathsep) if p] + list(extra_dirs)
    for folder in asked:
        if not folder.is_dir():
            raise UsageError("no such folder of cards", where=folder.name)
    return (_built_in_cards(), *asked)


def _built_in_cards() -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / "manifests", package.parent / "manifests"):
        if folder.is_dir():
            return folder
    raise UsageError("the built-in cards are missing", next_step="install openus again")


def load_cards(extra_dirs: Iterable[Path] = ()) -> dict[str, Card]:
    """Every card, by id, in the order of ids.

    Raises:
        CardError: any card is wrong; all of them must be right.
    """
    found: dict[str, Card] = {}
    for folder in find_cards_dirs(extra_dirs):
        found.update({str(card.id): card for card in map(load_card, sorted(folder.glob("*.toml")))})
    return dict(sorted(found.items()))


def named_cards(ids: Sequence[str], extra_dirs: Iterable[Path] = ()) -> tuple[Card, ...]:
    """What `resolve_cards` gives of all cards; where every name is an id, no other card is loaded, which takes 0.1 s.

    Raises:
        UsageError: as `find_cards_dirs` and `resolve_cards`.
        CardError: as `load_card`.
    """
    extra = tuple(extra_dirs)
    known = {path.stem: path for folder in find_cards_dirs(extra) for path in sorted(folder.glob("*.toml"))}
    if all(name in known for name in ids):
        return tuple(load_card(known[name]) for name in dict.fromkeys(ids))
    return resolve_cards(ids, load_cards(extra))


def resolve_cards(ids: Iterable[str], cards: Mapping[str, Card]) -> tuple[Card, ...]:
    """The cards of the ids or aliases, each once, in the order asked for.

    Raises:
        UsageError: an id that no card has, with the nearest one.
    """
    by_alias: dict[str, list[Card]] = {}
    for card in cards.values():
        for name in (card.id, *card.aliases):
            by_alias.setdefault(str(name), []).append(card)
    chosen: dict[str, Card] = {}
    for wanted in ids:
        if wanted not in by_alias:
            plain = {name.casefold(): name for name in by_alias}
            near = difflib.get_close_matches(wanted.casefold(), list(plain), n=1)
            step = f"did you mean {plain[near[0]]!r}?" if near else "see openus-data list"
            raise UsageError("unknown dataset id", where=wanted, next_step=step)
        chosen.update({str(card.id): card for card in by_alias[wanted]})
    return tuple(chosen.values())


def open_cards(cards: Mapping[str, Card]) -> tuple[Card, ...]:
    """The cards whose data a program can fetch without an account, an agreement or a person, in the order of ids."""
    return tuple(c for c in cards.values() if c.access == "open" and c.downloads and not _needs_person(c))


def _needs_person(card: Card) -> bool:
    return all(d.source in ("manual", "kaggle_dataset", "kaggle_competition") for d in card.downloads)


def load_card(path: Path) -> Card:
    """One card, strictly.

    Raises:
        CardError: names the file and the key.
    """
    try:
        raw_bytes = path.read_bytes()
    except OSError as error:
        raise CardError("the card cannot be read", where=path.name, got=type(error).__name__) from error
    if len(raw_bytes) > LARGEST_CARD_BYTES:
        raise CardError("too large for a card", where=path.name, expected=f"at most {LARGEST_CARD_BYTES} bytes")
    try:
        raw = tomllib.loads(raw_bytes.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError("not a TOML file", where=path.name, got=str(error)) from error
    card = load(Card, raw, where=path.name, hooks=hooks())
    if card.id != path.stem:
        raise CardError(
            "the id is not the file's name", where=f"{path.name}.id", expected=repr(path.stem), got=repr(card.id)
        )
    check(card, path.name)
    return replace(card, sha256=hashlib.sha256(raw_bytes).hexdigest())


def card_reference() -> tuple[FieldDoc, ...]:
    """Every key of a card with its meaning, for the reference page."""
    return field_docs(Card)
