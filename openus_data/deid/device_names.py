"""Names of makers, scanners and probes: which may pass, and how much of them.

A device's name is the one text of a header that passes as it stands, and people type into it. So it is taken apart
into words: a word of `data/device_words.toml` or of a maker's spelling names a product, and so does a short code
(`E9`, `M5Sc`). A scanner's name keeps what is known and loses the rest; a name of which nothing is known passes only
if it does not read as a person's and shares no word with any other text of the header. A probe's name passes whole or
not at all.

    >>> clean_device("LOGIQ E9 Jane Roe", frozenset())
    'LOGIQ E9'
    >>> clean_transducer("SMITH 12", frozenset()) is None
    True
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from typing import Final

from openus_data.deid import values
from openus_data.vocabulary import load_vocabulary

_TOKEN: Final = re.compile(r"[A-Za-z0-9]+")
_RUN: Final = re.compile(r"[A-Za-z]+|\d+")
_MOST_DIGITS: Final = 5
_MOST_LETTERS: Final = 4
_MOST_CHARACTERS: Final = 7
_MOST_RUNS: Final = 4
_LEAST_START: Final = 4
"""Letters of a known word to which others are run on, as in `LOGIQE9`."""
_NAME_WORDS: Final = range(2, 5)
_MOST_PIECES: Final = 8
_JOINTS: Final = " ,-/&+("


def clean_device(raw: object, private: frozenset[str], other_text: Callable[[], str] | None = None) -> str | None:
    """What may pass of a maker's or a scanner's name.

    Args:
        raw: the attribute's value.
        private: folded words of persons, places and numbers of this header (`headers.identity_words`).
        other_text: gives every other text of the header, folded; asked only for a name of which nothing is known.

    Returns:
        The name, its known words, or None.
    """
    text = values.first(raw)
    if values.device(text) is None:
        return _known_start(text, private)
    words = _TOKEN.findall(text)
    strange = [word for word in words if not is_device_word(word) or is_private(word, private)]
    if not strange and values.fold(text) not in private:
        return text
    if any(_is_listed(word) and word not in strange for word in words):
        kept = [piece for piece in text.split() if not any(word in strange for word in _TOKEN.findall(piece))]
        return " ".join(kept).strip(_JOINTS) or None
    if _reads_as_person(text) or any(is_private(word, private) for word in words):
        return None
    elsewhere = other_text() if other_text is not None else ""
    return None if any(values.fold(word) in elsewhere for word in strange) else text


def _known_start(text: str, private: frozenset[str]) -> str | None:
    """The known words with which a refused text begins: `EPIQ 7C` of `EPIQ 7C SN 12345`."""
    kept: list[str] = []
    for piece in text.split()[:_MOST_PIECES]:
        words = _TOKEN.findall(piece)
        longer = " ".join([*kept, piece])
        if (
            piece.isdigit()
            or values.device(longer) is None
            or not all(is_device_word(w) and not is_private(w, private) for w in words)
        ):
            break
        kept.append(piece)
    return " ".join(kept).strip(_JOINTS) if any(map(_is_listed, _TOKEN.findall(" ".join(kept)))) else None


def clean_transducer(raw: object, private: frozenset[str]) -> str | None:
    """A probe's name, if all of its words are known or short codes; else None."""
    text = values.transducer(raw)
    if text is None or values.fold(text) in private:
        return None
    words = _TOKEN.findall(text.replace("_", " "))
    has_name = any(any(c.isalpha() for c in word) for word in words)
    is_clear = all(is_device_word(word) and not is_private(word, private) for word in words)
    return text if has_name and is_clear else None


@functools.lru_cache(maxsize=4096)
def is_device_word(word: str) -> bool:
    """Whether a word of letters and digits is a known word, a short code, or known words and a code run together."""
    low = word.lower()
    if low in _listed() or _is_code(word):
        return True
    starts = (size for size in range(len(low) - 1, _LEAST_START - 1, -1) if low[:size] in _listed())
    return any(is_device_word(low[size:]) for size in starts)


def _is_code(word: str) -> bool:
    """`E9`, `M5Sc`, `RAB6`, `70`: a few letters and digits, or either alone and shorter still."""
    digits = sum(map(str.isdigit, word))
    letters = len(word) - digits
    if letters == 0 or digits == 0:
        return digits <= _MOST_DIGITS and letters <= 2
    is_short = len(word) <= _MOST_CHARACTERS and digits <= _MOST_DIGITS and letters <= _MOST_LETTERS
    return is_short and len(_RUN.findall(word)) <= _MOST_RUNS


@functools.cache
def _listed() -> frozenset[str]:
    table = tomllib.loads((resources.files("openus_data") / "data" / "device_words.toml").read_text("utf-8"))["words"]
    spellings = (word for spelling in load_vocabulary().spellings for word in _TOKEN.findall(spelling))
    return frozenset(word.lower() for words in (*table.values(), spellings) for word in words if not word.isdigit())


def _is_listed(word: str) -> bool:
    return word.lower() in _listed()


def is_private(word: str, private: frozenset[str]) -> bool:
    """Whether a word is one of the folded private ones, or an unlisted word holds one."""
    low = word.lower()
    return low in private or (not _is_listed(word) and any(len(p) >= 3 and p in low for p in private))


def _reads_as_person(text: str) -> bool:
    """Two to four words, all of letters alone: a first name and a surname, or nothing that could be told from them."""
    words = text.replace(",", " ").split()
    return len(words) in _NAME_WORDS and all(re.fullmatch(r"[A-Za-z.'-]{2,}", word) for word in words)
