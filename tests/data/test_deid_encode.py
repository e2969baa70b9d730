"""Our encoder writes what pydicom's would, refuses what does not fit, and the quick reader reads what pydicom reads."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping

import numpy as np
import pydicom
import pytest
from planted import Canaries, planted_dataset, planted_dicom, speckle
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from openus_data.deid import headers, policy, values
from openus_data.deid.dicom import attach_pixels, clean_dataset, encode_file
from openus_data.deid.encode import NUMBER_CODES, encode_value, raw_element
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deid.replacements import Dates

KEY = Pseudonymizer(key=b"k" * 32)


@pytest.mark.parametrize("dates", ["remove", "shift"])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_file_equals_pydicoms_own(dates: Dates, frames: int) -> None:
    clean = clean_dataset(planted_dataset(Canaries()), pseudonyms=KEY, dates=dates, pixels_cleaned=True).dataset
    attach_pixels(clean, np.stack([speckle(seed=n) for n in range(frames)]), is_clip=frames > 1)
    content = encode_file(clean)
    buffer = io.BytesIO()
    dcmwrite(buffer, pydicom.dcmread(io.BytesIO(content)), enforce_file_format=True)
    assert buffer.getvalue() == content


@pytest.mark.parametrize(
    ("vr", "value"),
    [("US", 1 << 16), ("SS", 1 << 15), ("UL", -1), ("US", 1.5), ("CS", "X" * 17), ("LO", "x" * 65), ("DS", "1" * 17),
     ("LO", "M\u00fcller"), ("SH", ["ok", "y" * 17]), ("FD", "text"), ("XX", "text"), ("LT", "text")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(vr: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError, struct.error)):
        raw_element(0x00100010, vr, value)


def test_every_representation_of_the_allow_list_can_be_written() -> None:
    def representations(steps: Mapping[int, policy.Step]) -> Iterator[str]:
        for step in steps.values():
            yield step.vr
            yield from representations(step.children)

    for vr in set(representations(policy.steps())):
        assert encode_value(vr, [] if vr == "SQ" else 1 if vr in (*NUMBER_CODES, "AT") else "1") is not None


def test_values_are_padded_to_an_even_length() -> None:
    assert encode_value("UI", "1.2") == b"1.2\0" and encode_value("LO", "abc") == b"abc "
    assert encode_value("DS", ["1", "2.5"]) == b"1\\2.5 " and encode_value("US", [1, 2]) == b"\1\0\2\0"


def test_a_number_too_large_for_its_representation_stays_behind() -> None:
    """A stranger's file may give any attribute any VR."""
    dataset, region = Dataset(), Dataset()
    region.add_new(0x00186012, "UL", 99_999)  # RegionSpatialFormat, US by the standard
    region.RegionDataType = 1
    dataset.SequenceOfUltrasoundRegions = [region]
    clean = clean_dataset(dataset, pseudonyms=KEY).dataset
    attach_pixels(clean, speckle()[None], is_clip=False)
    back = pydicom.dcmread(io.BytesIO(encode_file(clean))).SequenceOfUltrasoundRegions[0]
    assert "RegionSpatialFormat" not in back and back.RegionDataType == 1


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
def test_the_quick_reader_reads_what_pydicom_reads(syntax: str) -> None:
    with quiet_pydicom():
        made = pydicom.dcmread(io.BytesIO(planted_dicom(Canaries())))
        made.DepthsOfFocus, made.StageNumber, made.PatientName = [1.5, 2.0], "3", "Roe^Jane=\u30ed\u30fc"
        made.SpecificCharacterSet = "ISO_IR 192"
        buffer = io.BytesIO()
        little = not syntax.endswith("2.2")
        made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        for tag in [element.tag for element in made if element.VR == "OW" or element.tag.is_private]:
            del made[tag]
        dcmwrite(buffer, made, implicit_vr=syntax.endswith("1.2"), little_endian=little)
        quick, slow = (pydicom.dcmread(io.BytesIO(buffer.getvalue()), force=True) for _ in range(2))
        for tag in list(quick.keys()):
            ours, theirs = headers.read_tag(quick, tag), headers.read_element(slow, tag)
            if theirs is not None and theirs.VR not in ("SQ", "OB"):
                assert values.texts(ours) == values.texts(theirs.value) or not values.first(ours), theirs.keyword
