"""Value rules: what may pass out of a header, one small function per kind of value.

A rule takes the raw value of one attribute and returns the value that may be written, or None for "leave it out". It
never raises: what it cannot judge stays out. Which attribute gets which rule is data (`data/deid_allowlist.toml`).

    >>> transducer("C5-1\\\\UNUSED")
    'C5-1'
    >>> age("097Y")
    '090Y'
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.valuerep import PersonName

MAX_AGE_YEARS: Final = 90
"""Ages above 89 form one group (45 CFR 164.514(b)(2)(i)(C))."""

_LEAST_REAL: Final = 1e-9

_DIGIT_RUN = re.compile(r"\d{6,}")  # serial numbers, record numbers and dates; model names have at most five digits
_SPACED_DIGITS = re.compile(r"(?<![A-Za-z0-9])\d(?:[ ._/-]?\d){6,}")
_DATE = re.compile(
    r"\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}|(?<!\d)\d{1,2}([-./])\d{1,2}\1\d{2}(?!\d)"
)
_TRANSDUCER = re.compile(r"[A-Z0-9][A-Z0-9 .+/_-]{0,15}", re.IGNORECASE)
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .&()/+_-]{0,47}")
_COMPANY = re.compile(
    r"(?:,\s*|\s+)(inc|ltd|llc|co|corp|gmbh|ag|s\.?p\.?a|sa|bv|nv|ab|plc|kk|limited|corporation)\b\.?", re.IGNORECASE
)
_PERSON_OR_PLACE = re.compile(
    r"\b(dr|mr|mrs|ms|miss|prof|md|patient|room|ward|hospital|hosp|klinik\w*|clinic\w*|clinique|univ\w*|dept|"
    r"department|practice|praxis|serial|s/n|sn)\b",
    re.IGNORECASE,
)
_VERSION = re.compile(r"(?<![0-9.])(\d{1,3}\.\d{1,3})(?!\d)")
_MAJOR = re.compile(r"(?<![A-Za-z0-9.])v?(\d{1,3})(?![A-Za-z0-9])", re.IGNORECASE)
_PLACEHOLDERS = frozenset({"UNUSED", "UNKNOWN", "NONE", "N/A", "NA", "OTHER", "UNDEFINED", "DEFAULT"})
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_AGE_PER_YEAR: Final = {"D": 365, "W": 52, "M": 12, "Y": 1}
_UID = re.compile(r"[0-9.]{1,64}")


def texts(raw: object) -> tuple[str, ...]:
    """The values of an attribute as stripped strings; a lone value is one of them, nothing is none."""
    if raw is None:
        return ()
    if isinstance(raw, bytes):
        raw = raw.decode("latin-1")
    if isinstance(raw, str):
        return tuple(part.strip(" \0\t\r\n") for part in raw.split("\\"))
    if isinstance(raw, Iterable) and not isinstance(raw, PersonName):
        return tuple(str(part).strip(" \0\t\r\n") for part in raw)
    return (str(raw).strip(),)


def first(raw: object) -> str:
    """The first value, or an empty string."""
    return next(iter(texts(raw)), "")


def numbers(raw: object) -> tuple[float, ...]:
    """The values as finite floats; empty if any of them is not a number."""
    found = []
    for text in texts(raw):
        try:
            number = float(text)
        except ValueError:
            return ()
        if not math.isfinite(number):
            return ()
        found.append(number)
    return tuple(found)


def transducer(raw: object) -> str | None:
    """First value of TransducerData or TransducerType: makers put serial numbers into the later ones."""
    text = first(raw)
    if text.upper() in _PLACEHOLDERS or not _TRANSDUCER.fullmatch(text) or not _holds_no_serial(text):
        return None
    return text if any(c.isalpha() for c in text) else None  # digits and dots alone are a part or serial number


def device(raw: object) -> str | None:
    """A maker's or a model's name: short, plain characters, no long digit run, no word for a person or a place."""
    text = first(raw)
    bare = _COMPANY.sub("", text)  # the one place where a comma may stand; elsewhere it parts surname from first name
    if not _DEVICE.fullmatch(bare) or not _holds_no_serial(bare) or _PERSON_OR_PLACE.search(bare):
        return None
    return text if len(bare.split()) <= 5 else None


def version(raw: object) -> str | None:
    """First value of SoftwareVersions cut to major.minor; the rest holds part numbers, build dates and serials."""
    text = first(raw)[:64].replace("_", " ")
    found = _VERSION.search(text) or _MAJOR.search(text)
    return found.group(1) if found else None


def age(raw: object) -> str | None:
    """An age string; from 90 years on it is `090Y`."""
    found = _AGE.fullmatch(first(raw).upper())
    if not found:
        return None
    count, unit = int(found.group(1)), found.group(2)
    if count >= MAX_AGE_YEARS * _AGE_PER_YEAR[unit]:
        return f"{MAX_AGE_YEARS:03d}Y"
    return f"{count:03d}{unit}"


def sex(raw: object) -> str | None:
    """M, F or O."""
    text = first(raw).upper()
    return text if text in {"M", "F", "O"} else None


def standard_uid(raw: object) -> str | None:
    """A UID that the standard's dictionary lists (classes, well-known frames of reference): it names nobody.

    Being under the standard's root is not enough: anyone can write `1.2.840.10008.<a birth date>`.
    """
    text = first(raw)
    return text if text in UID_dictionary else None


def instance_uid(raw: object) -> str | None:
    """A UID that someone made; the caller replaces it. Odd ones are replaced too, so anything but nothing passes."""
    return first(raw) or None


def is_uid(text: str) -> bool:
    """Whether the characters and the length are those of a UID."""
    return bool(_UID.fullmatch(text))


def fold(text: str) -> str:
    """Text in lower case without accents, so that `Müller` and `MULLER` are one word."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def split_words(text: str, *, least: int = 3) -> tuple[str, ...]:
    """Folded words of at least `least` letters or digits."""
    return tuple(word for word in re.split(r"[^\w]+|_", fold(text)) if len(word) >= least)


def count(raw: object) -> int | list[int] | None:
    """Whole numbers of at most four digits."""
    return _whole(raw, 0, 9_999)


def coordinate(raw: object) -> int | list[int] | None:
    """Whole numbers of at most five digits, either sign: codes and pixel coordinates."""
    return _whole(raw, -99_999, 99_999)


def real(raw: object) -> float | list[float] | None:
    """Finite numbers below a hundred thousand, so that no date of six digits and no record number passes; 0, or from
    1e-9 on, since eight digits that were written as the bytes of a number read as 1e-77 to 1e-30."""
    found = numbers(raw)
    if not found or any(abs(number) >= 1e5 or 0 < abs(number) < _LEAST_REAL for number in found):
        return None
    return found[0] if len(found) == 1 else list(found)


def size_m(raw: object) -> float | None:
    """A height rounded to 5 cm, within 0.3 m to 2.2 m."""
    return _rounded(raw, 0.05, 0.3, 2.2)


def weight_kg(raw: object) -> float | None:
    """A weight rounded to 5 kg, at most 150 kg."""
    return _rounded(raw, 5.0, 5.0, 150.0)


def empty(raw: object) -> str:
    """Nothing, whatever stood there."""
    del raw
    return ""


def _whole(raw: object, low: int, high: int) -> int | list[int] | None:
    found = numbers(raw)
    if not found or any(number != int(number) or not low <= number <= high for number in found):
        return None
    return int(found[0]) if len(found) == 1 else [int(number) for number in found]


def _rounded(raw: object, step: float, low: float, high: float) -> float | None:
    found = numbers(raw)
    if len(found) != 1 or found[0] <= 0:
        return None
    return round(min(max(round(found[0] / step) * step, low), high), 2)


def _holds_no_serial(text: str) -> bool:
    return not any(pattern.search(text) for pattern in (_DIGIT_RUN, _SPACED_DIGITS, _DATE))
