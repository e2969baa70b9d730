"""Files with planted identities: every place outside the pixels where a name can hide, each with its own canary.

A canary is a unique string of letters and digits, so that finding it in an output says which place leaked. The files
are made here from nothing, small and valid enough to be read by their formats' readers.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from openus_data.deid.quiet import quiet_pydicom

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"


@dataclasses.dataclass
class Canaries:
    """Hands out unique strings and remembers where each was planted.

    Args:
        planted: canary to place.
    """

    planted: dict[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, place: str, length: int = 16) -> str:
        """A new canary for a place: `Q` + number + letters that stand in no ordinary word, in mixed case."""
        text = f"Qz{len(self.planted):03d}xKv" + "WqJzXvKyHbTg"[: max(0, length - 8)]
        self.planted[text] = place
        return text


def speckle(height: int = 120, width: int = 160, seed: int = 0) -> NDArray[np.uint8]:
    """A sector of speckle on black, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(rows + 10, columns - width / 2)
    angle = np.arctan2(columns - width / 2, rows + 10)
    inside = (np.abs(angle) < 0.7) & (distance > 15) & (distance < height)
    noise = np.clip(rng.rayleigh(45, (height, width)) * (1.2 - distance / (2 * height)), 1, 255)
    return np.where(inside, noise, 0).astype(np.uint8)


def planted_dataset(canary: Canaries, *, pixels: NDArray[np.uint8] | None = None) -> Dataset:
    """An ultrasound image whose header holds a canary in every kind of place of which `clean_dataset` must know."""
    with quiet_pydicom():
        dataset = _valid_dataset(canary, speckle() if pixels is None else pixels)
        _plant_standard(dataset, canary)
        _plant_nested(dataset, canary)
        _plant_odd(dataset, canary)
    return dataset


def _valid_dataset(canary: Canaries, pixels: NDArray[np.uint8]) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = US_IMAGE, "US"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.999.1961030712345678.3", "1.2.999.1961030712345678.2"
    dataset.StudyInstanceUID = "1.2.999.1961030712345678.1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", canary("ImageType"), "0001"]
    dataset.Manufacturer, dataset.ManufacturerModelName = "Philips Medical Systems", "EPIQ 7C"
    dataset.TransducerData = ["C5-1", canary("TransducerData 2"), "B1234567"]
    dataset.TransducerType = "CURVED LINEAR"
    dataset.SoftwareVersions = ["EPIQ 7C_1.7.1.24", canary("SoftwareVersions 2")]
    dataset.PatientSex, dataset.PatientAge, dataset.PatientBirthDate = "F", "097Y", "19610307"
    dataset.StudyDate, dataset.StudyTime, dataset.ContentDate, dataset.ContentTime = (
        "20190412",
        "101500",
        "20190412",
        "101501",
    )
    dataset.Laterality, dataset.BodyPartExamined = "L", "BREAST"
    dataset.BurnedInAnnotation = "NO"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = pixels.shape[1] - 1, pixels.shape[0] - 1
    region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = 3, 3
    region.PhysicalDeltaX, region.PhysicalDeltaY, region.TransducerFrequency = 0.00123456789, 0.0023456789, 7500
    dataset.SequenceOfUltrasoundRegions = Sequence([region])
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.add_new(0x7FE00010, "OB", pixels.tobytes() + b"\0" * (pixels.size % 2))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = US_IMAGE, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = canary("file meta, source AE title")
    meta.PrivateInformationCreatorUID = "1.2.999.1961030712345678.9"
    meta.PrivateInformation = canary("file meta, private information").encode()
    dataset.file_meta = meta
    return dataset


_TEXT_KEYWORDS = (
    "PatientID", "IssuerOfPatientID", "OtherPatientNames", "PatientBirthName",
    "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "MilitaryRank", "EthnicGroup", "Occupation",
    "AdditionalPatientHistory",
    "PatientComments", "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber",
    "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "StageName",
    "ViewName", "EventTimerNames", "ProcessingFunction", "OutputPower", "WindowCenterWidthExplanation",
    "PositionReferenceIndicator", "DerivationDescription", "AcquisitionDeviceProcessingDescription",
    "RequestedProcedureDescription", "PerformedProcedureStepDescription", "InterpretationText", "TextValue",
    "ContrastBolusAgent", "ContrastBolusRoute", "RequestingPhysician", "AdmissionID", "DocumentTitle",
    "RetrieveAETitle", "DeidentificationMethod",
)  # fmt: skip


def _plant_standard(dataset: Dataset, canary: Canaries) -> None:
    for keyword in _TEXT_KEYWORDS:
        setattr(dataset, keyword, canary(keyword))
    dataset.PatientName = f"{canary('PatientName, surname')}^{canary('PatientName, first name')}"
    dataset.DeviceUID = "1.2.999.1961030712345678.7"


def _plant_nested(dataset: Dataset, canary: Canaries) -> None:
    region = dataset.SequenceOfUltrasoundRegions[0]
    region.PatientName = canary("PatientName inside a kept region")
    region.add_new(0x00091001, "LO", canary("private element inside a kept region"))
    for keyword in (
        "RequestAttributesSequence",
        "OriginalAttributesSequence",
        "ContentSequence",
        "PatientInsurancePlanCodeSequence",
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = "X1", "99LOCAL"
        item.CodeMeaning = canary(f"{keyword}, code meaning")
        item.TextValue = canary(f"{keyword}, text value")
        setattr(dataset, keyword, Sequence([item]))
    anatomy = Dataset()
    anatomy.CodeValue, anatomy.CodingSchemeDesignator = "76752008", "SCT"
    anatomy.CodeMeaning = canary("meaning beside a known code")
    unknown = Dataset()
    unknown.CodeValue, unknown.CodingSchemeDesignator = canary("unknown code", 12), "99LOCAL"
    unknown.CodeMeaning = canary("meaning beside an unknown code")
    dataset.AnatomicRegionSequence = Sequence([anatomy, unknown])
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = US_IMAGE, "1.2.999.1961030712345678.3"
    reference.PatientID = canary("PatientID inside a kept reference")
    dataset.ReferencedImageSequence = Sequence([reference])


def _plant_odd(dataset: Dataset, canary: Canaries) -> None:
    block = dataset.private_block(0x0009, canary("private creator"), create=True)
    block.add_new(0x01, "LO", canary("private text"))
    block.add_new(0x02, "OB", canary("private bytes").encode())
    block.add_new(0x03, "UN", canary("private bytes, UTF-16").encode("utf-16-le"))
    dataset.add_new(0x00109999, "LO", canary("unknown tag of an even group"))
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000022, "LO", canary("overlay description"))
    dataset.add_new(0x60003000, "OW", canary("overlay data").encode())
    dataset.add_new(0x50000022, "LO", canary("curve description"))
    dataset.add_new(0x00420011, "OB", canary("encapsulated document").encode())
    dataset.add_new(0xFFFCFFFC, "OB", canary("trailing padding").encode())
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", canary("icon pixels").encode())
    dataset.IconImageSequence = Sequence([icon])


def planted_dicom(canary: Canaries, *, pixels: NDArray[np.uint8] | None = None) -> bytes:
    """The file of `planted_dataset`, with canaries in its preamble and behind its data set."""
    dataset = planted_dataset(canary, pixels=pixels)
    buffer = io.BytesIO()
    with quiet_pydicom():
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    content = bytearray(buffer.getvalue())
    preamble = canary("preamble").encode()
    content[: len(preamble)] = preamble
    return bytes(content) + canary("behind the data set").encode()


Planter = Callable[[Canaries, Path], None]
