"""A second look at what was written: strings that read like a header, in a place where none should be.

The audit calls `scan_row` on every row of the manifest and the rejects, and `scan_json` on every sidecar. A finding
names the place and the kind, and shows only the shape of the text: a report on a leak must not repeat it.

    >>> [f.kind for f in scan_text("SMITH^JANE", place="labels")]
    ['person-name']
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from openus_data.deid.values import split_words

_YEAR, _MONTH, _DAY = r"(?:18|19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"

KINDS: Final[Mapping[str, re.Pattern[str]]] = {
    "uid": re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){4,}(?![\d.])"),
    "date": re.compile(
        rf"(?<![\d.]){_YEAR}(?:{_MONTH}{_DAY}(?:\d{{6}})?|[-./]{_MONTH}[-./]{_DAY})(?!\d)"
        rf"|(?<![\d.]){_DAY}[-./]{_MONTH}[-./]{_YEAR}(?!\d)|(?<![\d.]){_MONTH}/{_DAY}/{_YEAR}(?!\d)"
    ),
    "person-name": re.compile(r"[^\W\d_]{2,}\^[^\W\d_]*|(?<!\w)(?:Dr|Mr|Mrs|Ms|Prof)\.? [^\W\d_]{2,}"),
    "e-mail": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "path": re.compile(r"(?<![\w.:/])/(?:[\w.-]+/){2,}|(?<!\w)[A-Za-z]:\\|\\\\[\w.-]+\\|(?<!\w)file://"),
    "phone": re.compile(r"(?<![\w.])\+\d[\d ()-]{7,}\d|(?<![\w.])\(?\d{3}\)?[ -]\d{3}[ -]\d{4}(?!\d)"),
    "number": re.compile(r"(?<![\d.A-Fa-f])\d{6,}(?![\d.A-Fa-f])"),
}
"""What header-like text looks like. A decimal is no number of a record; a run of hexadecimal digits is a digest."""

_HEX: Final = r"(?:[a-z0-9_]+-)*[0-9a-f]{8,64}"
SHAPES: Final[Mapping[str, re.Pattern[str]]] = {
    "sample_id": re.compile(r"[a-z0-9_-]+-[0-9a-f]{12,64}"),
    "subject_id": re.compile(_HEX),
    "study_id": re.compile(_HEX),
    "duplicate_group": re.compile(_HEX),
    "item": re.compile(r"[a-z0-9_-]*[0-9a-f]{8,64}(?:[-#:]\d+)?"),
    "pixel_sha256": re.compile(r"[0-9a-f]{64}"),
    "source_sha256": re.compile(r"[0-9a-f]{64}"),
    "card_sha256": re.compile(r"[0-9a-f]{64}"),
    "phash": re.compile(r"[0-9a-f]{64}"),
    "shard": re.compile(r"shards/[a-z]+/openus-[a-z]+-\d{6}\.tar"),
}
"""Columns of keyed ids: their whole value must have this shape, and is then not looked at further."""


_OWN_UID: Final = re.compile(r"transfer syntax [a-z ]+; got (?!\S*\d{7})[0-9.]{1,32}(?=;|$)")
"""A transfer syntax that a decoder names by its UID, in the detail of a reject: too short to be an instance's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Text that should not be there.

    Args:
        place: column, or path of keys in a JSON document.
        kind: a name of `KINDS`; "shape" for an id that is none; "known-word" for a word of the source's own headers.
        shape: the text with letters as `a`, digits as `9`, cut to 40 characters.
    """

    place: str
    kind: str
    shape: str


def scan_text(text: str, *, place: str, words: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Look at one string.

    Args:
        text: the string.
        place: how to name it in a finding.
        words: words of the source's own headers (`headers.identity_words`), lower case.
    """
    for kind, pattern in KINDS.items():
        found = pattern.search(text)
        if found:
            yield Finding(place=place, kind=kind, shape=_shape(found.group()))
            break
    known = next((word for word in split_words(text) if word in words), None)
    if known is not None:
        yield Finding(place=place, kind="known-word", shape=_shape(known))


def scan_row(row: Mapping[str, object], *, words: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Look at every text of a row of the manifest or the rejects."""
    for column, value in row.items():
        shape = SHAPES.get(column)
        if shape is not None and isinstance(value, str):
            if not shape.fullmatch(value):
                yield Finding(place=column, kind="shape", shape=_shape(value))
        elif column == "labels" and isinstance(value, str):
            yield from _scan_labels(value, words)
        elif column == "detail" and isinstance(value, str):
            yield from scan_text(_OWN_UID.sub("transfer syntax", value), place=column, words=words)
        else:
            yield from scan_json(value, place=column, words=words)


def _scan_labels(text: str, words: frozenset[str]) -> Iterator[Finding]:
    try:
        labels = json.loads(text)
    except ValueError:
        yield Finding(place="labels", kind="shape", shape=_shape(text))
        return
    yield from scan_json(labels, place="labels", words=words)


def scan_json(value: object, *, place: str = "", words: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Look at every key and every string of a JSON value, and at every column shape among its keys."""
    if isinstance(value, str):
        yield from scan_text(value, place=place or "text", words=words)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from scan_text(str(key), place=f"{place}: a key", words=words)
            named = SHAPES.get(str(key))
            if named is not None and isinstance(inner, str) and named.fullmatch(inner):
                continue
            yield from scan_json(inner, place=f"{place}.{key}" if place else str(key), words=words)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for inner in value:
            yield from scan_json(inner, place=place, words=words)


def _shape(text: str) -> str:
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "a", text))[:40]
