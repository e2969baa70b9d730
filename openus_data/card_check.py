"""What makes a card wrong beyond the type of a key: patterns, checksums, references between keys, the vocabulary.

Used by `card.load_card` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openus_data.card_fields import (
    Card,
    Checksum,
    CountryCode,
    Doi,
    FramePolicy,
    Id,
    KeyRule,
    LabelRule,
    License,
    SplitRule,
)
from openus_data.errors import CardError
from openus_data.patterns import Glob, PathRule, compile_glob, compile_rule
from openus_data.strict import Hook
from openus_data.vocabulary import load_vocabulary


def hooks() -> Mapping[Any, Hook]:
    return {
        Glob: lambda text: _compiles(compile_glob, text),
        PathRule: lambda text: _compiles(compile_rule, text),
        Checksum: _like(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", "sha256:<64 hex digits> or md5:<32 hex digits>"),
        CountryCode: _like(r"[A-Z]{2}", "an ISO 3166-1 alpha-2 code"),
        Doi: _like(r"10\.\d{4,9}/\S+", "a DOI such as 10.1000/182, without https://doi.org/"),
        FramePolicy: _like(r"all|novel|annotated|(?:every|max) [1-9]\d*", "all, every N, max N, novel or annotated"),
        Id: _like(r"[a-z0-9][a-z0-9_-]*", "an id of a-z, 0-9, _ and -"),
    }


def _compiles(compiler: Any, text: str) -> str | None:
    try:
        compiler(text)
    except ValueError as error:
        return str(error)
    return None


def _like(pattern: str, words: str) -> Hook:
    return lambda text: None if re.fullmatch(pattern, text) else words


def check(card: Card, where: str) -> None:
    """What no single key can show: references between keys, and words of the vocabulary."""
    _check_license(card.license, f"{where}.license")
    _check_words(card, where)
    _check_masks(card, where)
    _check_references(card, where)
    if not card.images:
        raise CardError("no image rule", where=f"{where}.images")
    if not card.downloads:
        raise CardError(
            "no download", where=f"{where}.downloads", next_step='a set that a person must get has source = "manual"'
        )
    if any(d.source == "manual" for d in card.downloads) and not card.obtain:
        raise CardError("no word on how to obtain it", where=f"{where}.obtain", expected="steps for a person")


def _check_license(terms: License, where: str) -> None:
    if not terms.spdx and not terms.terms:
        raise CardError("a licence without SPDX id and without terms", where=where, expected="spdx or terms")
    if terms.redistributable and terms.class_ in ("agreement-no-redistribution", "unknown", "conflicting"):
        raise CardError(
            "the class does not allow handing on", where=f"{where}.redistributable", got=f"class {terms.class_!r}"
        )


def _check_words(card: Card, where: str) -> None:
    vocabulary = load_vocabulary()
    facts = [(f"images.{i}.facts", rule.facts) for i, rule in enumerate(card.images)]
    facts += [(f"labels.{i}.values.{raw}", f) for i, rule in enumerate(card.labels) for raw, f in rule.values.items()]
    facts.append(("", {"organ": card.organ} | ({"view": card.view} if card.view else {})))
    facts += [(f"anatomy.{i}", {"anatomy": a}) for i, a in enumerate(card.anatomy)]
    facts += [
        (f"devices.{i}", {"device_manufacturer": d.manufacturer}) for i, d in enumerate(card.devices) if d.manufacturer
    ]
    for place, columns in facts:
        for column, word in columns.items():
            if fault := vocabulary.fault(column, word):
                raise CardError(fault, where=".".join(p for p in (where, place, column) if p), got=repr(word))


def _check_masks(card: Card, where: str) -> None:
    if sorted(card.mask_classes.values()) != list(range(1, len(card.mask_classes) + 1)):
        raise CardError("values do not count from 1", where=f"{where}.mask_classes", got=str(dict(card.mask_classes)))
    for index, rule in enumerate(card.masks):
        place = f"{where}.masks.{index}"
        single = rule.encoding in ("binary", "outline", "points", "rle-table")
        if single != (rule.class_ is not None) or single == bool(rule.values):
            raise CardError(
                "class and values do not fit the encoding", where=place, expected="class" if single else "values"
            )
        for name in {rule.class_ or "", *rule.values.values()} - {""}:
            if name not in card.mask_classes:
                raise CardError("a class that mask_classes does not list", where=place, got=repr(name))


def _check_references(card: Card, where: str) -> None:
    names = [t.name for t in card.tables]
    if len(set(names)) != len(names):
        raise CardError("two tables of one name", where=f"{where}.tables")
    rules: list[tuple[str, LabelRule | SplitRule | KeyRule]] = [(f"labels.{i}", r) for i, r in enumerate(card.labels)]
    rules += [(f"split.{i}", r) for i, r in enumerate(card.split)]
    rules += [(k, r) for k, r in (("subject", card.subject), ("study", card.study)) if r]
    for index, image in enumerate(card.images):
        if image.listed_in and image.listed_in not in names:
            raise CardError("no such table", where=f"{where}.images.{index}.listed_in", got=repr(image.listed_in))
    for place, rule in rules:
        if rule.table and rule.table not in names:
            raise CardError("no such table", where=f"{where}.{place}.table", got=repr(rule.table))
        if rule.path and rule.table:
            raise CardError("both path and table", where=f"{where}.{place}", expected="one of them")
        if rule.column and not rule.table:
            raise CardError("a column without a table", where=f"{where}.{place}.column")
    if card.subject.fallback == "family" and not card.leak_family:
        raise CardError("no leak family to fall back on", where=f"{where}.subject.fallback")
