"""Volumes: one axis rule, flat memory, and the same samples as the reference readers."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.decode import Limits, decode
from openus_data.errors import DecodeError, DecodeLimit, MissingExtra, UnsupportedFormat
from openus_data.records import Media

ROWS, COLUMNS, SLICES = 6, 9, 4


@pytest.fixture
def truth() -> NDArray[np.uint8]:
    """(slices, rows, columns)."""
    return np.random.default_rng(0).integers(0, 256, (SLICES, ROWS, COLUMNS), np.uint8)


def read_all(media: Media) -> NDArray[Any]:
    pixels = np.stack([pixels for _, pixels in media.read(None)])
    assert pixels.shape[:3] == (media.frame_count, media.height_px, media.width_px)
    return pixels


def write_mha(
    path: Path, array: NDArray[Any], data: bytes | None = None, extra: str = "", where: str = "LOCAL"
) -> Path:
    kind = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT"}[array.dtype.str[1:]]
    sizes = " ".join(str(length) for length in array.shape[::-1])
    head = f"ObjectType = Image\nNDims = {array.ndim}\nBinaryData = True\nDimSize = {sizes}\nElementType = {kind}\n"
    body = array.tobytes() if data is None else data
    path.write_bytes((head + extra + f"ElementDataFile = {where}\n").encode() + (body if where == "LOCAL" else b""))
    return path


def write_nifti(path: Path, array_xyz: NDArray[Any]) -> Path:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(array_xyz, np.diag([0.3, 0.2, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti_slices_run_along_the_third_axis_with_y_down(tmp_path: Path, truth: NDArray[np.uint8], name: str) -> None:
    media = decode(write_nifti(tmp_path / name, truth.transpose(2, 1, 0)))
    assert media.kind == "volume"
    assert np.array_equal(read_all(media), truth)
    assert media.spacing_mm == pytest.approx((0.2, 0.3))


def test_four_axes_count_the_slowest_last(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    four = np.stack([truth, 255 - truth])  # (time, slices, rows, columns)
    media = decode(write_nifti(tmp_path / "v.nii.gz", four.transpose(3, 2, 1, 0)))
    assert np.array_equal(read_all(media), four.reshape(-1, ROWS, COLUMNS))


def test_signed_and_float_volumes_are_mapped_by_the_range_of_all_slices(tmp_path: Path) -> None:
    values = np.linspace(-1000, 3000, SLICES * ROWS * COLUMNS).reshape(SLICES, ROWS, COLUMNS)
    for kind in (np.int16, np.float32):
        media = decode(write_nifti(tmp_path / "v.nii.gz", values.astype(kind).transpose(2, 1, 0)))
        pixels = read_all(media)
        assert pixels.min() == 0 and pixels.max() == 255
        assert np.all(np.diff(pixels.ravel().astype(int)) >= 0), "the map keeps the order of samples"
        assert media.notes[-1].startswith(f"{np.dtype(kind).name} -1000..3000")


def test_gaps_become_black_and_nothing_but_gaps_is_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    values[0, 0, 0], values[1, 2, 3] = np.nan, np.inf
    pixels = read_all(decode(write_mha(tmp_path / "v.mha", values)))
    assert pixels[0, 0, 0] == 0 and pixels[1, 2, 3] == 0 and pixels.max() == 255
    with pytest.raises(DecodeError, match="no finite sample"):
        decode(write_mha(tmp_path / "v.mha", np.full((2, 3, 4), np.nan, np.float32)))


def test_whole_numbers_up_to_255_keep_their_values_in_any_type(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    for kind in (np.int16, np.float32):
        assert np.array_equal(read_all(decode(write_mha(tmp_path / "v.mha", truth.astype(kind)))), truth)


def test_complex_volumes_are_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "v.nii", np.zeros((4, 3, 2), np.complex64))
    with pytest.raises(UnsupportedFormat):
        decode(path)


@pytest.mark.parametrize("packed", [False, True])
def test_metaimage_and_nrrd_agree_with_what_was_written(tmp_path: Path, truth: NDArray[np.uint8], packed: bool) -> None:
    nrrd = pytest.importorskip("nrrd")
    nrrd.write(str(tmp_path / "v.nrrd"), truth, {"encoding": "gzip" if packed else "raw"}, index_order="C")
    assert np.array_equal(read_all(decode(tmp_path / "v.nrrd")), truth)
    data = gzip.compress(truth.tobytes()) if packed else None
    extra = "CompressedData = True\n" if packed else ""
    media = decode(write_mha(tmp_path / "v.mha", truth, data, extra + "ElementSpacing = 0.1 0.4 2\n"))
    assert np.array_equal(read_all(media), truth)
    assert media.spacing_mm == pytest.approx((0.4, 0.1))


def test_a_spacing_of_exactly_one_is_a_default_and_not_believed(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    assert decode(write_mha(tmp_path / "v.mha", truth, extra="ElementSpacing = 1 1 1\n")).spacing_mm is None


def test_npy_and_matlab_and_hdf5_agree(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    scipy_io, h5py = pytest.importorskip("scipy.io"), pytest.importorskip("h5py")
    np.save(tmp_path / "c.npy", truth)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(truth.transpose(1, 2, 0)))
    scipy_io.savemat(tmp_path / "v.mat", {"a": truth.transpose(1, 2, 0), "note": "x"}, do_compression=True)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("deep/images", data=truth, compression="gzip")
        file.create_dataset("few", data=np.zeros((2, 2)))
    for path in sorted(tmp_path.iterdir()):
        media = decode(path)
        assert np.array_equal(read_all(media), truth), path.name
        assert [index for index, _ in media.read([1, 3])] == [1, 3]


def test_matlab_colour_pictures_keep_their_colour(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    scipy_io.savemat(tmp_path / "v.mat", {"a": picture})
    assert np.array_equal(read_all(decode(tmp_path / "v.mat"))[0], picture)
    np.save(tmp_path / "v.npy", picture)
    assert np.array_equal(read_all(decode(tmp_path / "v.npy"))[0], picture)


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_numbers_of_every_kind_are_read(tmp_path: Path, truth: NDArray[np.uint8], packed: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    volume = truth.transpose(1, 2, 0)
    for kind in (np.float64, np.int16, np.uint16, np.float32):
        content = {"b": volume.astype(kind), "a": np.zeros((2, 2)), "s": {"x": 1}, "c": np.ones((30, 30)) * 1j}
        scipy_io.savemat(tmp_path / "v.mat", content, do_compression=packed)
        assert np.array_equal(read_all(decode(tmp_path / "v.mat")), truth)
    scipy_io.savemat(tmp_path / "v.mat", {"m": volume > 128}, do_compression=packed)
    assert np.array_equal(read_all(decode(tmp_path / "v.mat")), (truth > 128) * np.uint8(255))
    clip = np.random.default_rng(0).integers(0, 256, (7, 8, 3, 5), np.uint8)
    scipy_io.savemat(tmp_path / "v.mat", {"clip": clip}, do_compression=packed)
    media = decode(tmp_path / "v.mat")
    assert np.array_equal(read_all(media), clip.transpose(3, 0, 1, 2))
    assert np.array_equal(next(media.read([3]))[1], clip[..., 3])


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"image": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedFormat, match="pickled"):
        decode(tmp_path / "v.npy")


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'openus\[volumes\]'"):
        decode(tmp_path / "v.h5")


@pytest.mark.parametrize("where", ["/etc/passwd", "../out.raw", "LIST", "a%03d.raw", "..", "link.raw", "file:x"])
def test_headers_that_point_elsewhere_are_refused(tmp_path: Path, truth: NDArray[np.uint8], where: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "out.raw").write_bytes(truth.tobytes())
    (inside / "link.raw").symlink_to(tmp_path / "out.raw")
    with pytest.raises(DecodeError, match="points to"):
        decode(write_mha(inside / "v.mhd", truth, where=where))
    head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 9 6 4\nencoding: raw\ndata file: {where}\n\n"
    (inside / "v.nhdr").write_text(head)
    with pytest.raises(DecodeError, match="points to"):
        decode(inside / "v.nhdr")


def test_data_beside_the_header_is_read(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    (tmp_path / "v.raw").write_bytes(truth.tobytes())
    assert np.array_equal(read_all(decode(write_mha(tmp_path / "v.mhd", truth, where="v.raw"))), truth)


def test_hdf5_links_to_other_files_are_not_followed(tmp_path: Path, truth: NDArray[np.uint8]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = truth
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "secret")
    with pytest.raises(UnsupportedFormat):
        decode(tmp_path / "v.h5")
    (tmp_path / "raw").write_bytes(truth.tobytes())
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("a", truth.shape, "u1", external=[(str(tmp_path / "raw"), 0, truth.nbytes)])
    with pytest.raises(DecodeError, match="other files"):
        decode(tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mha", "packed.mha", "v.nrrd", "v.npy", "v.mat", "v.h5"])
def test_truncated_volumes_are_refused(tmp_path: Path, name: str) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (4, 40, 50), np.uint8)
    path = tmp_path / name
    if ".nii" in name:
        write_nifti(path, truth.transpose(2, 1, 0))
    elif name == "v.mha":
        write_mha(path, truth)
    elif name == "packed.mha":
        write_mha(path, truth, gzip.compress(truth.tobytes()), "CompressedData = True\n")
    elif name == "v.nrrd":
        pytest.importorskip("nrrd").write(str(path), truth, index_order="C")
    elif name == "v.npy":
        np.save(path, truth)
    elif name == "v.mat":
        pytest.importorskip("scipy.io").savemat(path, {"a": truth.transpose(1, 2, 0)})
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["a"] = truth
    whole = path.read_bytes()
    assert decode(path).frame_count == 4
    for length in range(1, len(whole) - 4, 512):
        path.write_bytes(whole[:length])
        with pytest.raises(DecodeError):
            decode(path)


def test_lying_sizes_are_refused_before_anything_is_inflated(tmp_path: Path) -> None:
    small = np.zeros((2, 3, 4), np.uint8)
    lying = tmp_path / "v.mha"
    body = gzip.compress(bytes(1 << 16))
    head = "ObjectType = Image\nNDims = 3\nElementType = MET_UCHAR\nCompressedData = True\nElementDataFile = LOCAL\n"
    lying.write_bytes(head.replace("ElementType", "DimSize = 4000 4000 500\nElementType").encode() + body)
    with pytest.raises(DecodeError, match="cut short"):
        decode(lying)
    lying.write_bytes(head.replace("ElementType", "DimSize = 40000 40000 5\nElementType").encode() + body)
    with pytest.raises(DecodeLimit, match="frame_pixels"):
        decode(lying)
    with pytest.raises(DecodeLimit, match="limit frames"):
        decode(write_mha(tmp_path / "w.mha", small), limits=Limits(frames=1))


def test_real_volumes_are_read(realdata: Path) -> None:
    files = sorted([*(realdata / "dev").rglob("*.mha"), *(realdata / "dev").rglob("*.nrrd")])
    assert len(files) >= 6
    for path in files:
        media = decode(path)
        assert sum(1 for _ in media.read(None)) == media.frame_count
    clips = [decode(path).kind for path in files if "SegmentationTest" in path.name]
    assert set(clips) == {"clip"}, "a list of frames is a clip"
