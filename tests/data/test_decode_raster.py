"""One stated mapping from every kind of picture to uint8, grey or RGB."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import cv2
import hostile
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from openus_data.decode import decode, grey, jpeg
from openus_data.decode.limits import Limits
from openus_data.errors import DecodeError, DecodeLimit

RGB = hostile.speckle(colour=True)
GREY = hostile.speckle()


def read(folder: Path, content: bytes, name: str = "picture") -> NDArray[np.uint8]:
    path = folder / name
    path.write_bytes(content)
    media = decode(path)
    ((_, pixels),) = media.read(None)
    return pixels


def notes(folder: Path, content: bytes) -> tuple[str, ...]:
    (folder / "picture").write_bytes(content)
    return decode(folder / "picture").notes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_pictures_come_back_exactly(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read(tmp_path, hostile.pil(RGB, kind, **options)), RGB)
    assert np.array_equal(read(tmp_path, hostile.pil(GREY, kind, **options)), GREY), "one channel for a grey picture"


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiff_compressions_are_read(tmp_path: Path, compression: str) -> None:
    assert np.array_equal(read(tmp_path, hostile.pil(RGB, "TIFF", compression=compression)), RGB)


@pytest.mark.parametrize("packing", [5, 32773])
@pytest.mark.parametrize("shape", [(1, 1), (12, 20), (600, 800), (64, 64, 3)])
def test_packed_tiffs_of_opencv_are_read(tmp_path: Path, packing: int, shape: tuple[int, ...]) -> None:
    picture = np.resize(hostile.speckle(64, 64), shape)
    _, data = cv2.imencode(".tif", picture, [cv2.IMWRITE_TIFF_COMPRESSION, packing])
    wanted = picture[..., ::-1] if picture.ndim == 3 else picture
    found = read(tmp_path, data.tobytes())
    assert np.array_equal(found, wanted if found.ndim == wanted.ndim else wanted[..., 0])


def test_grey_stored_as_rgb_gets_one_channel(tmp_path: Path) -> None:
    assert np.array_equal(read(tmp_path, hostile.pil(np.dstack([GREY] * 3), "PNG")), GREY)
    as_jpeg = read(tmp_path, hostile.jpeg(np.dstack([GREY] * 3)))
    assert as_jpeg.ndim == 2 and np.abs(as_jpeg.astype(int) - GREY).mean() < 3


def test_colour_is_kept_where_a_patch_of_it_is(tmp_path: Path) -> None:
    picture = np.dstack([hostile.speckle(600, 800)] * 3)
    picture[100:110, 200:210] = (0, 200, 60)  # a coloured mark of a hundred pixels
    for content in (hostile.pil(picture, "PNG"), hostile.jpeg(picture)):
        assert read(tmp_path, content).ndim == 3
    few = np.dstack([hostile.speckle(600, 800)] * 3)
    few[0, :20] = (0, 200, 60)
    assert read(tmp_path, hostile.pil(few, "PNG")).ndim == 2, "twenty pixels are not colour"


@pytest.mark.parametrize("colour", [False, True])
def test_jpegs_equal_the_reference_reader_up_to_rounding(tmp_path: Path, colour: bool) -> None:
    content = hostile.jpeg(RGB if colour else GREY)
    (tmp_path / "reference.jpg").write_bytes(content)
    truth = np.asarray(Image.open(tmp_path / "reference.jpg"))
    assert np.abs(read(tmp_path, content).astype(int) - truth).max() <= 2


def test_palettes_one_bit_and_cmyk_are_expanded(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(32)
    one_bit = Image.fromarray(GREY).convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(read(tmp_path, hostile.pil(palette, kind)), np.asarray(palette.convert("RGB")))
        assert np.array_equal(read(tmp_path, hostile.pil(one_bit, kind)), np.asarray(one_bit.convert("L")))
    inks = Image.fromarray(RGB).convert("CMYK")
    for content in (hostile.pil(inks, "JPEG", quality=95), hostile.pil(inks, "TIFF")):
        assert np.abs(read(tmp_path, content).astype(int) - RGB).mean() < 4


def test_alpha_is_laid_over_black_and_said(tmp_path: Path) -> None:
    see_through = Image.fromarray(np.dstack([RGB, np.full(GREY.shape, 128, np.uint8)]))
    content = hostile.pil(see_through, "PNG")
    assert np.abs(read(tmp_path, content).astype(int) - RGB * (128 / 255)).max() <= 0.51
    assert notes(tmp_path, content) == ("alpha over black",)
    opaque = Image.fromarray(np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)]))
    assert np.array_equal(read(tmp_path, hostile.pil(opaque, "PNG")), RGB)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_use_the_whole_range_and_say_so(tmp_path: Path, kind: str) -> None:
    deep = (GREY.astype(np.uint16) * 12) + 300
    content = hostile.pil(Image.fromarray(deep), kind)
    pixels = read(tmp_path, content)
    assert (pixels.min(), pixels.max()) == (0, 255) and pixels.std() > 5
    assert np.all(np.diff(pixels.ravel()[np.argsort(deep, axis=None)].astype(int)) >= 0)
    assert notes(tmp_path, content) == (f"uint16 {deep.min()}..{deep.max()} to 0..255",)


def test_floats_use_the_whole_range_and_gaps_become_black(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 50), np.float32)
    pixels = read(tmp_path, hostile.pil(Image.fromarray(values), "TIFF"))
    assert pixels.std() > 50 and pixels.max() == 255
    values[3, 4] = np.nan
    assert read(tmp_path, hostile.pil(Image.fromarray(values), "TIFF"))[3, 4] == 0
    with pytest.raises(DecodeError, match="no finite sample"):
        read(tmp_path, hostile.pil(Image.fromarray(np.full((4, 5), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_as_the_reference_does(tmp_path: Path, kind: str, value: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = value
    options: dict[str, Any] = {"exif": tags} if kind != "TIFF" else {"tiffinfo": {274: value}}
    options |= {"lossless": True} if kind == "WEBP" else {}
    content = hostile.pil(GREY, kind, **options)
    reference = Image.fromarray(GREY)
    reference.getexif()[0x0112] = value
    truth = np.asarray(ImageOps.exif_transpose(reference))
    pixels = read(tmp_path, content)
    assert pixels.shape == truth.shape and np.abs(pixels.astype(int) - truth).mean() < 3
    assert any("orientation" in note for note in notes(tmp_path, content)) == (value != 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3)])
def test_tiny_pictures_are_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 250, 10
    for kind in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(read(tmp_path, hostile.pil(picture, kind)), picture)


def test_text_chunks_never_reach_a_decoder_and_bombs_in_them_are_not_inflated(tmp_path: Path) -> None:
    bomb = hostile.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 24)))
    assert np.array_equal(read(tmp_path, hostile.png(GREY, extra=bomb)), GREY)


def test_only_the_first_page_of_a_tiff_is_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY[:10, :10])]
    content = hostile.pil(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert np.array_equal(read(tmp_path, content), GREY)
    assert notes(tmp_path, content) == ("first page of several",)


def test_bytes_after_the_picture_change_nothing(tmp_path: Path) -> None:
    for content in (hostile.png(GREY), hostile.jpeg(GREY)):
        assert np.array_equal(read(tmp_path, content + b"SECRET" * 99), read(tmp_path, content))


def test_reading_twice_and_reading_nothing_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(hostile.png(GREY))
    media = decode(tmp_path / "a.png")
    assert list(media.read([])) == []
    assert np.array_equal(next(media.read(None))[1], next(media.read([0]))[1])
    for indices in ([1], [-1], [0, 0]):
        with pytest.raises(DecodeError, match="out of range"):
            list(media.read(indices))


def test_limits_are_the_callers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(hostile.png(GREY))
    with pytest.raises(DecodeLimit, match="at most 100 pixels"):
        decode(tmp_path / "a.png", limits=Limits(frame_pixels=100))


def test_flat_chroma_is_told_from_colour() -> None:
    flat = np.full((10, 10), 128, np.uint8)
    tinted = flat.copy()
    tinted[:5] = 180
    assert grey.chroma_is_flat(flat, flat) and not grey.chroma_is_flat(flat, tinted)


def test_a_jpeg_whose_stream_is_silent_about_colour_can_be_marked_rgb() -> None:
    content = hostile.jpeg(RGB)
    header = jpeg.read_header(content, limits=Limits())
    assert header.jfif and header.states_its_colours
    marked = jpeg.read_header(jpeg.as_rgb_stream(content), limits=Limits())
    assert marked.adobe == 0
