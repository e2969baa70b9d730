"""Every real ultrasound file is read, as exactly as the reference reader reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_color_lut

from openus_data.decode import decode

KINDS = {".png", ".jpg", ".jpeg", ".tiff", ".dcm", ".mp4", ".avi", ".mov"}
DICOM_NAMES = ("examples_rgb_color.dcm", "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm")


def test_every_real_file_gives_all_its_frames_in_one_size(realdata: Path) -> None:
    files = [path for path in sorted((realdata / "dev").rglob("*")) if path.suffix.lower() in KINDS]
    assert len(files) > 50
    for path in files:
        media = decode(path)
        wanted = sorted({0, media.frame_count // 2, media.frame_count - 1} if path.suffix == ".dcm" else {0})
        for index, pixels in media.read(wanted):
            assert pixels.dtype == np.uint8 and pixels.shape[:2] == (media.height_px, media.width_px), index
            assert pixels.ndim == 2 or pixels.shape[2] == 3


@pytest.mark.parametrize("name", DICOM_NAMES)
def test_real_dicom_equals_the_reference_reader(name: str) -> None:
    path = str(get_testdata_file(name))
    dataset = pydicom.dcmread(path)
    truth = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        truth = (apply_color_lut(truth, dataset) >> 8).astype(np.uint8)
    truth = truth if truth.ndim == 4 else truth[None]
    media = decode(Path(path))
    assert media.frame_count == len(truth)
    for index, pixels in media.read(None):
        whole = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
        assert np.abs(whole.astype(int) - truth[index]).max() <= 3, "only a JPEG may differ, by rounding"
