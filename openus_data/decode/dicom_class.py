"""Which DICOM objects are ultrasound pictures, by class and modality; the others are named in words of the standard."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.uid import UID

from openus_data.decode.dicom_header import text_of
from openus_data.errors import NotUltrasound

_US_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.3",  # retired multi-frame
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.6",  # retired single frame
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.6.2",  # Enhanced US Volume
}
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture and its multi-frame kin
_US_MODALITIES = {"US", "IVUS", "OT", ""}
_OTHER_MODALITIES = {
    "AR", "BI", "BMD", "CR", "CT", "CFM", "DG", "DMS", "DOC", "DX", "ECG", "EPS", "ES", "EEG", "EMG", "EOG", "GM", "HC",
    "HD", "IO", "IVOCT", "KER", "KO", "LEN", "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV",
    "OPTENF", "OPV", "OSS", "PA", "PLAN", "PR", "PT", "PX", "REG", "RF", "RG", "RESP", "RTDOSE", "RTIMAGE", "RTPLAN",
    "RTRECORD", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TG", "VA", "XA", "XC",
}  # fmt: skip
"""PS3.3 C.7.3.1.1.1, without ultrasound's own."""


def check_class(dataset: Dataset) -> None:
    """Refuse objects that are not ultrasound pictures, by class.

    Ultrasound classes pass; secondary captures pass unless their modality is another; without a class, the modality
    decides.

    Raises:
        NotUltrasound: naming the class.
    """
    uid = text_of(dataset, "SOPClassUID")
    modality = text_of(dataset, "Modality").upper()
    if uid in _US_CLASSES:
        return
    is_capture = uid == _CAPTURES or uid.startswith(_CAPTURES + ".")
    if (is_capture or not uid) and modality in _US_MODALITIES:
        if "Rows" in dataset or is_capture or "SOPInstanceUID" in dataset:
            return
        raise NotUltrasound("not an ultrasound picture", expected="an image", got=_directory_or_nothing(dataset))
    unknown = "a private class" if uid else "an object without a class"
    registered = UID(uid, validation_mode=IGNORE)
    name = registered.name if registered.type else unknown
    got = f"{name}, {_shown_modality(modality)}" if is_capture else name
    raise NotUltrasound("not an ultrasound picture", expected="an Ultrasound Image or Multi-frame object", got=got)


def _shown_modality(modality: str) -> str:
    """The attribute is text that anybody can fill, so only what the standard defines is repeated."""
    return f"modality {modality}" if modality in _OTHER_MODALITIES else "of an unknown modality"


def _directory_or_nothing(dataset: Dataset) -> str:
    return "Media Storage Directory Storage" if "DirectoryRecordSequence" in dataset else "a data set without an image"
