"""Volumes of every format, each with its label volume, become slices with the same crop of their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_builds import TOY_CARD, inline, sector

from openus_data.build import BuildRequest, build
from openus_data.card import load_card
from openus_data.first_stage.encode import decode_stored
from openus_data.manifest import read_manifest
from openus_data.samples import read_companions, read_pixels

__all__ = ["inline"]

Write = Callable[[Path, NDArray[np.uint8]], None]
SLICES = 4  # three would be a colour picture to MATLAB
PICTURES = np.stack([sector(seed) for seed in range(SLICES)])  # (slices, rows, columns)
LABELS = np.zeros_like(PICTURES)
for _number in range(SLICES):
    LABELS[_number, 20 + 10 * _number : 90, 60:140] = 1
    LABELS[_number, 50:70, 80 + 5 * _number : 120] = 2


def nifti(path: Path, stack: NDArray[np.uint8]) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(stack.transpose(2, 1, 0), np.diag([0.3, 0.3, 1.0, 1.0])), path)


def metaimage(path: Path, stack: NDArray[np.uint8]) -> None:
    sizes = " ".join(str(length) for length in stack.shape[::-1])
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {sizes}\nElementType = MET_UCHAR\n"
    path.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + stack.tobytes())


def nrrd_file(path: Path, stack: NDArray[np.uint8]) -> None:
    pytest.importorskip("nrrd").write(str(path), stack, {"encoding": "gzip"}, index_order="C")


def matlab(path: Path, stack: NDArray[np.uint8]) -> None:
    pytest.importorskip("scipy.io").savemat(path, {"a": stack.transpose(1, 2, 0)}, do_compression=True)


def hdf5(path: Path, stack: NDArray[np.uint8]) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        file.create_dataset("a", data=stack)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [(".nii.gz", nifti), (".nii", nifti), (".mha", metaimage), (".nrrd", nrrd_file), (".mat", matlab), (".h5", hdf5)],
)
def test_labels_get_the_crop_of_their_slice(tmp_path: Path, inline: None, suffix: str, write: Write) -> None:
    card = TOY_CARD.replace("*.png", f"*{suffix}").replace(
        'class = "lesion"', 'encoding = "index"\nvalues = { 1 = "lesion", 2 = "core" }'
    )
    (tmp_path / "toy.toml").write_text(card.replace("lesion = 1", "lesion = 1\ncore = 2"))
    for folder, stack in (("images", PICTURES), ("masks", LABELS)):
        place = tmp_path / "root/toy/files" / folder
        place.mkdir(parents=True)
        write(place / f"p1_scan{suffix}", stack)
    cards = (load_card(tmp_path / "toy.toml"),)
    report = build(BuildRequest(out=tmp_path / "out", root=tmp_path / "root", cards=cards, policy="keep", quiet=True))
    rows = list(read_manifest(tmp_path / "out").to_pylist())
    assert report.exit_code == 0 and sorted(row["frame_index"] for row in rows) == list(range(SLICES))
    for row in rows:
        x0, y0, x1, y1 = (int(v) for v in row["cone_box"])
        part = np.s_[row["frame_index"], y0:y1, x0:x1]
        mask = decode_stored(read_companions(tmp_path / "out", row)["mask.png"])
        assert np.array_equal(mask, LABELS[part])
        shown = read_pixels(tmp_path / "out", row)
        assert np.array_equal(shown[mask == 2], PICTURES[part][mask == 2])
