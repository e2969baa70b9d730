"""From a card's rules and a folder of files to items: which file is an image, its masks, labels, subject and split.

Nothing is opened except the tables that a card names. The order is that of the paths, so it is part of the result. What
no rule knows is a reject, not a silence; links, devices and pipes are rejected without being touched.

    for entry in list_items(card, files_dir):
        ...                                   # Item or Reject
    check = Listing(card, files_dir); list(check); check.counts
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from openus_data.card_fields import Card, ImageRule, KeyRule, LabelRule, MaskRule
from openus_data.deid.pseudonym import Pseudonymizer, public_pseudonymizer
from openus_data.errors import DecodeError, UsageError
from openus_data.patterns import key_of, matches
from openus_data.records import Item, Reject
from openus_data.tables import Row, member_of, read_table
from openus_data.vocabulary import load_vocabulary

JUNK_NAMES: Final = frozenset(
    {"thumbs.db", ".ds_store", "desktop.ini", "__macosx", ".git", ".gitattributes", ".gitignore"}
)
WHOLE_DATASET: Final = "whole dataset"
STAGE: Final = "list"


@dataclass(frozen=True, slots=True)
class Found:
    """A directory entry, before any rule.

    Args:
        relative: path below the folder, with forward slashes.
        fault: why it may not be opened, or None: link, special, unreadable, name.
    """

    relative: str = field(repr=False)
    fault: str | None = None


def walk(folder: Path) -> tuple[tuple[Found, ...], int]:
    """Every entry below a folder that is not a folder, sorted by path, and how many junk files were passed over.

    Links are never followed. A name that is not UTF-8 is a fault, and stands in hexadecimal.
    """
    found: list[Found] = []
    junk = 0
    pending = [(os.fsencode(folder), "")]
    while pending:
        here, prefix = pending.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            found.append(Found(prefix.rstrip("/") or ".", "unreadable"))
            continue
        for entry in entries:
            name = _readable(entry.name)
            if name is None:
                found.append(Found(prefix + entry.name.hex(), "name"))
            elif is_junk(name):
                junk += 1
            elif entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{prefix}{name}/"))
            else:
                found.append(Found(prefix + name, _fault(entry)))
    return tuple(sorted(found, key=lambda f: f.relative)), junk


def is_junk(name: str) -> bool:
    """Whether a file or folder is litter of an operating system or of version control."""
    return name.lower() in JUNK_NAMES or name.startswith("._")


def _readable(name: bytes) -> str | None:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _fault(entry: os.DirEntry[bytes]) -> str | None:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return "unreadable"
    if stat.S_ISLNK(mode):
        return "link"
    if not stat.S_ISREG(mode):
        return "special"
    return None if os.access(entry.path, os.R_OK) else "unreadable"


_FAULT_WORDS: Final = {
    "link": "a link; links are not followed",
    "special": "a pipe, socket or device; not opened",
    "unreadable": "no permission to read it",
    "name": "a name that is not UTF-8",
}


@dataclass
class Listing:
    """One pass over a dataset's files. Iterate over it once; the counts are complete when the iteration is.

    Args:
        card: the rules.
        files_dir: the unpacked files.
        pseudonymizer: names rejected items; the published key where None, which a private card may not use.

    Attributes:
        counts: files per role (image, mask, table, left-out, unlisted, junk, fault, repeat, ambiguous, orphan) and
            `masked`, the images that have a mask.
        rule_counts: files per rule, under names such as `images.0`.
        unmapped: per label, raw values that the card does not map, with counts.
        subjects: subject keys seen. Never shown, only counted.
        without_subject: images whose subject is not known.
        shared_keys: keys that more than one image has, so that a mask or row cannot be told apart.
    """

    card: Card
    files_dir: Path
    pseudonymizer: Pseudonymizer | None = None
    counts: Counter[str] = field(default_factory=Counter)
    rule_counts: Counter[str] = field(default_factory=Counter)
    unmapped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    subjects: set[str] = field(default_factory=set, repr=False)
    without_subject: int = 0
    shared_keys: int = 0

    def __post_init__(self) -> None:
        if self.card.private and self.pseudonymizer is None:
            raise UsageError("a private dataset needs the secret key", where=self.card.id)
        self._names = self.pseudonymizer or public_pseudonymizer()
        self._tables: dict[str, dict[str, Row]] = {}

    def __iter__(self) -> Iterator[Item | Reject]:
        images: list[tuple[str, int]] = []
        masks: dict[str, list[str]] = defaultdict(list)
        shared: list[str] = []
        tables: list[str] = []
        found, junk = walk(self.files_dir)
        self.counts["junk"] += junk
        for entry in found:
            role, index, reject = self._classify(entry)
            self.counts[role] += 1
            if reject:
                yield reject
            elif role == "image":
                images.append((entry.relative, index))
            elif role == "mask" and self.card.masks[index].shared:
                shared.append(entry.relative)
            elif role == "mask":
                masks[_key(self.card.masks[index], entry.relative)].append(entry.relative)
            elif role == "table":
                tables.append(entry.relative)
        yield from self._read_tables(tables + shared)  # one annotation file may be both mask and table
        yield from self._items(images, masks, shared)
        yield from self._orphans(masks)

    def _classify(self, entry: Found) -> tuple[str, int, Reject | None]:
        """Role of a file, index of its rule, and the reject where it has one."""
        if entry.fault:
            return "fault", 0, self._reject(entry.relative, entry.fault, _FAULT_WORDS[entry.fault])
        role, index = classify(self.card, entry.relative)
        if role == "ambiguous":
            return role, 0, self._reject(entry.relative, "ambiguous", "both an image rule and a mask rule pick it")
        if role == "unlisted":
            return role, 0, self._reject(entry.relative, "unlisted", "no rule of the card picks it")
        self.rule_counts[f"{role}s.{index}"] += 1
        return role, index, None

    def _items(
        self, images: list[tuple[str, int]], masks: dict[str, list[str]], shared: list[str]
    ) -> Iterator[Item | Reject]:
        seen: set[str] = set()
        keys = Counter(_key(self.card.images[index], relative) for relative, index in images)
        self.shared_keys = sum(1 for count in keys.values() if count > 1)
        taken: set[str] = set()
        for relative, index in images:
            rule = self.card.images[index]
            once = key_of(rule.once, relative) if rule.once else None
            if once is not None and once in seen:
                self.counts["repeat"] += 1
                yield self._reject(relative, "repeat", "the card says that this picture repeats another file")
                continue
            seen.update({once} if once is not None else ())
            key = _key(rule, relative)
            if rule.listed_in and not self._is_listed(rule.listed_in, relative, key):
                self.counts["left-out"] += 1
                continue
            taken.add(key)
            yield self._item(relative, rule, key, [*masks.get(key, ()), *shared])
        for key in taken:
            masks.pop(key, None)

    def _item(self, relative: str, rule: ImageRule, key: str, masks: list[str]) -> Item:
        facts: dict[str, str | float | None] = {**self.card.facts(), **rule.facts}
        labels: dict[str, str] = {}
        for label in self.card.labels:
            raw = self._raw(label, relative, key)
            if raw is not None:
                labels[label.name] = raw
                facts.update(self._meaning(label, raw))
        subject = self._subject(relative, key)
        self.counts["masked"] += bool(masks)
        return Item(
            dataset=self.card.id,
            path=self.files_dir / relative,
            relative=relative,
            subject=subject,
            study=self._read_key(self.card.study, relative, key) if self.card.study else None,
            split=self._split(relative, key),
            facts=_with_organ(facts),
            labels=labels,
            masks=tuple(self.files_dir / m for m in masks),
            frames=rule.frames,
        )

    def _subject(self, relative: str, key: str) -> str | None:
        subject = self._read_key(self.card.subject, relative, key)
        if subject is None and self.card.subject.fallback == "family":
            subject = f"family {self.card.leak_family}"
        if subject is None:
            self.without_subject += 1
        else:
            self.subjects.add(subject)
        return subject

    def _read_key(self, rule: KeyRule, relative: str, key: str) -> str | None:
        raw = self._raw(rule, relative, key)
        if raw is not None:
            return rule.values.get(raw, raw)
        if rule.fallback == "folder":
            return str(PurePosixPath(relative).parent)
        return WHOLE_DATASET if rule.fallback == "dataset" else None

    def _raw(self, rule: LabelRule | KeyRule, relative: str, key: str) -> str | None:
        if rule.path:
            return key_of(rule.path, relative)
        row = self._row(rule.table, relative, key) if rule.table else None
        raw = row.get(rule.column or "") if row is not None else None
        if raw and isinstance(rule, LabelRule) and rule.member:
            raw = member_of(raw, rule.member)
        return raw or None

    def _row(self, name: str, relative: str, key: str) -> Row | None:
        table = next(t for t in self.card.tables if t.name == name)
        own = key_of(table.image_key, relative) if table.image_key else key
        return self._tables.get(name, {}).get(own.casefold()) if own else None

    def _is_listed(self, name: str, relative: str, key: str) -> bool:
        """Whether the table has the image; an optional table that this copy lacks has every image."""
        optional = any(t.name == name and t.optional for t in self.card.tables)
        return (optional and name not in self._tables) or self._row(name, relative, key) is not None

    def _meaning(self, label: LabelRule, raw: str) -> Mapping[str, str]:
        if raw in label.values:
            return label.values[raw]
        if not label.open:
            self.unmapped[label.name][raw] += 1
        return {}

    def _split(self, relative: str, key: str) -> str | None:
        for rule in self.card.split:
            raw: str | None = None
            if rule.path:
                raw = key_of(rule.path, relative)
            elif rule.table and (row := self._row(rule.table, relative, key)) is not None:
                raw = row.get(rule.column) if rule.column else "*"
            if raw is not None and raw in rule.values:
                return rule.values[raw]
        return None

    def _read_tables(self, files: list[str]) -> Iterator[Reject]:
        for index, table in enumerate(self.card.tables):
            picked = [f for f in files if any(matches(g, f) for g in table.match)]
            self.rule_counts[f"tables.{index}"] = len(picked)
            if not picked and table.optional:
                continue
            if not picked:
                yield self._reject(f"table {table.name}", "table_missing", f"no file for the card's table {table.name}")
                continue
            try:
                self._tables[table.name] = read_table(table, [self.files_dir / f for f in picked])
            except DecodeError as error:
                yield self._reject(f"table {table.name}", "table_unreadable", str(error))

    def _orphans(self, masks: Mapping[str, list[str]]) -> Iterator[Reject]:
        for relative in sorted(m for members in masks.values() for m in members):
            self.counts["orphan"] += 1
            yield self._reject(relative, "mask_without_image", "no image of the card's rules has its key")

    def _reject(self, relative: str, reason: str, detail: str) -> Reject:
        return reject_of(self.card.id, relative, reason, detail, self._names)


def list_items(card: Card, files_dir: Path, pseudonymizer: Pseudonymizer | None = None) -> Iterator[Item | Reject]:
    """The images of a dataset with masks, labels, subjects and splits, and a reject for every file that no rule knows.

    Args:
        card: the rules.
        files_dir: the unpacked files, `ROOT/<id>/files`.
        pseudonymizer: names rejected items; the published key where None.

    Raises:
        UsageError: a private card without a key.
    """
    return iter(Listing(card, files_dir, pseudonymizer))


def folder_items(folder: Path, name: str, pseudonymizer: Pseudonymizer) -> Iterator[Item | Reject]:
    """Every readable file of a private folder, as an item of the dataset `name`; decoders judge what is a picture.

    The subject is the top folder, unless a file's header names one later; a file at the top is its own subject.
    """
    found, _ = walk(folder)
    for entry in found:
        if entry.fault:
            yield reject_of(name, entry.relative, entry.fault, _FAULT_WORDS[entry.fault], pseudonymizer)
            continue
        top, _, rest = entry.relative.partition("/")
        yield Item(dataset=name, path=folder / entry.relative, relative=entry.relative, subject=top if rest else None)


def classify(card: Card, relative: str) -> tuple[str, int]:
    """Role of a path under a card's rules (image, mask, table, left-out, ambiguous, unlisted) and the rule's index."""
    image = _first(card.images, relative)
    mask = _first(card.masks, relative)
    if image is not None and mask is not None:
        return "ambiguous", 0
    if image is not None:
        return "image", image
    if mask is not None:
        return "mask", mask
    table = next((i for i, t in enumerate(card.tables) if any(matches(g, relative) for g in t.match)), None)
    if table is not None:
        return "table", table
    return ("left-out" if any(matches(g, relative) for g in card.leave_out) else "unlisted"), 0


def image_rule(card: Card, relative: str) -> ImageRule | None:
    """The rule that makes the path an image; None where it is none."""
    role, index = classify(card, relative)
    return card.images[index] if role == "image" else None


def image_key(card: Card, relative: str) -> str:
    """The key under which masks and tables know the image, folded to lower case."""
    rule = image_rule(card, relative)
    return _key(rule or ImageRule(match=()), relative)


def mask_key(card: Card, relative: str) -> str:
    """The key of the image that an annotation file belongs to, folded to lower case."""
    role, index = classify(card, relative)
    return _key(card.masks[index] if role == "mask" else MaskRule(match=()), relative)


def reject_of(dataset: str, relative: str, reason: str, detail: str, names: Pseudonymizer) -> Reject:
    """A reject of the listing stage; the item is named by its keyed pseudonym."""
    return Reject(
        dataset=dataset, item=names.identifier("item", dataset, relative), stage=STAGE, reason=reason, detail=detail
    )


def _first(rules: Sequence[ImageRule | MaskRule], relative: str) -> int | None:
    for index, rule in enumerate(rules):
        if any(matches(g, relative) for g in rule.match) and not any(matches(g, relative) for g in rule.exclude):
            return index
    return None


def _key(rule: ImageRule | MaskRule, relative: str) -> str:
    """The key that pairs an image with its masks and rows."""
    key = key_of(rule.key, relative) if rule.key else None
    if key is None:
        name = PurePosixPath(relative).name
        key = name.removesuffix(".gz").rpartition(".")[0] or name
    return key.casefold()


def _with_organ(facts: dict[str, str | float | None]) -> dict[str, str | float | None]:
    """Let a label's anatomy bring its own organ, where the card's organ does not hold it."""
    vocabulary = load_vocabulary()
    organ, anatomy = facts.get("organ"), facts.get("anatomy")
    if isinstance(anatomy, str) and anatomy not in vocabulary.organs.get(str(organ), ()):
        facts["organ"] = vocabulary.organ_of(anatomy) or organ
    return facts
