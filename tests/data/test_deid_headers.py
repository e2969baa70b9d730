"""What the corpus may learn from a header, and what it may never."""

from __future__ import annotations

import itertools

import pytest
from planted import Canaries, planted_dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from openus_data.deid import values
from openus_data.deid.headers import load_terms, read_facts
from openus_data.schema import MANIFEST_COLUMNS
from openus_data.vocabulary import load_vocabulary


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_device_and_anatomy_are_read_from_a_full_header() -> None:
    facts, subject, study = read_facts(planted_dataset(Canaries()))
    assert facts == {
        "organ": "breast", "anatomy": "breast", "device_manufacturer": "philips", "device_model": "EPIQ 7C",
        "transducer": "C5-1", "frequency_mhz": 7.5,
    }  # fmt: skip
    assert subject is not None and study == "1.2.999.1961030712345678.1"


def test_facts_are_manifest_columns_and_hold_no_planted_string() -> None:
    canary = Canaries()
    facts, _, _ = read_facts(planted_dataset(canary))
    assert set(facts) <= {column.name for column in MANIFEST_COLUMNS}
    text = repr(facts)
    assert not [place for word, place in canary.planted.items() if word in text]


def test_every_word_that_terms_map_to_is_in_the_vocabulary() -> None:
    terms, vocabulary = load_terms(), load_vocabulary()
    assert all(vocabulary.is_anatomy(name) for name in terms.anatomy)
    assert all(vocabulary.is_organ(name) or name == "musculoskeletal" for name in terms.organ)
    assert all(vocabulary.is_view(name) for name in terms.view)
    assert all(vocabulary.is_anatomy(name) or vocabulary.is_view(name) for name in terms.codes.values())


@pytest.mark.parametrize(
    ("attributes", "organ", "anatomy"),
    [
        ({"BodyPartExamined": "THYROID"}, "thyroid", "thyroid"),
        ({"StudyDescription": "US ABDOMEN LIVER"}, "abdomen", "liver"),
        ({"StudyDescription": "Echocardiogram"}, "cardiac", "heart"),
        ({"StudyDescription": "US liver and spleen"}, "abdomen", None),
        ({"StudyDescription": "breast and thyroid"}, None, None),
        ({"SeriesDescription": "OB abdomen"}, "fetal", "fetal_abdomen"),
        ({"StudyDescription": "Mrs Livermore"}, None, None),
        ({"BodyPartExamined": "KIDNEY", "StudyDescription": "liver"}, "kidney", "kidney"),
    ],
)
def test_text_maps_to_the_vocabulary_or_to_nothing(
    attributes: dict[str, str], organ: str | None, anatomy: str | None
) -> None:
    facts, _, _ = read_facts(header(**attributes))
    assert (facts.get("organ"), facts.get("anatomy")) == (organ, anatomy)


def test_a_code_beats_a_description() -> None:
    item = header(CodeValue="69748006", CodingSchemeDesignator="SCT", CodeMeaning="whatever")
    facts, _, _ = read_facts(header(AnatomicRegionSequence=Sequence([item]), StudyDescription="liver"))
    assert facts["anatomy"] == "thyroid"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("C5-1", "C5-1"),
        (["9L-D", "SN 123456789"], "9L-D"),
        ("S5_1", "S5_1"),
        ("L12-3 40213", "L12-3 40213"),
        ("C5-1 1234567", None),
        ("19610307", None),
        ("50.80.103.002", None),
        ("UNUSED", None),
        ("probe of Mrs Smith-Jones, room 4", None),
        ("", None),
    ],
)
def test_a_transducer_passes_without_its_serial_number(raw: object, kept: str | None) -> None:
    assert values.transducer(raw) == kept


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("LOGIQ E9", "LOGIQ E9"),
        ("SonoSite, Inc.", "SonoSite, Inc."),
        ("ALOKA CO., LTD.", "ALOKA CO., LTD."),
        ("Smith, Jane", None),
        ("SMITH^JANE", None),
        ("Epiq of Dr Smith", None),
        ("City Hospital", None),
        ("Unit 20190412", None),
        ("x" * 60, None),
    ],
)
def test_a_device_name_passes_unless_it_reads_as_a_person_or_a_number(raw: str, kept: str | None) -> None:
    assert values.device(raw) == kept


def test_a_model_that_repeats_a_word_of_the_patient_does_not_pass() -> None:
    named = header(PatientName="Turbo^Max", ManufacturerModelName="Turbo 5")
    assert "device_model" not in read_facts(named)[0]
    assert read_facts(header(PatientName="Doe^Max", ManufacturerModelName="Turbo 5"))[0]["device_model"] == "Turbo 5"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("034Y", "034Y"),
        ("089Y", "089Y"),
        ("090Y", "090Y"),
        ("104Y", "090Y"),
        ("999M", "999M"),
        ("007D", "007D"),
        ("old", None),
    ],
)
def test_no_age_above_ninety_passes(raw: str, kept: str | None) -> None:
    assert values.age(raw) == kept


def test_two_issuers_of_one_number_are_two_subjects() -> None:
    subjects = {read_facts(header(PatientID="7", IssuerOfPatientID=issuer))[1] for issuer in ("A", "B", "")}
    assert len(subjects) == 3


@pytest.mark.parametrize("patient", ["", "--", "  "])
def test_a_placeholder_is_no_subject(patient: str) -> None:
    assert read_facts(header(PatientID=patient))[1] is None


def test_odd_values_never_raise() -> None:
    junk = (b"\xff\xfe\x00", b"", b"nan", b"\x00" * 9, b"9" * 80)
    keywords = (
        "Manufacturer", "TransducerData", "PatientID", "StudyInstanceUID", "ImageType", "SequenceOfUltrasoundRegions",
        "AnatomicRegionSequence", "BodyPartExamined", "PatientName", "ManufacturerModelName",
    )  # fmt: skip
    for value, vr in itertools.product(junk, ("UN", "SQ", "FD", "US", "PN", "IS", "DS", "AT", None)):
        dataset = Dataset()
        for keyword in keywords:
            tag = Tag(keyword)
            dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, True)  # type: ignore[index]
        facts, _, _ = read_facts(dataset)
        assert all(isinstance(fact, str | float) for fact in facts.values())
