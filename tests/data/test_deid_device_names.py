"""Names of devices: real ones pass as they stand, people's names and numbers typed beside them do not."""

from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from openus_data.deid.device_names import clean_device, clean_transducer, is_device_word
from openus_data.deid.dicom import clean_dataset
from openus_data.deid.headers import read_facts
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom

NOBODY: frozenset[str] = frozenset()

SCANNERS = (
    "LOGIQE9", "LOGIQ E9", "VolusonE8", "EPIQ 7C", "iU22", "HD11 XE", "EnVisor C HD", "ACUSON SC2000", "SSA-770A",
    "TUS-AI900", "HI VISION Preirus", "EUB-7500", "RS85", "HERA W10", "MyLabClassC", "MyLab70XVG", "UMT-500Plus",
    "Aixplorer MACH 30", "M-Turbo", "X-Porte", "CX50", "Vivid E95", "SSD-ALPHA10", "Vevo 3100", "Acme Scanner",
    "G.E. Medical Systems", "GE Healthcare Austria GmbH & Co OG", "SAMSUNG MEDISON CO., LTD.", "TOSHIBA_MEC_US",
    "Shenzhen Mindray Bio-Medical Electronics Co., Ltd.", "Hitachi Aloka Medical,Ltd.", "Esaote S.p.A.",
    "BK Medical ApS", "SuperSonic Imagine SA", "Philips Medical Systems", "SIEMENS", "KRETZTECHNIK", "SONOX 5000",
)  # fmt: skip
PROBES = (
    "C5-1", "S5_1", "9L-D", "RAB4-8-D", "ML6-15-D", "M5Sc-D", "X8-2t", "CA1-7A", "PVT-375BT", "PLT-1005BT", "4C1",
    "9EVF4", "UST-9123", "HFL38x", "6C1 HD", "17L5 HD linear", "CURVED LINEAR", "SECTOR_PHASED", "IV_ROT XTAL",
    "ENDOCAV_CLA", "L12-3 40213", "3V2c",
)  # fmt: skip


@pytest.mark.parametrize("name", SCANNERS)
def test_real_scanners_pass_as_they_stand(name: str) -> None:
    assert clean_device(name, NOBODY, lambda: "") == name


@pytest.mark.parametrize("name", PROBES)
def test_real_probes_pass_as_they_stand(name: str) -> None:
    assert clean_transducer(name, NOBODY) == name


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("LOGIQ E9 Jane Roe", "LOGIQ E9"),
        ("Philips Meier", "Philips"),
        ("SonoSite Inc. Jane", "SonoSite Inc."),
        ("EPIQ 7C/ROE_JANE", "EPIQ"),
        ("iU22 B1A2C3D4", "iU22"),
        ("EPIQ JDOE1961", "EPIQ"),
        ("Anna Schmidt", None),
        ("Roe, Jane", None),
        ("Philips Dr. Meier", "Philips"),
        ("EPIQ 7C 12.04.19", "EPIQ 7C"),
        ("EPIQ 7C born 61/03/07", "EPIQ 7C"),
        ("EPIQ 123 456 789", "EPIQ"),
        ("EPIQ 7C SN 12345", "EPIQ 7C"),
        ("19610307 EPIQ", None),
        ("Turbo 555-123-4567", "Turbo"),
    ],
)
def test_what_is_typed_beside_a_scanners_name_is_cut_away(raw: str, kept: str | None) -> None:
    assert clean_device(raw, NOBODY, lambda: "") == kept


@pytest.mark.parametrize(
    "raw",
    ["SMITH JANE", "ROE", "JANE ROE", "JANE.ROE", "C5-1 JANE", "MRN 12345", "C5-1 12/04/61", "L12-3 A1B2C", "Jane 1961",
     "C5-1 555-12-3456", "Qz000xKv"],
)  # fmt: skip
def test_a_probe_with_an_unknown_word_or_a_number_does_not_pass(raw: str) -> None:
    assert clean_transducer(raw, NOBODY) is None


def test_a_word_of_the_patient_never_passes_in_any_spelling() -> None:
    assert clean_device("SONOX MÜLLER 5", frozenset({"muller"}), lambda: "") is None
    assert clean_device("SONOX JDOE 5", frozenset({"doe"}), lambda: "") is None
    assert clean_device("EPIQ Li", frozenset({"li"})) == "EPIQ"
    assert clean_transducer("C5-1 Wu", frozenset({"wu"})) is None


def test_a_scanner_of_which_nothing_is_known_must_stand_nowhere_else_in_the_header() -> None:
    item, dataset = Dataset(), Dataset()
    item.PersonName = "SONOX^EVA"
    outer = Dataset()
    outer.ContentSequence = Sequence([item])
    dataset.RequestAttributesSequence = Sequence([outer])
    dataset.ManufacturerModelName = "SONOX 5"
    assert "device_model" not in read_facts(dataset)[0]
    assert "ManufacturerModelName" not in clean_dataset(dataset, pseudonyms=Pseudonymizer(key=b"k" * 32)).dataset
    del dataset.RequestAttributesSequence
    assert read_facts(dataset)[0]["device_model"] == "SONOX 5"


def test_names_of_two_letters_count_as_names() -> None:
    dataset = Dataset()
    dataset.PatientName, dataset.ManufacturerModelName = "Li^Na", "SONOX Li"
    assert "device_model" not in read_facts(dataset)[0]


@pytest.mark.parametrize("word", ["smith", "Meier", "jane", "Doe", "19610307", "A1B2C3D4", "MUELLER7", "qz001xkv"])
def test_names_and_long_numbers_are_no_device_words(word: str) -> None:
    assert not is_device_word(word)


def test_an_ideographic_name_shields_its_romanised_words_too() -> None:
    """PS3.5 H.3: a PN holds an alphabetic, an ideographic and a phonetic group."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046"
    dataset.ManufacturerModelName = "SONOX YAMADA 7"
    buffer = io.BytesIO()
    with quiet_pydicom():
        pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
        back = pydicom.dcmread(io.BytesIO(buffer.getvalue()), force=True)
        assert "device_model" not in read_facts(back)[0]


PIECES = st.sampled_from(
    ["LOGIQ", "E9", "Philips", "EPIQ 7C", "SONOX", "Meier", "MEIER", "meier7", "Jane", "jane", "JaneMeier", "C5-1",
     "linear", "(Jane)", "Dr.", "12.04.19", "19610307", "/", ",", "_", "Mrs", "LOGIQMeier", "X-Jane-1"]
)  # fmt: skip


@given(st.lists(PIECES, min_size=1, max_size=6), st.sampled_from([" ", "_", "-", "/", ""]))
def test_whatever_stands_around_it_a_private_word_never_passes(pieces: list[str], joint: str) -> None:
    private = frozenset({"meier", "jane", "19610307"})
    text = joint.join(pieces)
    for kept in (clean_device(text, private, lambda: "meier jane"), clean_transducer(text, private)):
        assert kept is None or not [word for word in (*private, "12.04.19") if word in kept.lower()], kept
