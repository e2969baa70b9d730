"""What a header may tell the corpus: the schema's device and anatomy columns, and the keys of patient and study.

`read_facts` is the whole gate of `build`: everything else in a header stays behind. Text is mapped to the closed
vocabulary (`data/deid_terms.toml`) or dropped; device names pass by the rules of `device_names.py`, and only if they
share no word with a person, a place or a number in the same header. Serial numbers, stations and dates never pass.
"""

from __future__ import annotations

import functools
import re
import struct
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from openus_data.deid import device_names, values
from openus_data.deid.encode import NUMBER_CODES
from openus_data.deid.quiet import quiet_pydicom
from openus_data.vocabulary import Vocabulary, load_vocabulary

Facts = dict[str, str | float | None]

IDENTITY_KEYWORDS: Final = (
    "PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "PatientBirthName", "PatientMotherBirthName",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "RequestingPhysician", "ResponsiblePerson", "InstitutionName", "InstitutionalDepartmentName",
    "AccessionNumber", "DeviceSerialNumber",
)  # fmt: skip
"""Header fields whose words no value that passes may hold. StationName is not one: sites name it after the model."""
_NAME_LETTERS: Final = 2
"""Words of so many letters count in names of persons: Li, Wu, Ng."""
_TEXT_VRS: Final = frozenset({"PN", "LO", "SH", "ST", "LT", "UT", "UC"})
_DEVICE_KEYWORDS: Final = frozenset(
    {
        "Manufacturer", "ManufacturerModelName", "TransducerData", "TransducerType", "SoftwareVersions", "StationName",
        "DeviceDescription", "SecondaryCaptureDeviceManufacturerModelName", "ProcessingFunction",
    }
)  # fmt: skip
"""Fields that may repeat a device's name without making it a person's."""
_MOST_DEPTH: Final = 8
_PLAIN_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI"})
_ESCAPE: Final = b"\x1b"
"""Starts another character set (ISO 2022)."""

_DESCRIPTIONS: Final = (
    "BodyPartExamined",
    "ImageType",
    "ViewName",
    "ProtocolName",
    "SeriesDescription",
    "StudyDescription",
)
_SEPARATOR: Final = "\x1f"
_MAX_MHZ: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The closed mapping of `data/deid_terms.toml`.

    Args:
        anatomy, organ, view: pattern of each name's words.
        codes: coded value to anatomy or view; SNOMED CT codes, and their older SRT spellings.
    """

    anatomy: Mapping[str, re.Pattern[str]]
    organ: Mapping[str, re.Pattern[str]]
    view: Mapping[str, re.Pattern[str]]
    codes: Mapping[str, str]


@functools.cache
def load_terms() -> Terms:
    """The mapping, read once."""
    table = tomllib.loads((resources.files("openus_data") / "data" / "deid_terms.toml").read_text("utf-8"))

    def patterns(section: str) -> dict[str, re.Pattern[str]]:
        return {
            name: re.compile(r"(?<!\w)(?:" + "|".join(re.escape(word) for word in words) + r")(?!\w)")
            for name, words in table[section].items()
        }

    vocabulary = load_vocabulary()
    codes: dict[str, str] = dict(table["legacy_codes"])
    for term in (*vocabulary.anatomy.values(), *vocabulary.view.values()):
        if term.code is not None:  # the fetal anatomies share the adults' codes and come later
            codes.setdefault(term.code, term.slug)
    return Terms(anatomy=patterns("anatomy"), organ=patterns("organ"), view=patterns("view"), codes=codes)


def read_facts(dataset: Dataset) -> tuple[Facts, str | None, str | None]:
    """The manifest columns a header may fill, and the header's own keys.

    Args:
        dataset: as read, untrusted; odd values count as absent.

    Returns:
        facts: organ, anatomy, view, device_manufacturer, device_model, transducer, frequency_mhz, where known.
        subject: IssuerOfPatientID and PatientID joined, or None. Never to be shown; input of the keyed pseudonym.
        study: StudyInstanceUID, or None. Never to be shown.
    """
    with quiet_pydicom():
        facts = {**read_anatomy(dataset), **_read_device(dataset)}
        return {name: value for name, value in facts.items() if value is not None}, _subject(dataset), _study(dataset)


def read_value(dataset: Dataset, keyword: str) -> object:
    """One attribute's value, None where it is absent or cannot be converted."""
    tag = _tag_of(keyword)
    return read_tag(dataset, tag) if tag in dataset.keys() else None  # noqa: SIM118  # `in dataset` parses the tag anew


def read_tag(dataset: Dataset, tag: int) -> object:
    """The value of an attribute that is there, None where it cannot be converted.

    Plain text comes as it stands, its values parted by backslashes as `values.texts` takes it, and a number as itself:
    both without pydicom's conversion, which would be most of the cost of a header.
    """
    quick = _quick(dataset.get_item(tag))
    if quick is not None:
        return quick
    element = read_element(dataset, tag)
    return None if element is None else element.value


def _quick(raw: object) -> object:
    """The value of an unconverted element whose meaning is beyond doubt, else None."""
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return None
    vr = raw.VR or (dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else "")
    if vr in _PLAIN_VRS and raw.value.isascii() and _ESCAPE not in raw.value:
        return raw.value.decode("ascii")
    code = NUMBER_CODES.get(vr, "")
    if not code or len(raw.value) != struct.calcsize(code):
        return None
    return struct.unpack(("<" if raw.is_little_endian else ">") + code, raw.value)[0]


def read_element(dataset: Dataset, tag: int) -> DataElement | None:
    """An attribute that is there, None where it cannot be converted."""
    try:
        return dataset[tag]
    except Exception:  # a value of a stranger's file fails in any way that pydicom's converters can
        return None


@functools.cache
def _tag_of(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


def read_texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """One attribute's values as stripped strings; none where it is absent or cannot be converted."""
    return values.texts(read_value(dataset, keyword))


def read_keys(dataset: Dataset) -> tuple[str | None, str | None]:
    """The header's own keys of patient and study, as `read_facts` returns them. Never to be shown."""
    return _subject(dataset), _study(dataset)


def identity_words(dataset: Dataset) -> frozenset[str]:
    """Folded words of the header's names and numbers; no value that passes may hold one."""
    words: set[str] = set()
    for keyword in IDENTITY_KEYWORDS:
        least = _NAME_LETTERS if dictionary_VR(_tag_of(keyword)) == "PN" else 3
        for text in read_texts(dataset, keyword):
            words.update(values.split_words(text, least=least))
    return frozenset(words)


def other_text(dataset: Dataset) -> str:
    """All text of a header at any depth, folded, without the fields that name devices. Never to be shown."""
    return "\n".join(_texts_below(dataset, _MOST_DEPTH))


def _texts_below(dataset: Dataset, depth: int) -> Iterator[str]:
    device_tags = {_tag_of(keyword) for keyword in _DEVICE_KEYWORDS}
    for tag in list(dataset.keys()):
        if int(tag) in device_tags:
            continue
        element = read_element(dataset, tag)
        if element is None:
            continue
        if element.VR == "SQ" and depth and isinstance(element.value, Iterable):
            for item in element.value:
                yield from _texts_below(item, depth - 1)
        elif element.VR in _TEXT_VRS:
            yield from map(values.fold, values.texts(element.value))


def read_anatomy(dataset: Dataset) -> Facts:
    """Organ, anatomy and view by the closed mapping; the most trusted source that speaks clearly decides."""
    terms, vocabulary = load_terms(), load_vocabulary()
    coded = [terms.codes.get(code) for code in _codes(dataset, "AnatomicRegionSequence")]
    found: set[str] = {name for name in coded if name is not None}
    context: set[str] = set()
    viewed = [terms.codes.get(code) for code in _codes(dataset, "ViewCodeSequence")]
    view = next((name for name in viewed if name is not None and vocabulary.is_view(name)), None)
    for text in _descriptions(dataset):
        context |= {name for name, pattern in terms.organ.items() if pattern.search(text)}
        found = found or {name for name, pattern in terms.anatomy.items() if pattern.search(text)}
        view = view or next((name for name, pattern in terms.view.items() if pattern.search(text)), None)
    anatomy, organ = _settle(found, context, vocabulary)
    return {"organ": organ, "anatomy": anatomy, "view": view}


def _settle(found: set[str], context: set[str], vocabulary: Vocabulary) -> tuple[str | None, str | None]:
    """One anatomy and its organ out of what was found; None where the header contradicts itself."""
    if "fetal" in context:  # a fetal abdomen is no abdomen
        found = {name if name.startswith("fetal_") else f"fetal_{name}" for name in found}
        found = {name for name in found if vocabulary.is_anatomy(name)}
    organs = {organ for organ in map(vocabulary.organ_of, found) if organ is not None}
    specific = found - organs if len(found) > 1 else found  # "abdomen liver" is the liver
    anatomy = next(iter(specific)) if len(specific) == 1 else None
    if len(organs) == 1:
        return anatomy, next(iter(organs))
    return None, next(iter(context)) if len(context) == 1 and not organs else None


def _descriptions(dataset: Dataset) -> Iterator[str]:
    for keyword in _DESCRIPTIONS:
        texts = read_texts(dataset, keyword)
        text = " ".join(texts[2:3] if keyword == "ImageType" else texts)
        if text:
            yield text[:256].lower().replace("_", " ").replace("^", " ")


def _codes(dataset: Dataset, keyword: str) -> Iterator[str]:
    items = read_value(dataset, keyword)
    if isinstance(items, Iterable):
        for item in items:
            if isinstance(item, Dataset):
                yield values.first(read_value(item, "CodeValue"))


def _read_device(dataset: Dataset) -> Facts:
    private = identity_words(dataset)
    elsewhere = functools.partial(other_text, dataset)
    maker = values.first(read_value(dataset, "Manufacturer"))[:64]
    model, probe, kind = (
        read_value(dataset, keyword) for keyword in ("ManufacturerModelName", "TransducerData", "TransducerType")
    )
    return {
        "device_manufacturer": maker_of(maker),
        "device_model": device_names.clean_device(model, private, elsewhere),
        "transducer": device_names.clean_transducer(probe, private) or device_names.clean_transducer(kind, private),
        "frequency_mhz": _frequency_mhz(dataset),
    }


@functools.lru_cache(maxsize=256)
def maker_of(raw: str) -> str | None:
    """The vocabulary's word for a maker; None for makers it does not know."""
    return load_vocabulary().manufacturer(raw) if raw else None


def _frequency_mhz(dataset: Dataset) -> float | None:
    """TransducerFrequency of the first ultrasound region that gives one, kHz to MHz."""
    regions = read_value(dataset, "SequenceOfUltrasoundRegions")
    for region in regions if isinstance(regions, Iterable) else ():
        if isinstance(region, Dataset):
            khz = values.numbers(read_value(region, "TransducerFrequency"))
            if khz and 0 < khz[0] <= 1000 * _MAX_MHZ:
                return khz[0] / 1000
    return None


def _subject(dataset: Dataset) -> str | None:
    patient = values.first(read_value(dataset, "PatientID"))
    if not any(c.isalnum() for c in patient):  # "", "--"
        return None
    return f"{values.first(read_value(dataset, 'IssuerOfPatientID'))}{_SEPARATOR}{patient}"


def _study(dataset: Dataset) -> str | None:
    return values.first(read_value(dataset, "StudyInstanceUID")) or None
