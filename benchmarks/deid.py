"""De-identification of DICOM headers: CPU per file against pydicom's own read and write, and what survives.

    python benchmarks/deid.py [--files N]

Every file is an 800x600 RGB ultrasound image (1.4 MB) with a unique planted string in each of the places that
`tests/data/planted.py` knows. The floor reads and writes the file with pydicom and changes nothing, so that it converts
no value. Rivals are run where they are installed (dicognito, dicom-anonymizer); none is needed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from canary_search import Searcher
from planted import Canaries, planted_dicom, speckle

from openus_data.decode import decode
from openus_data.deid.dicom import clean_dataset, write_file
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deidentify import LIMITS, _Task, clean_file

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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20)
    count = parser.parse_args().files
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
