"""The clean header: nothing planted survives, what research needs does, and ids agree under a key."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pydicom
import pytest
from planted import Canaries, planted_dataset, planted_dicom, speckle
from pydicom.dataset import Dataset

from openus_data.deid import policy
from openus_data.deid.dicom import CleanDataset, attach_pixels, clean_dataset, encode_file, is_rendered
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deid.replacements import Dates

KEY = Pseudonymizer(key=b"k" * 32)
OTHER_KEY = Pseudonymizer(key=b"o" * 32)


def clean(
    dataset: Dataset, key: Pseudonymizer = KEY, dates: Dates = "remove", pixels_cleaned: bool = True
) -> CleanDataset:
    return clean_dataset(dataset, pseudonyms=key, dates=dates, pixels_cleaned=pixels_cleaned)


def written(header: CleanDataset) -> bytes:
    attach_pixels(header.dataset, speckle()[None], is_clip=False)
    return encode_file(header.dataset)


def patient(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("dates", ["remove", "shift"])
def test_no_planted_string_survives_in_any_byte(dates: Dates) -> None:
    canary = Canaries()
    with quiet_pydicom():
        dataset = pydicom.dcmread(io.BytesIO(planted_dicom(canary)))
    content = written(clean(dataset, dates=dates))
    assert len(canary.planted) > 80
    for word, place in canary.planted.items():
        for form in (
            word.encode(),
            word.encode("utf-16-le"),
            word.encode("utf-16-be"),
            word.upper().encode(),
            word[:10].encode(),
        ):
            assert form not in content, place
    assert b"1961" not in content and b"2019041" not in content and b"1.2.999" not in content


def test_what_research_needs_is_kept() -> None:
    before = planted_dataset(Canaries())
    after = clean(before).dataset
    assert (after.Manufacturer, after.ManufacturerModelName) == ("Philips Medical Systems", "EPIQ 7C")
    assert (after.TransducerData, after.TransducerType, after.SoftwareVersions) == ("C5-1", "CURVED LINEAR", "1.7")
    assert (after.PatientSex, after.PatientAge, after.Laterality, after.BodyPartExamined) == (
        "F",
        "090Y",
        "L",
        "BREAST",
    )
    assert after.SOPClassUID == before.SOPClassUID and list(after.ImageType) == ["ORIGINAL", "PRIMARY", "", "0001"]
    region, truth = after.SequenceOfUltrasoundRegions[0], before.SequenceOfUltrasoundRegions[0]
    assert (region.PhysicalDeltaX, region.PhysicalDeltaY) == (truth.PhysicalDeltaX, truth.PhysicalDeltaY)
    assert region.RegionLocationMaxX1 == truth.RegionLocationMaxX1 and region.TransducerFrequency == 7500
    assert [(i.CodeValue, i.CodeMeaning) for i in after.AnatomicRegionSequence] == [("76752008", "Breast")]


def test_the_input_is_not_changed() -> None:
    dataset = planted_dataset(Canaries())
    before = dataset.to_json()
    clean(dataset)
    assert dataset.to_json() == before


def test_the_output_has_only_paths_of_the_allow_list() -> None:
    allowed = {path for rule in policy.RULES for path in (*rule.paths, *rule.require)}
    marks = {
        "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "BurnedInAnnotation",
        "LongitudinalTemporalInformationModified", "ContributingEquipmentSequence",
    }  # fmt: skip
    after = clean(planted_dataset(Canaries()), dates="shift").dataset
    for element in after:
        assert element.keyword in marks or any(path.split("/")[0] == element.keyword for path in allowed), element.tag
    for element in after.SequenceOfUltrasoundRegions[0]:
        assert f"SequenceOfUltrasoundRegions/{element.keyword}" in allowed


def test_equal_uids_stay_equal_and_none_stays_itself() -> None:
    before = planted_dataset(Canaries())
    after = clean(before).dataset
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == after.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in (after.SOPInstanceUID, after.StudyInstanceUID))
    assert len({after.SOPInstanceUID, after.StudyInstanceUID, after.SeriesInstanceUID}) == 3


@pytest.mark.parametrize("uid", ["1.2.840.10008.19610307.4711", "1.2.840.10008.1961.3.7", "1.2.840.10008.5.19610307"])
def test_a_uid_under_the_standards_root_that_it_does_not_list_is_replaced(uid: str) -> None:
    after = clean(patient(StudyInstanceUID=uid, FrameOfReferenceUID=uid, SOPClassUID=uid)).dataset
    assert after.StudyInstanceUID == after.FrameOfReferenceUID == KEY.uid(uid)
    assert after.SOPClassUID == after.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    well_known = patient(FrameOfReferenceUID="1.2.840.10008.1.4.1.1")
    assert clean(well_known).dataset.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"


@pytest.mark.parametrize("keyword", ["FrameTime", "FrameDelay", "PixelSpacing", "SliceThickness", "MechanicalIndex"])
def test_no_measure_holds_a_date_or_a_record_number(keyword: str) -> None:
    for number in ("610307", "19610307", "471147"):
        value = [number, number] if keyword == "PixelSpacing" else number
        assert keyword not in clean(patient(**{keyword: value})).dataset
    assert keyword in clean(patient(**{keyword: ["0.25", "0.25"] if keyword == "PixelSpacing" else "33.3"})).dataset


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("RegionDataType", "US", list(struct.unpack("<4H", b"ROE^JANE"))),
        ("PhysicalDeltaX", "FD", struct.unpack("<d", b"19610307")[0]),
    ],
)
def test_no_number_spells_a_name_in_its_bytes(keyword: str, vr: str, value: object) -> None:
    region = Dataset()
    region.RegionSpatialFormat = 1
    region.add_new(keyword, vr, value)
    (kept,) = clean(patient(SequenceOfUltrasoundRegions=[region])).dataset.SequenceOfUltrasoundRegions
    assert keyword not in kept and kept.RegionSpatialFormat == 1


def test_a_pointer_to_a_tag_that_does_not_exist_does_not_pass() -> None:
    item = Dataset()
    item.DimensionIndexPointer, item.FunctionalGroupPointer = 0x00209157, 0x19600307
    after = clean(patient(DimensionIndexSequence=[item])).dataset.DimensionIndexSequence[0]
    assert after.DimensionIndexPointer == 0x00209157 and "FunctionalGroupPointer" not in after


@pytest.mark.parametrize(
    "method", ["CTP 12.04.19", "deid 19 04 12", "PS 3.15 12 04 19 61", "CTP by Doe", "CTP 19610307"]
)
def test_an_earlier_method_that_holds_a_date_or_a_name_is_dropped(method: str) -> None:
    after = clean(patient(DeidentificationMethod=method)).dataset
    assert isinstance(after.DeidentificationMethod, str) and method not in after.DeidentificationMethod


def test_one_key_gives_one_name_and_another_key_another() -> None:
    again = [clean(planted_dataset(Canaries())).dataset for _ in range(2)]
    other = clean(planted_dataset(Canaries()), key=OTHER_KEY).dataset
    assert again[0] == again[1]
    for keyword in ("PatientID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert again[0][keyword].value != other[keyword].value


def test_one_number_of_two_issuers_is_two_patients() -> None:
    names = {clean(patient(PatientID="7", IssuerOfPatientID=issuer)).patient for issuer in ("A", "B")}
    assert len(names) == 2
    assert clean(patient(PatientID="7", StudyInstanceUID="1.2.8")).patient == clean(patient(PatientID="7")).patient


def test_patients_without_a_number_are_not_merged() -> None:
    names = {clean(patient(StudyInstanceUID=f"1.2.{study}")).patient for study in range(3)}
    assert len(names) == 3


def test_shifted_dates_keep_every_interval_and_removed_ones_leave_none() -> None:
    days = ("20190412", "20190423", "20200229")
    visits = [patient(PatientID="7", StudyDate=day, AcquisitionDateTime=f"{day}101500.5+0100") for day in days]
    shifted = [clean(visit, dates="shift").dataset for visit in visits]
    moved = [np.datetime64(f"{d.StudyDate[:4]}-{d.StudyDate[4:6]}-{d.StudyDate[6:]}") for d in shifted]
    truth = [np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in days]
    assert all(
        b - a == d - c for (a, b), (c, d) in zip(itertools.pairwise(moved), itertools.pairwise(truth), strict=True)
    )
    assert all(m != t and (t - m).astype(int) % 7 == 0 for m, t in zip(moved, truth, strict=True))
    assert all(d.AcquisitionDateTime == f"{d.StudyDate}101500.5+0100" for d in shifted)
    offsets = {clean(patient(PatientID=str(n), StudyDate=days[0]), dates="shift").dataset.StudyDate for n in range(12)}
    assert len(offsets) > 6
    removed = clean(patient(PatientID="7", StudyDate=days[0], StudyTime="101500")).dataset
    assert (removed.StudyDate, removed.StudyTime) == ("", "")


def test_the_method_is_written_and_an_earlier_one_kept_only_if_it_names_a_tool() -> None:
    dataset = patient(DeidentificationMethod=["dicognito 0.19", "by Dr Smith"], BurnedInAnnotation="NO")
    after = clean(dataset, dates="shift").dataset
    assert list(after.DeidentificationMethod)[:-1] == ["dicognito 0.19"]
    codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113101", "113105", "113107", "113108"]
    assert (after.PatientIdentityRemoved, after.BurnedInAnnotation) == ("YES", "NO")
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert after.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109104"


def test_clean_pixels_are_claimed_only_when_they_were_cleaned() -> None:
    after = clean(patient(BurnedInAnnotation="NO"), pixels_cleaned=False).dataset
    assert "113101" not in [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert "BurnedInAnnotation" not in after and after.PatientIdentityRemoved == "NO"


def test_a_written_file_reads_back_with_zero_preamble_and_the_pixels_given() -> None:
    for frames in (speckle()[None], np.stack([np.stack([speckle(seed=n)] * 3, axis=-1) for n in range(3)])):
        after = clean(planted_dataset(Canaries())).dataset
        attach_pixels(after, frames, is_clip=len(frames) > 1)
        content = encode_file(after)
        assert content[:132] == b"\0" * 128 + b"DICM"
        back = pydicom.dcmread(io.BytesIO(content))
        assert np.array_equal(back.pixel_array.reshape(frames.shape), frames)
        assert back.to_json() == after.to_json()


def test_every_written_value_fits_its_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    after = clean(planted_dataset(Canaries()), dates="shift")
    content = written(after)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for element in pydicom.dcmread(io.BytesIO(content)).iterall():
        assert element.value is not None or element.is_empty


def test_an_object_without_identifiers_gets_its_own() -> None:
    bare = Dataset()
    one, two = (clean_dataset(bare, pseudonyms=KEY, stand_in=digest).dataset for digest in ("a", "b"))
    assert one.SOPInstanceUID != two.SOPInstanceUID and one.PatientID != two.PatientID
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    bare.NumberOfFrames = "3"
    assert clean(bare).dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"


@pytest.mark.parametrize(
    ("attributes", "rendered"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OBSTETRICAL", "0040"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OBSTETRICAL", "0001"]}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", "3D_RENDERING"]}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, True),
        ({"RecognizableVisualFeatures": "YES"}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "zzzz"]}, False),
    ],
)
def test_renderings_are_recognised(attributes: dict[str, object], rendered: bool) -> None:
    with quiet_pydicom():
        assert is_rendered(patient(**attributes)) is rendered


PASS_AS_NAMES = {"Manufacturer", "ManufacturerModelName", "TransducerData", "TransducerType"}
"""A made-up word in these looks like a device, and may pass; `test_deid_headers` holds their rules."""


def dictionary_value(vr: str, word: str) -> object:
    """Something identifying in the shape of a VR: a name, a number of eight digits, or a birth date."""
    if vr in ("IS", "DS"):
        return "19610307"
    if vr in ("US", "SS"):
        return 31961
    if vr in ("UL", "SL", "UV", "SV"):
        return 19610307
    if vr in ("FL", "FD"):
        return 19610307.0
    if vr in ("DA", "DT"):
        return "19610307"
    return {"TM": "031961", "AS": "106Y", "UI": "1.2.999.19610307", "AT": 0x00096103}.get(vr, word)


@pytest.mark.parametrize("dates", ["remove", "shift"])
def test_no_attribute_of_the_whole_dictionary_lets_a_name_or_a_number_pass(dates: Dates) -> None:
    dataset = patient()
    with quiet_pydicom():
        for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
            if (
                keyword in PASS_AS_NAMES
                or not keyword
                or tag >> 16 < 8
                or " or " in vr
                or vr in ("SQ", "OB", "OW", "NONE")
            ):
                continue
            if vr in ("OD", "OF", "OL", "OV", "UN"):
                dataset.add_new(tag, vr, b"Qz000xKv")
            elif keyword not in ("SpecificCharacterSet", "SOPClassUID"):
                dataset.add_new(tag, vr, dictionary_value(vr, "Qz000xKv"))
        assert len(dataset) > 3500
        after = clean(dataset, dates=dates)
        content = written(after).lower()
    for text in (b"qz000xkv", b"19610307", b"1.2.999", b"106y", (19610307).to_bytes(4, "little")):
        assert text not in content, [e for e in after.dataset.iterall() if "9610307" in str(e.value)]
    assert after.dataset.PatientAge == "090Y"


def test_no_sequence_of_the_whole_dictionary_lets_a_name_pass() -> None:
    dataset = patient()
    item = Dataset()
    with quiet_pydicom():
        for keyword in ("PatientName", "PatientID", "CodeMeaning", "TextValue", "PersonName", "InstitutionName", "UID"):
            setattr(item, keyword, "Qz000xKv")
        outer = Dataset()
        outer.ContentSequence = [item]
        for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
            if vr == "SQ" and keyword:
                dataset.add_new(tag, "SQ", [item, outer])
        assert len(dataset) > 800
        assert b"qz000xkv" not in written(clean(dataset)).lower()
