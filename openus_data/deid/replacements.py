"""Value rules that need more than the value: the key, the patient, the other words of the header, the vocabulary.

Like those of `values.py` they return what may be written or None, and never raise.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal

from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

from openus_data.deid import device_names, headers, values
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.vocabulary import Term, load_vocabulary

Dates = Literal["remove", "shift"]

_NAMESPACE: Final = "dicom"
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_DATETIME: Final = re.compile(r"(\d{8})((?:[01]\d|2[0-3])(?:[0-5]\d){0,2}(?:\.\d{1,6})?)?([+-]\d{4})?")
_METHOD_VERSION: Final = re.compile(r"v?\d{1,2}(\.\d{1,2}(\.\d)?)?")
"""A version of a tool; three numbers of which the last has two digits could be a date."""
_MOST_METHODS: Final = 8
_FRAME_POINTERS: Final = frozenset({0x00181063, 0x00181065})


@functools.cache
def load_allowlist() -> Mapping[str, Any]:
    """The tables of `data/deid_allowlist.toml`, read once."""
    return tomllib.loads((resources.files("openus_data") / "data" / "deid_allowlist.toml").read_text("utf-8"))


@functools.cache
def _closed(name: str) -> frozenset[str]:
    return frozenset(load_allowlist()["closed"][name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a rule may look at besides the value.

    Args:
        pseudonyms: names under the user's key.
        patient: the header's key of the patient (issuer and number, or what stands in). Never shown.
        private_words: words of persons, places and numbers of this header, folded. Never shown.
        dates: whether dates are left out or moved.
        other_text: gives all text of the header, folded, without the fields that name devices. Never shown.
    """

    pseudonyms: Pseudonymizer
    patient: str = field(repr=False)
    private_words: frozenset[str] = field(repr=False)
    dates: Dates
    other_text: Callable[[], str] = field(default=str, repr=False)

    @property
    def patient_pseudonym(self) -> str:
        """The patient's name in the output, 20 hexadecimal digits."""
        return self.pseudonyms.identifier("patient", _NAMESPACE, self.patient)


def uid(raw: object, context: Context) -> str | None:
    """A UID under the key in place of a UID; UIDs of the standard itself stay."""
    original = values.instance_uid(raw)
    if original is None:
        return None
    return values.standard_uid(original) or context.pseudonyms.uid(original)


def patient(raw: object, context: Context) -> str:
    """The patient's pseudonym, whatever the raw value is."""
    del raw
    return context.patient_pseudonym


def device(raw: object, context: Context) -> str | None:
    """A maker's or model's name by `device_names`; else the vocabulary's word for the maker, else nothing."""
    text = device_names.clean_device(raw, context.private_words, context.other_text)
    return text or headers.maker_of(values.first(raw)[:64])


def transducer(raw: object, context: Context) -> str | None:
    """A transducer's name by `device_names`."""
    return device_names.clean_transducer(raw, context.private_words)


def date(raw: object, context: Context) -> str | None:
    """A moved date, or nothing."""
    found = _DATE.fullmatch(values.first(raw))
    return _shifted("".join(found.groups()), context) if found and context.dates == "shift" else None


def time(raw: object, context: Context) -> str | None:
    """The time of day where dates are moved by whole days, or nothing."""
    text = values.first(raw)
    return text if context.dates == "shift" and _TIME.fullmatch(text) else None


def datetime(raw: object, context: Context) -> str | None:
    """A date moved, its time of day and zone kept; or nothing."""
    found = _DATETIME.fullmatch(values.first(raw))
    if not found or context.dates != "shift":
        return None
    moved = _shifted(found.group(1), context)
    return None if moved is None else moved + (found.group(2) or "") + (found.group(3) or "")


def _shifted(digits: str, context: Context) -> str | None:
    offset = dt.timedelta(days=context.pseudonyms.date_offset_days(_NAMESPACE, context.patient))
    try:
        return (dt.datetime.strptime(digits, "%Y%m%d").date() + offset).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        return None


def modality(raw: object) -> str | None:
    """US, IVUS or OT."""
    text = values.first(raw)
    return text if text in _closed("modality") else None


def conversion(raw: object) -> str | None:
    """The standard's codes."""
    text = values.first(raw)
    return text if text in _closed("conversion") else None


def image_type(raw: object) -> list[str] | None:
    """The standard's values in their places, an unknown third one empty; the fourth is four hexadecimal digits."""
    known = _closed("image_type")
    parts = [text if text in known else "" for text in values.texts(raw)[:3]]
    fourth = values.texts(raw)[3:4]
    if fourth and re.fullmatch(r"[0-9A-F]{4}", fourth[0]):
        parts.append(fourth[0])
    while parts and not parts[-1]:
        parts.pop()
    return parts or None


def compression(raw: object) -> list[str] | None:
    """The standard's values."""
    return [text for text in values.texts(raw) if text in _closed("compression")] or None


def orientation(raw: object) -> list[str] | str:
    """The standard's letters, or empty: the attributes are of type 2."""
    texts = values.texts(raw)
    return list(texts) if texts and all(text in _closed("orientation") for text in texts) else ""


def body_part(raw: object) -> str | None:
    """The standard's term for the anatomy that the text maps to."""
    table = load_allowlist()["body_part"]
    text = values.first(raw)
    if text in table.values():
        return text
    found = _terms_of(text)
    term = table.get(found[0]) if len(found) == 1 else None
    return str(term) if term is not None else None


def terms(raw: object) -> str | None:
    """The vocabulary's words for what the text mentions, sorted; the text itself never passes."""
    return " ".join(_terms_of(values.first(raw)))[:64] or None


def _terms_of(text: str) -> tuple[str, ...]:
    table = headers.load_terms()
    low = text[:256].lower().replace("_", " ")
    groups = (table.anatomy, table.organ, table.view)
    return tuple(sorted({name for group in groups for name, pattern in group.items() if pattern.search(low)}))


def code(raw: object) -> DicomSequence | None:
    """Coded concepts that the vocabulary holds, rebuilt with its own scheme and meaning."""
    if not isinstance(raw, Iterable):
        return None
    codes, vocabulary = headers.load_terms().codes, load_vocabulary()
    items = []
    for item in raw:
        name = codes.get(values.first(headers.read_value(item, "CodeValue"))) if isinstance(item, Dataset) else None
        term = None if name is None else vocabulary.anatomy.get(name) or vocabulary.view.get(name)
        if term is not None and term.code is not None:
            items.append(code_item(term))
    return DicomSequence(items) if items else None


def code_item(term: Term) -> Dataset:
    """A code sequence item (PS3.3 section 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = term.code, term.scheme, term.meaning
    return item


def frame_pointer(raw: object) -> int | None:
    """FrameTime or FrameTimeVector."""
    return _tag(raw) if _tag(raw) in _FRAME_POINTERS else None


def standard_tag(raw: object) -> int | None:
    """A tag that the standard's dictionary lists: eight digits of one's own choice could be a date."""
    tag = _tag(raw)
    return tag if tag is not None and dictionary_has_tag(tag) else None


def _tag(raw: object) -> int | None:
    try:
        return int(Tag(raw))  # type: ignore[arg-type]  # raises where it is none
    except (TypeError, ValueError, OverflowError):
        return None


def earlier_methods(raw: object) -> list[str]:
    """Values of an incoming DeidentificationMethod that are known tools' words and at most one version number."""
    return [text for text in values.texts(raw) if text and len(text) <= 64 and _is_method(text)][:_MOST_METHODS]


def _is_method(text: str) -> bool:
    words = [word for word in re.split(r"[\s:/()&,]+", text.lower()) if word]
    unknown = [word for word in words if word not in _closed("method")]
    return not unknown or (len(unknown) == 1 and _METHOD_VERSION.fullmatch(unknown[0]) is not None)
