"""A clean DICOM header, built up from the allow-list.

The old data set is only read; nothing of it is copied and pruned, so what the allow-list does not know cannot pass.
Pixels are not touched here: `attach_pixels` writes frames that the caller has cleaned.

    clean = clean_dataset(dataset, pseudonyms=key, pixels_cleaned=True)
    attach_pixels(clean.dataset, frames_THW, is_clip=False)
    write_file(clean.dataset, handle)
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from openus_data.deid import encode, headers, policy, replacements, values
from openus_data.deid.policy import Step
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deid.replacements import Context, Dates
from openus_data.schema import PIPELINE_VERSION

IMPLEMENTATION_UID: Final = "2.25.305828488182831875890203105390285383139"
"""Names this program in file meta information."""
IMPLEMENTATION_NAME: Final = "OPENUS_DATA"
METHOD: Final = f"openus-data deid {PIPELINE_VERSION}: allow-list, PS3.15 E.1 Basic Profile"

ENHANCED_VOLUME_UID: Final = "1.2.840.10008.5.1.4.1.1.6.2"
MULTIFRAME_UID: Final = "1.2.840.10008.5.1.4.1.1.3.1"
STILL_UID: Final = "1.2.840.10008.5.1.4.1.1.6.1"

_WHOLE_VRS: Final = frozenset({"US", "UL", "SS", "SL", "IS"})
_SCHEME: Final = "DCM"
_EQUIPMENT_CODE: Final = ("109104", "De-identifying Equipment")
_OPTION_CODES: Final[Mapping[str, str]] = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113105": "Clean Descriptors Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
"""PS3.16 CID 7050."""
_RENDERED_BIT: Final = 0x40
"""3D rendering, in the fourth value of ImageType (PS3.3 section C.8.5.6.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanDataset:
    """A header that may be shown.

    Args:
        dataset: new, without pixels, with file meta information of our own.
        rules: names of the policy's rules that wrote something, sorted.
        dropped: number of attributes of the top level that stayed behind.
        patient: the patient's pseudonym.
    """

    dataset: Dataset = field(repr=False)
    rules: tuple[str, ...]
    dropped: int
    patient: str


def clean_dataset(
    dataset: Dataset,
    *,
    pseudonyms: Pseudonymizer,
    dates: Dates = "remove",
    pixels_cleaned: bool = False,
    stand_in: str = "",
) -> CleanDataset:
    """Build the header that may leave.

    Args:
        dataset: as read, untrusted.
        pseudonyms: names under the user's key.
        dates: leave dates out, or move them by one offset per patient.
        pixels_cleaned: whether the pixels of this instance were cleaned and checked; only then is that claimed.
        stand_in: a key of the file, for objects without PatientID, StudyInstanceUID or SOPInstanceUID.

    Returns:
        The new header; its pixel attributes are still missing.
    """
    with quiet_pydicom():
        context = _context(dataset, pseudonyms, dates, stand_in)
        rules: set[str] = set()
        clean = Dataset()
        dropped = _copy_allowed(dataset, policy.steps(), clean, context, rules)
        _fill_required(clean, context)
        _fill_identifiers(dataset, clean, context, stand_in)
        _write_method(dataset, clean, dates, pixels_cleaned)
        clean.file_meta = _file_meta(clean)
    return CleanDataset(
        dataset=clean,
        rules=tuple(sorted(rules | {"drop-everything-else", "write-method"})),
        dropped=dropped,
        patient=context.patient_pseudonym,
    )


def is_rendered(dataset: Dataset) -> bool:
    """Whether the header says that the picture is a volume, a rendering, or shows recognisable features."""
    with quiet_pydicom():
        kind = headers.read_texts(dataset, "ImageType")
        fourth = kind[3] if len(kind) > 3 else ""
        bits = int(fourth, 16) if fourth and all(c in "0123456789ABCDEFabcdef" for c in fourth[:8]) else 0
        words = {word for text in kind for word in text.upper().replace("_", " ").split()}
        return bool(
            bits & _RENDERED_BIT
            or words & {"3D", "4D", "RENDERING", "VOLUMERENDERED", "SURFACE"}
            or headers.read_texts(dataset, "RecognizableVisualFeatures")[:1] == ("YES",)
            or headers.read_texts(dataset, "SOPClassUID")[:1] == (ENHANCED_VOLUME_UID,)
        )


def _context(dataset: Dataset, pseudonyms: Pseudonymizer, dates: Dates, stand_in: str) -> Context:
    subject, study = headers.read_keys(dataset)
    return Context(
        pseudonyms=pseudonyms,
        patient=subject or f"study {study or stand_in}",
        private_words=headers.identity_words(dataset),
        dates=dates,
        other_text=functools.partial(headers.other_text, dataset),
    )


def _copy_allowed(
    source: Dataset, steps: Mapping[int, Step], target: Dataset, context: Context, rules: set[str]
) -> int:
    """Add to `target` what the steps let pass; returns how many attributes stayed behind."""
    dropped = 0
    for tag in list(source.keys()):
        step = steps.get(int(tag))
        raw = None if step is None else headers.read_tag(source, tag)
        value = None if step is None or raw is None else _pass(raw, step, context, rules)
        if step is None or value is None or _is_too_many(value, step):
            dropped += 1
            continue
        _put(target, step, value)
    return dropped


def _is_too_many(value: object, step: Step) -> bool:
    """Whether there are more values than the standard knows of: two bytes each spell whatever one likes."""
    return step.most is not None and isinstance(value, list) and len(value) > step.most


def _pass(raw: object, step: Step, context: Context, rules: set[str]) -> object:
    if step.value is not None:
        value = step.value(raw, context)
        if value is not None:
            rules.add(step.rule)
        return value
    if not isinstance(raw, Sequence):
        return None
    items = []
    for item in raw:
        clean = Dataset()
        _copy_allowed(item, step.children, clean, context, rules)
        items.append(clean)
    return Sequence(items)


def _put(target: Dataset, step: Step, value: object) -> None:
    try:
        target[step.tag] = encode.raw_element(step.tag, step.vr, _fit(value, step.vr))
    except (ValueError, TypeError, OverflowError, struct.error):  # does not fit the VR: stays behind
        return


def _fit(value: object, vr: str) -> object:
    """Numbers as the VR wants them, everything else as it is."""
    if isinstance(value, list):
        return [_fit(part, vr) for part in value]
    if vr == "DS" and isinstance(value, float):
        return f"{value:.10g}"
    if vr in _WHOLE_VRS and isinstance(value, float):
        return round(value)
    return value


def _fill_required(clean: Dataset, context: Context) -> None:
    for tag, step in policy.required().items():
        if tag not in clean:
            value = context.patient_pseudonym if step.rule == "replace-patient" else ""
            clean[tag] = encode.raw_element(tag, step.vr, value)


def _fill_identifiers(source: Dataset, clean: Dataset, context: Context, stand_in: str) -> None:
    """Give an object without the class and the UIDs that every object must have ones of its own."""
    if "SOPClassUID" not in clean:
        several = values.numbers(headers.read_value(source, "NumberOfFrames"))[:1] > (1.0,)
        clean.SOPClassUID = MULTIFRAME_UID if several else STILL_UID
    if "Modality" not in clean:
        clean.Modality = "US"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if keyword not in clean:
            clean.add_new(policy.tag_of(keyword), "UI", context.pseudonyms.uid(f"{keyword} {stand_in}"))


def _write_method(source: Dataset, clean: Dataset, dates: Dates, pixels_cleaned: bool) -> None:
    earlier = replacements.earlier_methods(headers.read_value(source, "DeidentificationMethod"))
    clean.DeidentificationMethod = [*(text for text in earlier if text != METHOD), METHOD]
    for element in _marks(dates, pixels_cleaned):
        clean[element.tag] = element


@functools.cache
def _marks(dates: Dates, pixels_cleaned: bool) -> tuple[RawDataElement, ...]:
    """What every clean object says about its cleaning: the same for all, so made and encoded once."""
    marks, equipment = Dataset(), Dataset()
    claims = [
        "113100",
        *(["113101"] if pixels_cleaned else []),
        "113105",
        *(["113107"] if dates == "shift" else []),
        "113108",
    ]
    marks.PatientIdentityRemoved = "YES" if pixels_cleaned else "NO"
    marks.DeidentificationMethodCodeSequence = Sequence([_code(claim, _OPTION_CODES[claim]) for claim in claims])
    marks.LongitudinalTemporalInformationModified = "MODIFIED" if dates == "shift" else "REMOVED"
    if pixels_cleaned:
        marks.BurnedInAnnotation = "NO"
    equipment.PurposeOfReferenceCodeSequence = Sequence([_code(*_EQUIPMENT_CODE)])
    equipment.Manufacturer, equipment.ManufacturerModelName = "OpenUS", "openus-data deid"
    equipment.SoftwareVersions = PIPELINE_VERSION
    marks.ContributingEquipmentSequence = Sequence([equipment])
    return tuple(encode.raw_element(int(element.tag), element.VR, element.value) for element in marks)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, _SCHEME, meaning
    return item


def _file_meta(clean: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(str(clean.get("SOPClassUID", "")))
    meta.MediaStorageSOPInstanceUID = UID(str(clean.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta


def attach_pixels(clean: Dataset, frames: NDArray[np.uint8], *, is_clip: bool) -> None:
    """Write frames into a clean header as native 8-bit pixels.

    Args:
        clean: from `clean_dataset`.
        frames: uint8, (T, H, W) grey or (T, H, W, 3) RGB.
        is_clip: whether the object's class has a number of frames.
    """
    colour = frames.ndim == 4
    clean.SamplesPerPixel = 3 if colour else 1
    clean.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        clean.PlanarConfiguration = 0
    if is_clip:
        clean.NumberOfFrames = str(frames.shape[0])
    clean.Rows, clean.Columns = int(frames.shape[1]), int(frames.shape[2])
    clean.BitsAllocated, clean.BitsStored, clean.HighBit, clean.PixelRepresentation = 8, 8, 7, 0
    content = np.ascontiguousarray(frames).tobytes()
    clean.add_new(0x7FE00010, "OB", content + b"\0" * (len(content) % 2))


def write_file(clean: Dataset, handle: BinaryIO) -> None:
    """Write a DICOM file: preamble of zeros, our meta information, the data set, nothing behind it."""
    handle.write(encode.encode_file_head(clean.file_meta))
    for piece in encode.encode_dataset(clean):
        handle.write(piece)


def encode_file(clean: Dataset) -> bytes:
    """The bytes of `write_file`."""
    buffer = io.BytesIO()
    write_file(clean, buffer)
    return buffer.getvalue()
