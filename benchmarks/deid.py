"""De-identification of DICOM: CPU per file against pydicom's own read and write, what survives, what is done right.

    python benchmarks/deid.py [--files N]
    python benchmarks/deid.py --actions [--patients N]

The second form counts the ten actions that the MIDI-B challenge counted (MICCAI 2024, CBIIT/MIDI_validation_script), on
planted files through the whole command, dates shifted. It asks more than the challenge did: a string must be gone from
every byte of the output and not only from its tag, intervals between dates must be exact, and a missing file fails.

Every file is an 800x600 RGB ultrasound image (1.4 MB) with a unique planted string in each of the places that
`tests/data/planted.py` knows. The floor reads and writes the file with pydicom and changes nothing, so that it converts
no value. Rivals are run where they are installed (dicognito, dicom-anonymizer); none is needed.
"""

from __future__ import annotations

import argparse
import copy
import datetime as dt
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from canary_search import Searcher
from planted import Canaries, planted_dataset, planted_dicom, speckle

from openus_data.decode import decode
from openus_data.deid.dicom import clean_dataset, write_file
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deidentify import LIMITS, _Task, clean_file, deidentify

KEY = Pseudonymizer(key=b"k" * 32)
PIXEL_KEYWORDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
Tool = Callable[[Path, Path], None]


def copy_bytes(source: Path, target: Path) -> None:
    """Read and write bytes."""
    target.write_bytes(source.read_bytes())


def pydicom_floor(source: Path, target: Path) -> None:
    """Parse, convert and write everything, change nothing."""
    dataset = pydicom.dcmread(source)
    dataset.save_as(target)


def header_only(source: Path, target: Path) -> None:
    """Our header cleaning; the pixels pass through."""
    dataset = pydicom.dcmread(source)
    clean = clean_dataset(dataset, pseudonyms=KEY).dataset
    for keyword in PIXEL_KEYWORDS:
        if keyword in dataset:
            setattr(clean, keyword, dataset[keyword].value)
    clean.add_new(0x7FE00010, "OB", dataset.PixelData)
    with target.open("wb") as handle:
        write_file(clean, handle)


def decode_only(source: Path, target: Path) -> None:
    """Decode every frame, write nothing."""
    del target
    for _ in decode(source, limits=LIMITS).read(None):
        pass


def whole_command(source: Path, target: Path) -> None:
    """The work of the command `deid` on one file: header, cone, text, check, write."""
    task = _Task(number=1, path=source, relative=source.name, target=target.parent, pseudonyms=KEY, dates="remove")
    outcome = clean_file(task)
    if outcome.verdict == "written":
        task.aside.replace(target)


def dicognito(source: Path, target: Path) -> None:
    """dicognito, default call."""
    anonymizer = importlib.import_module("dicognito.anonymizer").Anonymizer(seed="k")
    dataset = pydicom.dcmread(source)
    anonymizer.anonymize(dataset)
    dataset.save_as(target)


def dicom_anonymizer(source: Path, target: Path) -> None:
    """dicom-anonymizer, default call."""
    importlib.import_module("dicomanonymizer").anonymize_dicom_file(str(source), str(target))


TOOLS: tuple[tuple[str, Tool], ...] = (
    ("copy of the bytes", copy_bytes),
    ("pydicom read + write (floor)", pydicom_floor),
    ("openus header", header_only),
    ("decode (floor of pixels)", decode_only),
    ("openus deid, header and pixels", whole_command),
    ("dicognito", dicognito),
    ("dicom-anonymizer", dicom_anonymizer),
)


def make_files(folder: Path, count: int) -> Canaries:
    """`count` planted files in a folder."""
    canary = Canaries()
    grey = speckle(600, 800)
    content = planted_dicom(canary, pixels=grey)
    # bytes behind the data set stop pydicom and the rivals: they are part of the tests, not of the timing
    content = content[: content.rfind(b"Qz")]
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = np.repeat(grey[..., None], 3, axis=2).tobytes()
    for number in range(count):
        one = copy.deepcopy(dataset)
        one.SOPInstanceUID = f"1.2.999.1961030712345678.{number}"
        one.save_as(folder / f"{number:04d}.dcm")
    return canary


def measure(tool: Tool, source: Path, target: Path) -> float:
    """CPU milliseconds a file, the median."""
    spent = []
    for path in sorted(source.iterdir()):
        started = time.process_time()
        tool(path, target / path.name)
        spent.append(time.process_time() - started)
    return 1000 * float(np.median(spent))


Pair = tuple[pydicom.Dataset, pydicom.Dataset]
"""A planted file and what the command made of it."""

MUST_BE_THERE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
    "SeriesNumber", "InstanceNumber", "Manufacturer", "Modality", "ImageType", "SequenceOfUltrasoundRegions",
    *PIXEL_KEYWORDS[:2], *PIXEL_KEYWORDS[3:],
)  # fmt: skip
"""Type 1 and 2 attributes of the mandatory modules of US Image, and the regions that scaling needs."""
MAY_BE_EMPTY = frozenset({"PatientBirthDate", "AccessionNumber", "ReferringPhysicianName", "StudyID"})
KEPT_TEXT = (
    ("Manufacturer", "Philips Medical Systems"), ("ManufacturerModelName", "EPIQ 7C"), ("TransducerData", "C5-1"),
    ("TransducerType", "CURVED LINEAR"), ("PatientSex", "F"), ("PatientAge", "090Y"), ("Laterality", "L"),
    ("BodyPartExamined", "BREAST"),
)  # fmt: skip
UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
DATES = ("StudyDate", "ContentDate")
WORDS = ("SMITH JANE", "LT BREAST 3")


def make_patients(folder: Path, patients: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two studies of each patient, a name beside the scan area and a label inside; SOPInstanceUID to (clean, text)."""
    truth = {}
    for number in range(2 * patients):
        grey = speckle(480, 640, seed=number)
        shown = grey.copy()
        cv2.putText(shown, WORDS[0], (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
        cv2.putText(shown, WORDS[1], (250, 260), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
        dataset = planted_dataset(Canaries(), pixels=shown)
        dataset.PatientID, dataset.StudyDate = f"MRN{number // 2}", ("20190412", "20200229")[number % 2]
        dataset.ContentDate = dataset.StudyDate
        dataset.StudyInstanceUID = f"1.2.999.1961030712345678.{number // 2}.{number % 2}"
        dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.1"
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
        dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        pydicom.dcmwrite(folder / f"{number:04d}.dcm", dataset, enforce_file_format=True)
        truth[str(dataset.SOPInstanceUID)] = grey, shown != grey
    return truth


def count_actions(source: Path, out: Path, truth: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, list[bool]]:
    """What was done right, action by action. A file that was not written fails every action on it."""
    before = [pydicom.dcmread(path) for path in sorted(source.iterdir())]
    after = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, sorted(out.iterdir()))}
    empty = pydicom.Dataset()
    pairs = [(d, after.get(KEY.uid(str(d.SOPInstanceUID)), empty)) for d in before]
    done: dict[str, list[bool]] = {}
    strings = [*make_canaries(), "1961030712345678", "19610307", "097Y"]
    written = [path.read_bytes().lower() for path in sorted(out.iterdir())] + [b"".join(strings_of(out))]
    whole = len(after) == len(before)
    done["text_removed"] = [whole and not any(s.lower().encode() in content for content in written) for s in strings]
    done["tag_retained"] = [keyword in new for _, new in pairs for keyword in MUST_BE_THERE]
    done["text_notnull"] = [
        bool(str(new.get(k, ""))) for _, new in pairs for k in MUST_BE_THERE if k not in MAY_BE_EMPTY
    ]
    done["text_retained"] = [str(new.get(keyword, "")) == text for _, new in pairs for keyword, text in KEPT_TEXT]
    done["uid_changed"] = [str(new.get(k, old[k].value)) != str(old[k].value) for old, new in pairs for k in UIDS]
    done["uid_consistent"] = [new.get(k) == KEY.uid(str(old[k].value)) for old, new in pairs for k in UIDS]
    done["uid_consistent"] += [_refers_to_itself(new) for _, new in pairs]
    done["date_shifted"] = [k in new and new[k].value not in ("", old[k].value) for old, new in pairs for k in DATES]
    done["date_shifted"] += [_days(pairs[n : n + 2], 0) == _days(pairs[n : n + 2], 1) for n in range(0, len(pairs), 2)]
    names = [str(new.get("PatientID", number)) for number, (_, new) in enumerate(pairs)]
    done["patid_consistent"] = [names[n] == names[n + 1] for n in range(0, len(names), 2)]
    done["patid_consistent"] += [len(set(names)) == len(names) // 2]
    done["pixels_hidden"], done["pixels_retained"] = [], []
    for old, new in pairs:
        grey, text = truth[str(old.SOPInstanceUID)]
        shown = new.pixel_array if new else np.full_like(grey, 255)
        done["pixels_hidden"].append(float((shown[text] > 250).mean()) < 0.05)
        away = (grey > 0) & ~cv2.dilate(text.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool)
        done["pixels_retained"].append(float((shown[away] == grey[away]).mean()) > 0.99)
    return done


def make_canaries() -> list[str]:
    """The strings that `planted_dataset` plants, the same in every file."""
    canary = Canaries()
    planted_dataset(canary)
    return list(canary.planted)


def strings_of(out: Path) -> list[bytes]:
    """Names of the files."""
    return [path.name.lower().encode() for path in sorted(out.iterdir())]


def _refers_to_itself(new: pydicom.Dataset) -> bool:
    items = new.get("ReferencedImageSequence") or [pydicom.Dataset()]
    return bool(new) and items[0].get("ReferencedSOPInstanceUID") == new.SOPInstanceUID


def _days(pairs: Sequence[Pair], side: int) -> int | None:
    """Days between the two studies of a patient; None where a date is missing."""
    try:
        first, second = (dt.datetime.strptime(pair[side].StudyDate, "%Y%m%d") for pair in pairs)
    except (AttributeError, ValueError):
        return None
    return (second - first).days


def print_actions(patients: int) -> None:
    """Print the table of actions."""
    with tempfile.TemporaryDirectory() as work, quiet_pydicom():
        source, out, key = Path(work) / "source", Path(work) / "out", Path(work) / "key"
        source.mkdir()
        truth = make_patients(source, patients)
        key.write_text(KEY.key.hex() + "\n")
        key.chmod(0o600)
        deidentify(source, out, key_file=key, dates="shift", quiet=True)
        done = count_actions(source, out, truth)
    print(f"{2 * patients} files of {patients} patients")
    print(f"{'action':20}{'right':>8}{'of':>8}{'%':>9}")
    for action, results in done.items():
        print(f"{action:20}{sum(results):8}{len(results):8}{100 * sum(results) / len(results):9.2f}")
    every = [result for results in done.values() for result in results]
    print(f"{'all':20}{sum(every):8}{len(every):8}{100 * sum(every) / len(every):9.2f}")


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--actions", action="store_true")
    parser.add_argument("--patients", type=int, default=10)
    options = parser.parse_args()
    if options.actions:
        print_actions(options.patients)
    else:
        print_times(options.files)


def print_times(count: int) -> None:
    """Print the table of times and survivors."""
    with tempfile.TemporaryDirectory() as work, quiet_pydicom():
        source = Path(work) / "source"
        source.mkdir()
        canary = make_files(source, count)
        searcher = Searcher(canary, {"1961030712345678": "a UID"})
        places = set(canary.planted.values())
        print(
            f"{count} files of {next(source.iterdir()).stat().st_size / 1e6:.2f} MB, {len(places)} planted places each"
        )
        print(f"{'tool':34}{'CPU ms/file':>12}{'x floor':>9}{'places that survive':>21}")
        floor = 0.0
        for name, tool in TOOLS:
            target = Path(work) / "target"
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            try:
                spent = measure(tool, source, target)
            except ImportError:
                print(f"{name:34}{'not installed':>12}")
                continue
            floor = spent if "floor)" in name and not floor else floor
            leaks = {leak.place for leak in searcher.in_folders([target])}
            ratio = f"{spent / floor:.2f}" if floor else ""
            print(f"{name:34}{spent:12.2f}{ratio:>9}{len(leaks) if any(target.iterdir()) else '-':>21}")


if __name__ == "__main__":
    main()
