"""Words of the source's own headers, to be held against what was written: names, numbers, dates and UIDs.

A pattern cannot know that `Meier` is a patient. The folder that a corpus was built from does: every DICOM header below
it gives its names of persons and places, its record numbers, birth and study dates and UIDs. They live in memory for
the time of the audit, and a finding shows their shape only.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from openus_data.decode import Limits
from openus_data.decode.dicom_header import read_header
from openus_data.decode.later import looks_like_dicom
from openus_data.decode.source import open_source
from openus_data.deid import values
from openus_data.deid.device_names import is_device_word
from openus_data.deid.headers import IDENTITY_KEYWORDS, read_element, read_texts
from openus_data.deid.quiet import quiet_pydicom
from openus_data.errors import DecodeError, UsageError
from openus_data.vocabulary import load_vocabulary

_NUMBERS: Final = (
    "PatientBirthDate", "StudyDate", "AcquisitionDate", "AcquisitionDateTime", "StudyID", "AdmissionID",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "DeviceUID",
)  # fmt: skip
_LEAST_LETTERS: Final = 3
_LEAST_DIGITS: Final = 5
_MOST_DEPTH: Final = 8
_PERSON_VR: Final = "PN"


def source_words(folder: Path) -> frozenset[str]:
    """Folded words that identify somebody in the DICOM headers below a folder, or of one file. Never to be shown.

    Words that name organs, views, devices and the like are left out, since a corpus holds them rightly.

    Raises:
        UsageError: nothing there.
    """
    if not folder.exists():
        raise UsageError("nothing there", where="--sources", expected="the folder that the corpus was built from")
    found: set[str] = set()
    with quiet_pydicom():
        for path in _files(folder):
            found.update(_words_of(path))
    return frozenset(word for word in found if _tells_apart(word))


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for here, _, names in os.walk(folder):
        yield from (Path(here, name) for name in sorted(names))


def _words_of(path: Path) -> Iterator[str]:
    try:
        source = open_source(path)
        if not looks_like_dicom(source.head):
            return
        dataset = read_header(source.data, limits=Limits()).dataset
    except DecodeError:  # nothing of it can have been written
        return
    for keyword in IDENTITY_KEYWORDS:
        for text in read_texts(dataset, keyword):
            yield from values.split_words(text)
    for keyword in _NUMBERS:
        yield from (values.fold(text) for text in read_texts(dataset, keyword))
    yield from _names_below(dataset, _MOST_DEPTH)


def _names_below(dataset: Dataset, depth: int) -> Iterator[str]:
    """Words of every person's name at any depth."""
    for tag in list(dataset.keys()):
        element = read_element(dataset, tag)
        if element is None:
            continue
        if element.VR == "SQ" and depth:
            for item in element.value or ():
                yield from _names_below(item, depth - 1)
        elif element.VR == _PERSON_VR:
            for text in values.texts(element.value):
                yield from values.split_words(text)


def _tells_apart(word: str) -> bool:
    """Whether a word found in a corpus would say something of a person."""
    if word.isdigit():
        return len(word) >= _LEAST_DIGITS
    return len(word) >= _LEAST_LETTERS and not is_device_word(word) and word not in _common_words()


@functools.cache
def _common_words() -> frozenset[str]:
    vocabulary = load_vocabulary()
    texts = (*vocabulary.organs, *vocabulary.anatomy, *vocabulary.view, *vocabulary.pathology, *vocabulary.makers)
    return frozenset(word for text in texts for word in re.split(r"[^a-z0-9]+", text)) | _ORDINARY


_ORDINARY: Final = frozenset(
    {
        "hospital", "clinic", "university", "center", "centre", "department", "institute", "medical", "patient",
        "anonymous", "anonymized", "unknown", "none", "test", "image", "images", "frame", "private", "clinical",
        "pretrain", "train", "val",
    }
)  # fmt: skip
