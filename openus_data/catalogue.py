"""The commands `list`, `show` and `check-card`: what the cards say, and what a card's rules make of a folder.

report = list_datasets([], openus=True)
sum(d["openus_images"] for d in report.to_json()["datasets"])      # 309364
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from openus_data.card import Card, load_card, load_cards, resolve_cards
from openus_data.citation import bibtex
from openus_data.deid.pseudonym import public_pseudonymizer
from openus_data.errors import UsageError
from openus_data.items import Listing, classify, image_key, mask_key
from openus_data.patterns import key_of
from openus_data.records import Item, Reject

Json = dict[str, object]
_SHOWN_PER_LABEL = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReport:
    """The cards that were asked for, by id.

    Args:
        cards: in the order of ids.
    """

    cards: tuple[Card, ...]
    exit_code: int = 0

    def to_json(self) -> Json:
        """`{"datasets": [...]}`, a summary per card."""
        return {"datasets": [summary(card) for card in self.cards]}

    def to_text(self) -> str:
        """A table for a terminal, with the sums at its end."""
        heads = ("id", "organ", "images", "openus", "access", "license", "host")
        rows = [
            (
                c.id,
                c.organ,
                _number(c.expected.images),
                _number(c.expected.openus_images),
                c.access,
                _license_word(c),
                c.host,
            )
            for c in self.cards
        ]
        totals = [_number(sum(getattr(c.expected, k) or 0 for c in self.cards)) for k in ("images", "openus_images")]
        return table(heads, [*rows, (f"{len(self.cards)} datasets", "", *totals, "", "", "")])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowReport:
    """One card whole.

    Args:
        card: the card.
    """

    card: Card
    exit_code: int = 0

    def to_json(self) -> Json:
        """Every key of the card, the summary's keys first."""
        whole = plain(self.card)
        assert isinstance(whole, dict)
        return {**summary(self.card), "card": whole, "bibtex": bibtex(self.card)}

    def to_text(self) -> str:
        """The card for a person: facts, warnings, doubts and how to obtain it."""
        return "\n".join(_show_lines(self.card))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a card's rules make of a folder.

    Args:
        card: the card, which loaded.
        listing: what the rules picked, or None where no folder was given.
        items, rejects: how many of each.
        reasons: rejects by reason.
        splits: images by published split.
    """

    card: Card
    listing: Listing | None = None
    items: int = 0
    rejects: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong between the card and the folder."""
        return tuple(self._faults())

    @property
    def exit_code(self) -> int:
        """1 where the rules do not fit the folder."""
        return 1 if self.faults else 0

    def to_json(self) -> Json:
        """Counts per role and rule, subjects, unmapped labels and faults."""
        answer: Json = {"id": self.card.id, "valid": True, "faults": list(self.faults)}
        if self.listing is not None:
            answer |= {
                "images": self.items,
                "roles": dict(sorted(self.listing.counts.items())),
                "rules": dict(sorted(self.listing.rule_counts.items())),
                "subjects": len(self.listing.subjects),
                "without_subject": self.listing.without_subject,
                "splits": dict(sorted(self.splits.items())),
                "rejects": dict(sorted(self.reasons.items())),
                "shared_keys": self.listing.shared_keys,
                "unmapped": {
                    k: dict(v.most_common(_SHOWN_PER_LABEL)) for k, v in sorted(self.listing.unmapped.items())
                },
                "expected": plain(self.card.expected),
            }
        return answer

    def to_text(self) -> str:
        """The same for a person."""
        lines = [f"{self.card.id}: the card is valid"]
        if self.listing is not None:
            lines += self._listing_lines(self.listing)
        return "\n".join([*lines, *(f"fault: {f}" for f in self.faults)])

    def _listing_lines(self, listing: Listing) -> Iterator[str]:
        yield f"images    {self.items}" + _against(self.items, self.card.expected.files)
        if listing.subjects:
            yield f"subjects  {len(listing.subjects)}" + _against(len(listing.subjects), self.card.expected.subjects)
        if listing.without_subject:
            yield f"without a subject  {listing.without_subject}"
        for name, counts in (("role", listing.counts), ("rule", listing.rule_counts), ("split", self.splits)):
            yield from (f"{name} {key}  {count}" for key, count in sorted(counts.items()) if count)
        for label, raws in sorted(listing.unmapped.items()):
            for raw, count in raws.most_common(_SHOWN_PER_LABEL):
                yield f"label {label}: {raw!r} is not mapped ({count} images)"
        if self.rejects:
            yield "rejects   " + ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))

    def _faults(self) -> Iterator[str]:
        yield from example_faults(self.card)
        if self.listing is None:
            return
        if not self.items:
            yield "no file is an image under the card's rules"
        for index in range(len(self.card.masks)):
            if self.items and not self.listing.rule_counts.get(f"masks.{index}"):
                yield f"masks.{index} picks no file"
        for reason in ("ambiguous", "mask_without_image", "table_missing", "table_unreadable"):
            if self.reasons.get(reason):
                yield f"{reason}: {self.reasons[reason]}"
        if self.listing.shared_keys and (self.card.masks or self.card.tables):
            yield f"{self.listing.shared_keys} keys name more than one image"


def list_datasets(
    cards_dirs: Iterable[Path] = (),
    *,
    openus: bool = False,
    organ: str | None = None,
    access: str | None = None,
    license_class: str | None = None,
) -> ListReport:
    """The cards, filtered; every filter that is given must hold.

    Args:
        cards_dirs: further folders of cards.
        openus: only the 42 of the OpenUS list.
        organ: coarse organ or fine anatomy.
        access: as in the card.
        license_class: class of the licence, or its SPDX id.

    Raises:
        CardError: a card is wrong.
        UsageError: a filter's value that no card has.
    """
    cards = tuple(load_cards(cards_dirs).values())
    chosen = _having("organ", organ, cards, lambda c: (c.organ, *c.anatomy))
    chosen &= _having("access", access, cards, lambda c: (c.access,))
    chosen &= _having("license", license_class, cards, lambda c: (c.license.class_, c.license.spdx or c.license.class_))
    return ListReport(cards=tuple(c for c in cards if c.id in chosen and (c.is_openus or not openus)))


def _having(
    name: str, wanted: str | None, cards: tuple[Card, ...], values: Callable[[Card], tuple[str, ...]]
) -> set[str]:
    """Ids of the cards that have the wanted value; of all, where none is wanted."""
    found = {str(c.id) for c in cards if wanted is None or wanted in values(c)}
    if not found:
        known = sorted({v for c in cards for v in values(c)})
        raise UsageError(f"no card has this {name}", where=str(wanted), expected="one of " + ", ".join(known))
    return found


def show_dataset(dataset: str, cards_dirs: Iterable[Path] = ()) -> ShowReport:
    """One card whole.

    Raises:
        UsageError: no card has this id; names the nearest.
    """
    chosen = resolve_cards([dataset], load_cards(cards_dirs))
    if len(chosen) > 1:
        names = ", ".join(c.id for c in chosen)
        raise UsageError("a bundle of several datasets", where=dataset, next_step=f"show one of {names}")
    return ShowReport(card=chosen[0])


def check_card(file: Path, files_dir: Path | None = None) -> CheckReport:
    """Load a card strictly, and where a folder is given, count what each rule makes of it.

    Raises:
        CardError: the card is wrong; names file and key.
        UsageError: the folder does not exist.
    """
    card = load_card(file)
    if files_dir is None:
        return CheckReport(card=card)
    if not files_dir.is_dir():
        raise UsageError("no such folder", where="--files")
    listing = Listing(card, files_dir, public_pseudonymizer())  # only counted: no name leaves this function
    items, reasons, splits = 0, dict[str, int](), dict[str, int]()
    for entry in listing:
        if isinstance(entry, Reject):
            reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
        elif isinstance(entry, Item):
            items += 1
            splits[entry.split or "none"] = splits.get(entry.split or "none", 0) + 1
    rejects = sum(reasons.values())
    return CheckReport(card=card, listing=listing, items=items, rejects=rejects, reasons=reasons, splits=splits)


def example_faults(card: Card) -> Iterator[str]:
    """Where the rules make something else of an example path than the card says."""
    for number, example in enumerate(card.examples):
        role, _ = classify(card, example.path)
        found = {"role": role}
        if role in ("image", "mask"):
            found["key"] = (image_key if role == "image" else mask_key)(card, example.path)
        if role == "image" and card.subject.path:
            raw = key_of(card.subject.path, example.path) or ""
            found["subject"] = card.subject.values.get(raw, raw)
        for name, value in found.items():
            said = getattr(example, name)
            if said is not None and said.casefold() != value.casefold():
                yield f"examples.{number}.{name}: the card says {said!r}, its rules say {value!r}"


def summary(card: Card) -> Json:
    """The row of `list --json`."""
    return {
        "id": card.id,
        "title": card.title,
        "organ": card.organ,
        "anatomy": list(card.anatomy),
        "images": card.expected.images,
        "openus_images": card.expected.openus_images,
        "access": card.access,
        "license": card.license.name or "unknown",
        "license_class": card.license.class_,
        "redistributable": card.license.redistributable,
        "host": card.host,
        "role": card.role,
    }


def datasets_markdown(cards: Iterable[Card]) -> str:
    """The table of datasets for the README, in Markdown, OpenUS's own first."""
    ordered = sorted(cards, key=lambda c: (not c.is_openus, c.organ, c.id))
    lines = ["| id | dataset | organ | images | in OpenUS | access | licence |", "|---|---|---|--:|--:|---|---|"]
    for card in ordered:
        title = card.title.replace("|", "\\|")
        counts = f"{_number(card.expected.images)} | {_number(card.expected.openus_images)}"
        cells = (f"`{card.id}`", f"[{title}]({card.homepage})", card.organ, counts, card.access, _license_word(card))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plain(value: object) -> object:
    """A card or a part of one as JSON values, keys as in the file, without what is not said."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(f.name.removesuffix("_"), getattr(value, f.name)) for f in fields(value)]
        return {k: plain(v) for k, v in pairs if v is not None and v != () and v != {} and v != ""}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return value


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns of text, as wide as they need to be; numbers stand right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    numeric = [all(row[i].replace(",", "").isdigit() or row[i] in ("", "?") for row in rows) for i in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _show_lines(card: Card) -> Iterator[str]:
    yield f"{card.id}: {card.title}"
    facts = {
        "homepage": card.homepage,
        "role": card.role,
        "organ": card.organ + (f" ({', '.join(card.anatomy)})" if card.anatomy else ""),
        "views": card.views or card.view or "",
        "imaged": card.imaged,
        "access": f"{card.access}, {card.host}",
        "licence": f"{card.license.spdx or card.license.terms} ({card.license.class_}; "
        + ("may be handed on under its terms)" if card.license.redistributable else "may not be handed on)"),
        "read at": card.license.read_at or "",
        "cite": card.citation.text + (f", doi:{card.citation.doi}" if card.citation.doi else ""),
        "devices": "; ".join(" ".join(p for p in (d.manufacturer, d.model, d.transducer) if p) for d in card.devices),
        "institutions": "; ".join(card.institutions),
        "countries": ", ".join(card.countries),
        "counts": ", ".join(f"{k} {v}" for k, v in _counts(card)),
        "count note": card.expected.note or "",
        "masks": ", ".join(card.mask_classes),
        "labels": ", ".join(dict.fromkeys(rule.name for rule in card.labels)),
        "split": card.split[0].note or "published" if card.split else "none published",
        "subject": card.subject.note or "",
    }
    yield from (f"  {name:<13}{value}" for name, value in facts.items() if value)
    for title, lines in _show_sections(card):
        if lines:
            yield title
            yield from (f"  - {line}" for line in lines)


def _show_sections(card: Card) -> Iterator[tuple[str, list[str]]]:
    yield (
        "files",
        [
            " ".join(p for p in (d.source, d.locator, d.filename or "(every file)", d.note or "") if p)
            for d in card.downloads
        ],
    )
    yield "how to obtain it by hand", list(card.obtain)
    yield "warnings", list(card.warnings)
    yield "overlaps", [f"{o.other}: {o.what}" for o in card.overlaps]
    yield "not certain", [f"{d.field}: {d.doubt}" for d in card.uncertain]


def _counts(card: Card) -> Iterator[tuple[str, int]]:
    for name in ("images", "openus_images", "files", "subjects", "clips", "volumes"):
        value = getattr(card.expected, name)
        if value is not None:
            yield name, value


def _license_word(card: Card) -> str:
    return card.license.spdx or card.license.class_


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _against(found: int, expected: int | None) -> str:
    return "" if expected is None else f" (the card expects {expected})" if found != expected else " (as expected)"
