"""Lossless codecs are lossless, and what is passed through carries the picture and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from openus_data.errors import DecodeError
from openus_data.first_stage import encode, passthrough
from openus_data.records import Pixels

CANARY = b"DOE^JANE"


def picture(channels: int) -> Pixels:
    rng = np.random.default_rng(0)
    shape = (37, 53) if channels == 1 else (37, 53, 3)
    return cv2.GaussianBlur(rng.integers(0, 255, shape, dtype=np.uint8), (5, 5), 0)


@pytest.mark.parametrize("codec", ["png", "webp", "passthrough"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_codecs_give_the_pixels_back(codec: encode.Codec, channels: int) -> None:
    suffix, data = encode.encode(picture(channels), codec=codec)
    stored = encode.decode_stored(data)
    if suffix == "webp" and channels == 1:  # the format has no grey: three equal channels come back
        stored = stored[..., 0]
    assert np.array_equal(stored, picture(channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_keeps_the_channels(channels: int) -> None:
    suffix, data = encode.encode(picture(channels), codec="jpeg", quality=95)
    stored = encode.decode_stored(data)
    assert suffix == "jpg" and stored.shape == picture(channels).shape
    assert np.abs(stored.astype(int) - picture(channels)).mean() < 4


def test_what_is_no_image_raises() -> None:
    for data in (b"", b"nonsense", encode.encode_png(picture(1))[:60]):
        with pytest.raises(DecodeError):
            encode.decode_stored(data)


def jpeg_with_metadata() -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = CANARY.decode()
    Image.fromarray(picture(3)).save(
        buffer, "JPEG", exif=exif, comment=CANARY, icc_profile=CANARY * 20, quality=90, progressive=True
    )
    return buffer.getvalue() + CANARY


def png_with_metadata() -> bytes:
    buffer = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", CANARY.decode())
    info.add_itxt("XML:com.adobe.xmp", CANARY.decode(), zip=False)
    Image.fromarray(picture(1)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue() + CANARY


@pytest.mark.parametrize("source", [jpeg_with_metadata(), png_with_metadata()])
def test_stripping_keeps_the_picture_and_drops_the_rest(source: bytes) -> None:
    assert CANARY in source
    stripped = passthrough.strip_source(source)
    assert stripped is not None and CANARY not in stripped[1]
    assert np.array_equal(encode.decode_stored(stripped[1]), encode.decode_stored(source))


@pytest.mark.parametrize("source", [jpeg_with_metadata()[:-8], png_with_metadata()[:-8]])
def test_a_torn_file_is_not_passed_through(source: bytes) -> None:
    for cut in range(3, len(source), 97):
        assert passthrough.strip_source(source[:cut]) is None


def test_a_damaged_chunk_is_not_passed_through() -> None:
    data = bytearray(encode.encode_png(picture(1)))
    data[60] ^= 1
    assert passthrough.strip_source(bytes(data)) is None
    assert zlib.crc32(b"") == 0 and passthrough.strip_source(b"GIF89a") is None


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*, behind: bytes = b"", rows: bytes = b"", end: bytes = b"", before: bytes = b"") -> bytes:
    pixels = picture(3)
    head = struct.pack(">IIBBBBB", 53, 37, 8, 2, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels) + rows) + behind
    chunks = png_chunk(b"IHDR", head) + before + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", end)
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_with(marker: int, body: bytes) -> bytes:
    data = encode.encode(picture(1), codec="jpeg")[1]
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize(
    "source",
    [
        png_with(behind=CANARY),
        png_with(rows=CANARY * 30),
        png_with(end=CANARY),
        jpeg_with(0xDB, b"\3" + CANARY * 8),
        jpeg_with(0xC4, b"\x13" + b"\0\0\0\x08" + bytes(12) + CANARY),
        jpeg_with(0xDC, CANARY),
        jpeg_with(0xF0, CANARY),
        jpeg_with(0xEE, b"Adobe" + bytes(7) + CANARY),
    ],
)
def test_a_file_with_room_for_more_than_its_picture_is_not_passed_through(source: bytes) -> None:
    assert passthrough.strip_source(source) is None


def test_a_progressive_jpeg_is_passed_through_unless_a_table_of_it_is_unused() -> None:
    progressive = bytes(cv2.imencode(".jpg", picture(1), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    table = b"\x10\x01" + bytes(15) + b"D"  # of coefficients that the first scan does not read
    padded = progressive[:2] + b"\xff\xc4" + struct.pack(">H", len(table) + 2) + table + progressive[2:]
    assert passthrough.strip_source(progressive) is not None
    assert passthrough.strip_source(padded) is None


def test_a_palette_that_no_pixel_needs_is_dropped() -> None:
    source = png_with(before=png_chunk(b"PLTE", CANARY + b"x"))
    stripped = passthrough.strip_source(source)
    assert stripped is not None and CANARY not in stripped[1]
    assert np.array_equal(encode.decode_stored(stripped[1]), picture(3))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 2}])
@pytest.mark.parametrize("channels", [1, 3])
def test_ordinary_jpegs_are_passed_through(channels: int, options: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(channels)).save(buffer, "JPEG", **options)
    assert passthrough.strip_source(buffer.getvalue()) is not None
