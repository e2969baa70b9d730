"""Makes good files of every kind, and the broken and hostile ones that follow from them, for tests.

    for name, content in hostile_files(): ...

Everything is a few kilobytes; sizes that lie are only declared.
"""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import av
import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

SECRET = "SECRET^PATIENT"
US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
US_CLIP = "1.2.840.10008.5.1.4.1.1.3.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
Array = NDArray[Any]


def speckle(height: int = 96, width: int = 128, seed: int = 0, colour: bool = False) -> Array:
    """A picture with the texture of ultrasound, uint8 (H, W), or (H, W, 3) with a coloured patch."""
    noise = np.random.default_rng(seed).rayleigh(40, (height, width))
    grey: Array = cv2.GaussianBlur(noise.clip(0, 255).astype(np.uint8), (5, 5), 1)
    if not colour:
        return grey
    rgb = np.dstack([grey] * 3)
    rgb[10:40, 10:60] = (200, 30, 30)
    return rgb


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(array: Array, *, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A grey 8-bit PNG; `extra` chunks go before the pixels, `size` (width, height) lies about them."""
    height, width = array.shape
    header = struct.pack(">IIBBBBB", *(size or (width, height)), 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pil(array: Array | Image.Image, kind: str, **options: Any) -> bytes:
    """A file written by Pillow."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(array: Array, **options: Any) -> bytes:
    """A JPEG of quality 90."""
    return pil(array, "JPEG", quality=90, **options)


def dataset(array: Array, *, frames: int | None = None, **changes: Any) -> Dataset:
    """An ultrasound data set around pixels (H, W), (H, W, 3) or, with `frames`, (T, H, W[, 3])."""
    shape = array.shape[1:] if frames else array.shape
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = US_CLIP if frames else US_IMAGE
    made.SOPInstanceUID = generate_uid(prefix=None)
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = (
        made.SOPClassUID,
        made.SOPInstanceUID,
    )
    made.Modality, made.PatientName, made.PatientID = "US", SECRET, SECRET
    made.Rows, made.Columns = shape[:2]
    made.SamplesPerPixel = 3 if len(shape) == 3 else 1
    made.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = array.dtype.itemsize * 8
    made.BitsStored, made.HighBit = made.BitsAllocated, made.BitsAllocated - 1
    made.PixelRepresentation = int(array.dtype.kind == "i")
    if frames:
        made.NumberOfFrames = frames
    made.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def dicom(made: Dataset, *, syntax: str | None = None, **options: Any) -> bytes:
    """The bytes of a data set; `syntax` overrides what its meta header says."""
    if syntax:
        made.file_meta.TransferSyntaxUID = UID(syntax)
        if not syntax.startswith("1.2.840.10008."):
            options = {"implicit_vr": False, "little_endian": True}
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True, **options)
    return stream.getvalue()


def encapsulated(frames: list[bytes], like: Array, syntax: str, **changes: Any) -> bytes:
    """A compressed object of the given fragments."""
    many = len(frames) if len(frames) > 1 else None
    made = dataset(np.stack([like] * len(frames)) if many else like, frames=many, **changes)
    made.PixelData = encapsulate(frames)
    made["PixelData"].VR = "OB"
    return dicom(made, syntax=syntax)


def video(pictures: list[Array], kind: str = "mp4", codec: str = "libx264", **options: str) -> bytes:
    """A clip of equal-sized pictures."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=kind) as container:
        track: Any = container.add_stream(codec, rate=25)
        track.height, track.width = pictures[0].shape[:2]
        track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        track.options = options
        for picture in pictures:
            layout = "gray" if picture.ndim == 2 else "rgb24"
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, layout)))
        container.mux(track.encode(None))
    return stream.getvalue()


def good_files() -> dict[str, bytes]:
    """One small good file of every kind that is read, by name."""
    grey, rgb = speckle(), speckle(colour=True)
    clip = [speckle(seed=seed) for seed in range(4)]
    j2k = cv2.imencode(".jp2", grey)[1].tobytes()
    j2k = j2k[j2k.index(b"\xff\x4f\xff\x51") :]
    npy = io.BytesIO()
    np.save(npy, np.stack(clip))
    mha = b"ObjectType = Image\nNDims = 3\nDimSize = 128 96 4\nElementType = MET_UCHAR\n"
    nrrd = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 128 96 4\nencoding: gzip\n\n"
    samples = np.stack(clip).tobytes()
    jpegs = [jpeg(picture) for picture in clip]
    rle = dataset(rgb)
    rle.compress(pydicom.uid.RLELossless)
    return {
        "grey.png": png(grey),
        "colour.png": pil(rgb, "PNG"),
        "palette.png": pil(Image.fromarray(rgb).quantize(32), "PNG"),
        "grey.jpg": jpeg(grey),
        "progressive.jpg": jpeg(rgb, progressive=True),
        "grey.bmp": pil(grey, "BMP"),
        "lzw.tif": pil(rgb, "TIFF", compression="tiff_lzw"),
        "plain.tif": pil(grey, "TIFF"),
        "deflated.tif": pil(grey, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": pil(grey, "TIFF", compression="packbits"),
        "colour.webp": pil(rgb, "WEBP", lossless=True),
        "plain.dcm": dicom(dataset(rgb)),
        "clip.dcm": dicom(dataset(np.stack(clip), frames=4)),
        "jpeg_clip.dcm": encapsulated(jpegs, grey, JPEG_BASELINE),
        "j2k.dcm": encapsulated([j2k], grey, "1.2.840.10008.1.2.4.90"),
        "rle.dcm": dicom(rle),
        "deflated.dcm": dicom(dataset(grey), syntax="1.2.840.10008.1.2.1.99"),
        "clip.mp4": video(clip),
        "clip.avi": video(clip, "avi", "mjpeg"),
        "clip.mkv": video(clip, "matroska"),
        "v.nii": nifti((128, 96, 4), samples),
        "v.nii.gz": gzip.compress(nifti((128, 96, 4), samples)),
        "v.mha": mha + b"ElementDataFile = LOCAL\n" + samples,
        "packed.mha": mha + b"CompressedData = True\nElementDataFile = LOCAL\n" + zlib.compress(samples),
        "v.nrrd": nrrd + gzip.compress(samples),
        "v.npy": npy.getvalue(),
        "v.mat": matlab(np.stack(clip).transpose(1, 2, 0)),
        "packed.mat": matlab(np.stack(clip).transpose(1, 2, 0), packed=True),
    }


def matlab(array: Array, *, packed: bool = False) -> bytes:
    """A MATLAB file (level 5) of one uint8 array."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    axes = struct.pack(f"<{array.ndim}i", *array.shape)
    body = element(6, struct.pack("<II", 9, 0)) + element(5, axes) + element(1, b"picture")
    matrix = element(14, body + element(2, array.tobytes(order="F")))
    squeezed = zlib.compress(matrix)
    content = struct.pack("<II", 15, len(squeezed)) + squeezed if packed else matrix
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM" + content


def nifti(axes: tuple[int, ...], samples: bytes, datatype: int = 2) -> bytes:
    """A NIfTI-1 file with a description that must not pass."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(axes), *axes, *([1] * (7 - len(axes))))
    struct.pack_into("<hh", head, 70, datatype, 8)
    struct.pack_into("<8f", head, 76, *([1.0] * 8))
    struct.pack_into("<3f", head, 108, 352.0, 0.0, 0.0)
    head[148 : 148 + len(SECRET)] = SECRET.encode()
    head[344:348] = b"n+1\0"
    return bytes(head) + samples


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """Files that must be refused: (name, bytes)."""
    grey = speckle()
    yield "empty.png", b""
    yield "zeros.dcm", bytes(4096)
    yield "text.dcm", b"Dear colleague, the patient SECRET^PATIENT was seen today.\n" * 20
    yield "page.jpg", b"<!DOCTYPE html><html><body>please log in</body></html>"
    yield from _hostile_rasters(grey)
    yield from _hostile_dicom(grey)
    yield from _hostile_videos()
    yield from _hostile_arrays()


def _hostile_rasters(grey: Array) -> Iterator[tuple[str, bytes]]:
    yield "bomb.png", png(grey, size=(60000, 60000))
    yield "wide.png", png(grey, size=(2**31 - 1, 2**31 - 1))
    yield "none.png", png(grey, size=(0, 0))
    yield "short.png", png(grey, size=(128, 4000))
    bad = bytearray(png(grey))
    bad[-20] ^= 1
    yield "crc.png", bytes(bad)
    whole = jpeg(speckle(colour=True))
    size = whole.index(b"\xff\xc0") + 5
    yield "bomb.jpg", whole[:size] + struct.pack(">HH", 65000, 65000) + whole[size + 4 :]
    yield "tall.jpg", whole[:size] + struct.pack(">HH", 5000, 128) + whole[size + 4 :]
    middle = len(whole) // 2
    yield "corrupt_scan.jpg", whole[:middle] + bytes(range(200)) + whole[middle + 200 :]
    yield "no_end.jpg", whole[:-2]
    yield "no_scan.jpg", whole[: whole.index(b"\xff\xda")]
    steps = jpeg(speckle(colour=True), progressive=True)
    yield "many_scans.jpg", steps[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 500 + b"\xff\xd9"
    bmp = bytearray(pil(grey, "BMP"))
    struct.pack_into("<ii", bmp, 18, 60000, 60000)
    yield "bomb.bmp", bytes(bmp)
    tif = pil(grey, "TIFF")
    yield "bomb.tif", with_tags(tif, {256: 60000, 257: 60000})
    yield "no_page.tif", tif[:4] + struct.pack("<I", len(tif) + 10) + tif[8:]
    yield "big.tif", b"II+\0\x08\0\0\0" + bytes(64)
    yield from _hostile_tiffs(grey)
    for name, at, value in (("lowest.bmp", 22, -(2**31)), ("colours.bmp", 46, 2**31 - 1), ("packing.bmp", 30, 99)):
        bmp = bytearray(pil(grey, "BMP"))
        struct.pack_into("<i", bmp, at, value)
        yield name, bytes(bmp)


def _hostile_tiffs(grey: Array) -> Iterator[tuple[str, bytes]]:
    """Damaged strips, for which OpenCV gives a picture all the same; and tags that lie."""
    for name in ("tiff_lzw", "tiff_adobe_deflate"):
        whole = bytearray(pil(grey, "TIFF", compression=name))
        middle = len(whole) // 2
        whole[middle : middle + 64] = bytes(range(7, 71))
        yield f"damaged_{name}.tif", bytes(whole)
    packed, plain, bomb = (
        pil(grey, "TIFF", compression="tiff_adobe_deflate"),
        pil(grey, "TIFF"),
        zlib.compress(bytes(100 << 20), 9),
    )
    yield "strip_bomb.tif", with_tags(packed, {273: len(packed), 279: len(bomb)}) + bomb
    yield "short_strip.tif", with_tags(plain, {279: 100})
    yield "jpeg.tif", pil(grey, "TIFF", compression="jpeg")


def with_tags(tif: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF whose first page has other values for tags of one number."""
    changed = bytearray(tif)
    place = struct.unpack_from("<I", tif, 4)[0]
    for at in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", tif, place)[0], 12):
        tag = struct.unpack_from("<H", tif, at)[0]
        if tag in values:
            struct.pack_into("<HII", changed, at + 2, 4, 1, values[tag])
    return bytes(changed)


def _hostile_dicom(grey: Array) -> Iterator[tuple[str, bytes]]:
    stack = np.stack([grey] * 3)
    yield "alloc_bomb.dcm", dicom(dataset(grey, Rows=65535, Columns=65535, NumberOfFrames=100000))
    yield "frames_lie.dcm", dicom(dataset(stack, frames=3, NumberOfFrames=30))
    yield "frames_lie_jpeg.dcm", encapsulated([jpeg(grey)] * 3, grey, JPEG_BASELINE, NumberOfFrames=30)
    for keyword in ("PixelData", "Rows"):
        made = dataset(grey)
        delattr(made, keyword)
        yield f"no_{keyword.lower()}.dcm", dicom(made)
    yield "no_codec.dcm", encapsulated([b"\xff\xd8abcd"], grey, "1.2.3.4.5")
    yield "not_a_jpeg.dcm", encapsulated([b"not a jpeg at all"], grey, JPEG_BASELINE)
    yield "size_lie.dcm", encapsulated([jpeg(speckle(40, 40))], grey, JPEG_BASELINE)
    yield "bits_lie.dcm", dicom(dataset(grey, BitsStored=12))
    yield "high_bit.dcm", dicom(dataset(grey, HighBit=3))
    yield "planar.dcm", dicom(dataset(speckle(colour=True), PlanarConfiguration=9))
    for name, colours in (("words", SECRET), ("argb", "ARGB"), ("wavelet", "YBR_ICT")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield f"colours_{name}.dcm", dicom(dataset(speckle(colour=True), PhotometricInterpretation=colours))
    yield "private_syntax.dcm", encapsulated([b"\xff\xd8abcd"], grey, "1.2.3.19610307.4711")
    capture = "1.2.840.10008.5.1.4.1.1.7"
    yield "capture.dcm", dicom(dataset(grey, SOPClassUID=capture, Modality="SECRETX"))
    for name, uid in (("sr", "1.2.840.10008.5.1.4.1.1.88.11"), ("ct", "1.2.840.10008.5.1.4.1.1.2")):
        made = dataset(grey, SOPClassUID=uid, Modality=name.upper())
        yield f"{name}.dcm", dicom(made)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    meta = dicom(dataset(grey), syntax="1.2.840.10008.1.2.1.99")[:400]
    start = 132 + 12 + struct.unpack_from("<I", meta, 140)[0]
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated as it is
    yield "deflate_bomb.dcm", meta[:start] + megabyte * 700 + packer.flush()
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20000
    whole = dicom(dataset(grey))
    head = whole[: whole.index(b"\x08\x00\x18\x00UI")]  # up to an element's border, however long the UIDs are
    yield "sq_depth_bomb.dcm", head + nest
    yield "huge_element.dcm", head + b"\x10\x00\x10\x10UN\0\0\xf0\xff\xff\xff"


def _hostile_videos() -> Iterator[tuple[str, bytes]]:
    yield "playlist.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    yield "concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield "no_index.mp4", struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + struct.pack(">I4s", 8, b"mdat")
    whole = video([speckle(seed=seed) for seed in range(4)])
    yield "no_frames.mp4", _without_frames(whole)
    for name, table in (("sizes.mp4", b"stsz"), ("times.mp4", b"stts")):
        at = whole.index(table) + (12 if table == b"stsz" else 8)
        yield name, whole[:at] + b"\x7f\xff\xff\xff" + whole[at + 4 :]
    avi = bytearray(video([speckle()] * 3, "avi", "mjpeg"))
    yield "cut.avi", bytes(avi[: len(avi) * 2 // 3])
    yield "head.mkv", video([speckle()] * 2, "matroska")[:60]


def _without_frames(mp4: bytes) -> bytes:
    """The same MP4 with a sample table of no samples."""
    changed = bytearray(mp4)
    for table, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8)):
        struct.pack_into(">I", changed, mp4.index(table) + at, 0)
    return bytes(changed)


def _hostile_arrays() -> Iterator[tuple[str, bytes]]:
    yield "dims_lie.nii", nifti((30000, 30000, 30000), bytes(1000))
    yield "dims_lie.nii.gz", gzip.compress(nifti((2000, 2000, 2000), bytes(1000)))
    yield "negative.nii", nifti((-5, 10, 10), bytes(1000))
    yield "nan.nii", nifti((4, 4, 4), np.full(64, np.nan, np.float32).tobytes(), 16)
    yield "complex.nii", nifti((4, 4, 4), bytes(512), 32)
    mha = "ObjectType = Image\nNDims = 3\nDimSize = 128 96 4\nElementType = MET_UCHAR\nElementDataFile = "
    yield "points_elsewhere.mhd", (mha + "/etc/passwd\n").encode()
    yield "list.mhd", (mha + "LIST\na.raw\n").encode()
    yield "points_elsewhere.nhdr", b"NRRD0004\ntype: uchar\nsizes: 4 4\nencoding: raw\ndata file: ../../etc/passwd\n\n"
    yield (
        "object.npy",
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }".ljust(70),
    )
    yield (
        "huge.npy",
        b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|u1', 'fortran_order': 0, 'shape': (3, 9999999999), }".ljust(70),
    )
    yield "broken.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM" + bytes(range(256))
    yield "broken.h5", b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4
