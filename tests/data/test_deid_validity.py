"""What `deid` writes breaks no rule of DICOM that its source kept, as David Clunie's dciodvfy sees it.

Skipped where that program (Debian: dicom3tools) is not installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from planted import Canaries, planted_dicom, speckle
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from openus_data.deidentify import deidentify

DCIODVFY = shutil.which("dciodvfy")
OF_PYDICOM = ("examples_jpeg2k.dcm", "examples_palette.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm")
_VALUE = re.compile(r"<[^<>/]*>")

pytestmark = pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy is not installed")


def errors(path: Path) -> Counter[str]:
    """Each rule that a file breaks and how often, without the values that break it."""
    done = subprocess.run([str(DCIODVFY), "-new", str(path)], capture_output=True, text=True, errors="replace")
    return Counter(_VALUE.sub("", line) for line in done.stderr.splitlines() if line.startswith("Error"))


def clip() -> Dataset:
    """A clip of four frames with a frame time, as scanners store it."""
    dataset = pydicom.dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    frames = np.stack([speckle(seed=seed) for seed in range(4)])
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *frames.shape[1:], len(frames)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.pop("PlanarConfiguration", None)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.add_new(0x7FE00010, "OB", frames.tobytes())
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.840.10008.99.4"
    return dataset


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of ultrasound files: pydicom's, a planted one, a clip."""
    folder = tmp_path_factory.mktemp("validity") / "src"
    folder.mkdir()
    for name in OF_PYDICOM:
        shutil.copy(str(get_testdata_file(name)), folder / name)
    (folder / "planted.dcm").write_bytes(planted_dicom(Canaries()))
    clip().save_as(folder / "clip.dcm")
    return folder


@pytest.mark.parametrize("dates", ["remove", "shift"])
def test_no_error_is_new(sources: Path, tmp_path: Path, dates: str) -> None:
    report = deidentify(sources, tmp_path / "out", key_file=tmp_path / "key", dates=dates, quiet=True)
    paths = sorted(sources.iterdir())
    written = [(paths[o.number - 1], tmp_path / "out" / o.output) for o in report.outcomes if o.verdict == "written"]
    assert len(written) >= 5
    new = {source.name: errors(target) - errors(source) for source, target in written}
    assert not {name: found for name, found in new.items() if found}


def test_a_broken_file_is_seen(sources: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(sources / OF_PYDICOM[2])
    del dataset.PatientName
    dataset.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm") - errors(sources / OF_PYDICOM[2])
