"""DICOM: every transfer syntax gives the same pixels, and the header gives regions, spacing and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import hostile
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from openus_data.decode import decode
from openus_data.errors import DecodeError, NotUltrasound, UnsupportedFormat
from openus_data.records import Media

RGB, GREY = hostile.speckle(colour=True), hostile.speckle()
STACK = np.stack([hostile.speckle(seed=seed) for seed in range(3)])
IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def load(folder: Path, content: bytes, **options: Any) -> Media:
    path = folder / "object"
    path.write_bytes(content)
    return decode(path, **options)


def frames(media: Media) -> list[NDArray[np.uint8]]:
    return [pixels for _, pixels in media.read(None)]


@pytest.mark.parametrize("syntax", [None, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("picture", [GREY, RGB, STACK], ids=["grey", "rgb", "clip"])
def test_uncompressed_syntaxes_give_the_stored_pixels(
    tmp_path: Path, syntax: str | None, picture: NDArray[np.uint8]
) -> None:
    many = 3 if picture is STACK else None
    media = load(tmp_path, hostile.dicom(hostile.dataset(picture, frames=many), syntax=syntax))
    assert media.kind == ("clip" if many else "still")
    for index, pixels in enumerate(frames(media)):
        assert np.array_equal(pixels, picture[index] if many else picture)


def test_planar_and_ybr_pixels_become_rgb(tmp_path: Path) -> None:
    planar = hostile.dataset(RGB, PlanarConfiguration=1)
    planar.PixelData = RGB.transpose(2, 0, 1).tobytes()
    assert np.array_equal(frames(load(tmp_path, hostile.dicom(planar)))[0], RGB)
    ybr = cv2.cvtColor(RGB, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    full = hostile.dataset(np.ascontiguousarray(ybr), PhotometricInterpretation="YBR_FULL")
    assert np.abs(frames(load(tmp_path, hostile.dicom(full)))[0].astype(int) - RGB).max() <= 2
    flat = np.dstack([GREY, np.full_like(GREY, 128), np.full_like(GREY, 128)])
    grey = hostile.dataset(flat, PhotometricInterpretation="YBR_FULL")
    assert np.array_equal(frames(load(tmp_path, hostile.dicom(grey)))[0], GREY)


def test_monochrome1_is_inverted_and_said(tmp_path: Path) -> None:
    media = load(tmp_path, hostile.dicom(hostile.dataset(GREY, PhotometricInterpretation="MONOCHROME1")))
    assert np.array_equal(frames(media)[0], 255 - GREY) and media.notes == ("monochrome1",)


def test_rle_lossless_and_jpeg_2000_equal_the_uncompressed_pixels(tmp_path: Path) -> None:
    for picture in (GREY, RGB, (GREY.astype(np.uint16) * 100)):
        made = hostile.dataset(picture)
        plain = frames(load(tmp_path, hostile.dicom(made)))[0]
        made.compress(RLELossless)
        assert np.array_equal(frames(load(tmp_path, hostile.dicom(made)))[0], plain)
    for picture in (GREY, RGB):
        stored = picture if picture.ndim == 2 else np.ascontiguousarray(picture[..., ::-1])
        stream = cv2.imencode(".jp2", stored, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
        stream = stream[stream.index(b"\xff\x4f\xff\x51") :]
        content = hostile.encapsulated([stream], picture, "1.2.840.10008.1.2.4.90")
        assert np.abs(frames(load(tmp_path, content))[0].astype(int) - picture).max() <= 1


@pytest.mark.parametrize(
    "name", ["JPEGLSNearLossless_08.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_2frame.dcm"]
)
def test_samples_of_other_codecs_equal_the_reference(name: str) -> None:
    path = str(get_testdata_file(name))
    pylibjpeg = pytest.importorskip("libjpeg", reason="the reference decoder is not installed")
    assert pylibjpeg
    dataset = pydicom.dcmread(path)
    truth = dataset.pixel_array
    truth = truth[0] if dataset.get("NumberOfFrames", 1) > 1 else truth
    try:
        shown = frames(decode(Path(path)))[0]
    except NotUltrasound:
        pytest.skip("a secondary capture of another modality")
    whole = shown if shown.ndim == np.ndim(truth) else np.dstack([shown] * 3)
    assert np.array_equal(whole, np.asarray(truth))


def test_a_variant_without_a_decoder_is_unsupported_and_not_damaged() -> None:
    with pytest.raises(UnsupportedFormat, match="JPEG-LS of a kind"):
        decode(Path(str(get_testdata_file("SC_rgb_jls_lossy_sample.dcm"))))


def test_jpeg_frames_equal_a_jpeg_file_of_the_same_bytes(tmp_path: Path) -> None:
    streams = [hostile.jpeg(picture) for picture in STACK]
    media = load(tmp_path, hostile.encapsulated(streams, GREY, hostile.JPEG_BASELINE))
    for stream, pixels in zip(streams, frames(media), strict=True):
        truth: Any = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(pixels, truth)
    assert [index for index, _ in media.read([0, 2])] == [0, 2]


def test_frames_split_over_fragments_are_joined(tmp_path: Path) -> None:
    streams = [hostile.jpeg(picture) + b"\0" * (len(hostile.jpeg(picture)) % 2) for picture in STACK]
    pieces = [part for stream in streams for part in (stream[:500], stream[500:])]
    content = hostile.encapsulated(pieces, GREY, hostile.JPEG_BASELINE, NumberOfFrames=3)
    whole = frames(load(tmp_path, hostile.encapsulated(streams, GREY, hostile.JPEG_BASELINE)))
    for one, other in zip(frames(load(tmp_path, content)), whole, strict=True):
        assert np.array_equal(one, other)


def test_video_inside_dicom_is_read(tmp_path: Path) -> None:
    stream = hostile.video(list(STACK), "h264", bf="0")
    content = hostile.encapsulated([stream], GREY, "1.2.840.10008.1.2.4.102", NumberOfFrames=3)
    media = load(tmp_path, content)
    assert media.frame_count == 3 and len(frames(media)) == 3
    assert np.abs(frames(media)[1].astype(int) - STACK[1]).mean() < 8
    lying = hostile.encapsulated([stream], GREY, "1.2.840.10008.1.2.4.102", NumberOfFrames=9)
    with pytest.raises(DecodeError, match="fewer frames"):
        load(tmp_path, lying)


def test_twelve_bits_use_the_window_or_the_range_and_drop_higher_bits(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 16
    hidden = deep | 0x8000  # an overlay in the highest bit
    made = hostile.dataset(hidden, BitsStored=12, HighBit=11)
    media = load(tmp_path, hostile.dicom(made))
    assert media.notes == (f"uint16 {deep.min()}..{deep.max()} to 0..255",)
    assert frames(media)[0].std() > 5 and frames(media)[0].max() == 255
    made.WindowCenter, made.WindowWidth = 1000, 400
    windowed = load(tmp_path, hostile.dicom(made))
    assert windowed.notes == ("window 1000 400",)
    pixels = frames(windowed)[0]
    assert np.all(pixels[deep <= 800] == 0) and np.all(pixels[deep >= 1200] == 255)


def test_files_without_preamble_or_meta_header_are_read(tmp_path: Path) -> None:
    whole = hostile.dicom(hostile.dataset(GREY))
    assert np.array_equal(frames(load(tmp_path, whole[132:]))[0], GREY)
    media = load(tmp_path, whole[144 + int.from_bytes(whole[140:144], "little") :])
    assert np.array_equal(frames(media)[0], GREY)
    assert media.notes == ("no preamble", "no meta header", "transfer syntax guessed")


def test_a_picture_file_in_the_preamble_does_not_hide_the_object(tmp_path: Path) -> None:
    whole = hostile.dicom(hostile.dataset(GREY))
    for magic in (b"II*\0", b"\xff\xd8\xff\xe0", b"BM"):
        assert np.array_equal(frames(load(tmp_path, magic.ljust(128, b"\0") + whole[128:]))[0], GREY)


def test_leftover_bytes_and_frames_are_dropped_and_said(tmp_path: Path) -> None:
    made = hostile.dataset(STACK, frames=3, NumberOfFrames=2)
    media = load(tmp_path, hostile.dicom(made))
    assert len(frames(media)) == 2 and media.notes == ("bytes after the last frame dropped",)
    streams = [hostile.jpeg(picture) for picture in STACK]
    media = load(tmp_path, hostile.encapsulated(streams, GREY, hostile.JPEG_BASELINE, NumberOfFrames=2))
    assert len(frames(media)) == 2 and media.notes == ("frames beyond the declared number dropped",)


def region(**changes: Any) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 10, 5
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 100, 90
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = 0.02, -0.03
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


def with_regions(folder: Path, *items: Dataset, **changes: Any) -> Media:
    return load(folder, hostile.dicom(hostile.dataset(GREY, SequenceOfUltrasoundRegions=list(items), **changes)))


def test_regions_are_half_open_and_spacing_is_in_mm(tmp_path: Path) -> None:
    media = with_regions(tmp_path, region())
    assert media.regions[0].box == (10, 5, 101, 91)
    assert media.spacing_mm == pytest.approx((0.3, 0.2)), "row, column; the sign is only a direction"


@pytest.mark.parametrize(
    "changes",
    [
        {"PhysicalDeltaX": 0.0},
        {"PhysicalDeltaY": math.nan},
        {"PhysicalUnitsXDirection": 4},
        {"PhysicalDeltaX": math.inf},
    ],
)
def test_spacing_that_makes_no_sense_is_null(tmp_path: Path, changes: dict[str, Any]) -> None:
    media = with_regions(tmp_path, region(**changes))
    assert media.spacing_mm is None and media.regions[0].spacing_mm is None


def test_regions_are_cut_at_the_frame_and_inverted_ones_dropped(tmp_path: Path) -> None:
    outside = region(RegionLocationMaxX1=5000, RegionLocationMaxY1=5000)
    inverted = region(RegionLocationMinX0=110)
    media = with_regions(tmp_path, outside, inverted)
    assert [item.box for item in media.regions] == [(10, 5, 128, 96)]


def test_two_regions_that_disagree_give_no_spacing(tmp_path: Path) -> None:
    assert with_regions(tmp_path, region(), region(PhysicalDeltaX=0.05)).spacing_mm is None
    spectral = region(RegionSpatialFormat=3, PhysicalUnitsXDirection=4)
    assert with_regions(tmp_path, region(), spectral).spacing_mm is not None, "only 2D regions count"


def test_pixel_spacing_stands_in_where_there_are_no_regions(tmp_path: Path) -> None:
    media = load(tmp_path, hostile.dicom(hostile.dataset(GREY, PixelSpacing=[0.4, 0.5])))
    assert media.spacing_mm == (0.4, 0.5)


def test_facts_are_what_the_callers_allow_list_returns_and_identity_is_hidden(tmp_path: Path) -> None:
    def read_facts(dataset: Dataset) -> tuple[dict[str, str], str, str]:
        return {"device_model": "LOGIQ 700"}, str(dataset.PatientID), "study"

    content = hostile.dicom(hostile.dataset(GREY))
    media = load(tmp_path, content, read_facts=read_facts)
    assert media.facts == {"device_model": "LOGIQ 700"} and media.subject == hostile.SECRET
    assert hostile.SECRET not in repr(media) and str(tmp_path) not in repr(media)
    assert load(tmp_path, content).subject is None, "without an allow-list nothing passes"


def test_secondary_captures_pass_by_modality_and_unknown_syntaxes_by_uid(tmp_path: Path) -> None:
    capture: dict[str, Any] = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    assert load(tmp_path, hostile.dicom(hostile.dataset(GREY, **capture))).frame_count == 1
    with pytest.raises(NotUltrasound, match="modality MR"):
        load(tmp_path, hostile.dicom(hostile.dataset(GREY, **capture, Modality="MR")))
    with pytest.raises(UnsupportedFormat, match=r"1\.2\.840\.10008\.1\.2\.4\.94"):
        load(tmp_path, hostile.encapsulated([b"abcd"], GREY, "1.2.840.10008.1.2.4.94"))


def test_a_clip_is_read_in_flat_memory_and_again_from_the_start(tmp_path: Path) -> None:
    media = load(tmp_path, hostile.dicom(hostile.dataset(STACK, frames=3)))
    first, second = media.read(None), media.read([2])
    assert np.array_equal(next(first)[1], STACK[0])
    assert np.array_equal(next(second)[1], STACK[2])
    assert np.array_equal(next(first)[1], STACK[1])


def test_a_file_that_changes_between_two_reads_is_refused(tmp_path: Path) -> None:
    media = load(tmp_path, hostile.dicom(hostile.dataset(STACK, frames=3)))
    (tmp_path / "object").write_bytes(b"something else")
    with pytest.raises(DecodeError, match="changed"):
        list(media.read([1]))
