"""More places where identity hides: inside compressed frames, unused bits, second pages, chunks of containers, names.

Planters like those of `planted_files`, for `tests/flow/test_canary.py`.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
from hostile import JPEG_BASELINE, dataset, dicom, jpeg, pil, png, png_chunk, video
from PIL import Image
from planted import Canaries, speckle
from planted_files import Planter
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

SIZE = (256, 320)


def _identified(canary: Canaries, where: str, pixels: np.ndarray, **changes: object) -> Dataset:
    made = dataset(pixels, **changes)
    made.PatientName, made.PatientID = canary(f"{where}, PatientName"), canary(f"{where}, PatientID")
    return made


def plant_frames(canary: Canaries, folder: Path) -> None:
    """Comments in JPEG and JPEG 2000 frames, a surplus fragment, bytes behind the last frame."""
    grey = speckle(*SIZE, seed=201)
    stream, word = jpeg(grey), canary("comment in a JPEG frame").encode()
    stream = stream[:2] + b"\xff\xfe" + struct.pack(">H", len(word) + 2) + word + stream[2:]
    made = _identified(canary, "JPEG frame", grey)
    made.PixelData = encapsulate(
        [stream + canary("behind a JPEG frame").encode(), canary("a surplus fragment").encode()]
    )
    made["PixelData"].VR = "OB"
    (folder / f"{canary('JPEG DICOM')}.dcm").write_bytes(dicom(made, syntax=JPEG_BASELINE))
    grey = speckle(*SIZE, seed=202)
    stream = cv2.imencode(".jp2", grey)[1].tobytes()
    stream = stream[stream.index(b"\xff\x4f\xff\x51") :]
    after_size = 4 + struct.unpack_from(">H", stream, 4)[0]
    word = canary("comment in a JPEG 2000 frame").encode()
    comment = b"\xff\x64" + struct.pack(">HH", len(word) + 4, 1) + word
    made = _identified(canary, "JPEG 2000 frame", grey)
    made.PixelData = encapsulate([stream[:after_size] + comment + stream[after_size:]])
    made["PixelData"].VR = "OB"
    (folder / f"{canary('JPEG 2000 DICOM')}.dcm").write_bytes(dicom(made, syntax="1.2.840.10008.1.2.4.90"))
    made = _identified(canary, "surplus bytes", grey := speckle(*SIZE, seed=203))
    made.PixelData = grey.tobytes() + canary("behind the last frame").encode()
    (folder / f"{canary('DICOM with surplus bytes')}.dcm").write_bytes(dicom(made))


def plant_bits(canary: Canaries, folder: Path) -> None:
    """Text in the unused bits of 16-bit samples, and in the low bytes of a palette."""
    grey = speckle(*SIZE, seed=204).astype(np.uint16)
    text = np.frombuffer((canary("high bits") * grey.size).encode()[: grey.size], np.uint8).reshape(grey.shape)
    made = _identified(canary, "high bits", grey | text.astype(np.uint16) << 8, BitsStored=8, HighBit=7)
    (folder / f"{canary('DICOM with high bits')}.dcm").write_bytes(dicom(made))
    made = _identified(canary, "palette", speckle(*SIZE, seed=205), PhotometricInterpretation="PALETTE COLOR")
    low = np.frombuffer((canary("low bytes of a palette") * 256).encode()[:256], np.uint8)
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", (np.arange(256, dtype="<u2") << 8 | low).tobytes())
    (folder / f"{canary('DICOM with a palette')}.dcm").write_bytes(dicom(made))


def plant_pages(canary: Canaries, folder: Path) -> None:
    """A second TIFF page of text, frames of an APNG, EXIF, XMP and profile of a WebP."""
    pixels = SIZE[0] * SIZE[1]
    text = np.frombuffer((canary("second TIFF page") * pixels).encode()[:pixels], np.uint8).reshape(SIZE)
    pages = [Image.fromarray(speckle(*SIZE, seed=206)), Image.fromarray(text.copy())]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    (folder / f"{canary('TIFF of pages')}.tif").write_bytes(buffer.getvalue())
    extra = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    extra += png_chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(canary("second APNG frame").encode()))
    (folder / f"{canary('APNG')}.png").write_bytes(png(speckle(*SIZE, seed=207), extra=extra))
    exif = Image.Exif()
    exif[0x013B] = canary("WebP, EXIF artist")
    about = {"exif": exif.tobytes(), "xmp": canary("WebP, XMP").encode(), "icc_profile": canary("WebP, ICC").encode()}
    picture = Image.fromarray(speckle(*SIZE, seed=208)).convert("RGB")
    (folder / f"{canary('WebP')}.webp").write_bytes(pil(picture, "WEBP", lossless=True, **about))


def plant_containers(canary: Canaries, folder: Path) -> None:
    """Tags of a Matroska, boxes behind an MP4's index, INFO and JUNK chunks of an AVI."""
    clip = [speckle(*SIZE, seed=210 + n) for n in range(3)]
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as container:
        for key in ("title", "artist", "DATE_TAGGED"):
            container.metadata[key] = canary(f"Matroska, {key}")
        track = container.add_stream("libx264", rate=10)
        track.height, track.width, track.pix_fmt = *SIZE, "yuv420p"
        track.metadata["title"] = canary("Matroska, title of the track")
        for picture in clip:
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, "gray")))
        container.mux(track.encode(None))
    (folder / f"{canary('Matroska')}.mkv").write_bytes(stream.getvalue())
    boxes = b""
    for kind in (b"udta", b"free", b"uuid"):
        word = canary(f"MP4, {kind.decode()} box").encode().ljust(24)
        boxes += struct.pack(">I4s", 8 + len(word), kind) + word
    clip = [speckle(*SIZE, seed=220 + n) for n in range(3)]
    (folder / f"{canary('MP4 with boxes')}.mp4").write_bytes(video(clip) + boxes)
    clip = [speckle(*SIZE, seed=230 + n) for n in range(3)]
    avi = video(clip, "avi", "mjpeg")
    name, junk = canary("AVI, INFO").encode(), canary("AVI, JUNK").encode()
    info = b"INFOINAM" + struct.pack("<I", len(name)) + name
    more = b"LIST" + struct.pack("<I", len(info)) + info + b"JUNK" + struct.pack("<I", len(junk)) + junk
    whole = avi[:4] + struct.pack("<I", len(avi) - 8 + len(more)) + avi[8:12] + more + avi[12:]
    (folder / f"{canary('AVI with chunks')}.avi").write_bytes(whole)


def plant_arrays(canary: Canaries, folder: Path) -> None:
    """Names and attributes of an HDF5, texts and an extension of a NIfTI-2, name and comment of its gzip."""
    volume = np.stack([speckle(*SIZE, seed=240 + n) for n in range(3)])
    with h5py.File(folder / f"{canary('HDF5')}.h5", "w") as file:
        file.attrs[canary("HDF5, name of an attribute")] = canary("HDF5, attribute")
        group = file.create_group(canary("HDF5, group"))
        group.create_dataset(canary("HDF5, data set"), data=volume).attrs["patient"] = canary("HDF5, its attribute")
    head = bytearray(540)
    struct.pack_into("<i8s", head, 0, 540, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<hh8q", head, 12, 2, 8, 3, *volume.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<q", head, 168, 592)
    for at, place in ((240, "description"), (320, "second file"), (508, "intent")):
        word = canary(f"NIfTI-2, {place}").encode()
        head[at : at + len(word)] = word
    extension = struct.pack("<ii", 48, 2) + canary("NIfTI-2, extension").encode().ljust(40, b"\0")
    packed = gzip.compress(bytes(head) + b"\1\0\0\0" + extension + (volume ^ 1).tobytes())
    extra = canary("gzip's extra field").encode()
    words = canary("gzip's name").encode() + b"\0" + canary("gzip's comment").encode() + b"\0"
    start = b"\x1f\x8b\x08" + bytes([4 | 8 | 16]) + bytes(6) + struct.pack("<H", len(extra)) + extra + words
    (folder / f"{canary('NIfTI-2')}.nii.gz").write_bytes(start + packed[10:])


def plant_names(canary: Canaries, folder: Path) -> None:
    """Names that are no UTF-8, or that a terminal would obey."""
    picture = png(speckle(*SIZE, seed=250))
    raw = os.fsencode(folder) + b"/" + canary("a name that is no UTF-8").encode() + b"\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(picture)
    (folder / f"\x1b[31m{canary('a name with an escape')}\n.png").write_bytes(png(speckle(*SIZE, seed=251)))


DEEPER: dict[str, Planter] = {
    "frames": plant_frames,
    "bits": plant_bits,
    "pages": plant_pages,
    "containers": plant_containers,
    "arrays": plant_arrays,
}
"""For archives and folders; `plant_names` is for folders only, since an archive with such names is refused."""
