"""Pictures, clips, volumes and tables with planted identities, one planter per kind of file (`planted.Canaries`)."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin
from planted import Canaries, planted_dicom, speckle

SIZE = (256, 320)

Planter = Callable[[Canaries, Path], None]
"""Writes files into a folder."""


def _picture(seed: int) -> Image.Image:
    return Image.fromarray(speckle(*SIZE, seed=seed))


def _full_picture(seed: int) -> Image.Image:
    """Speckle from edge to edge, so that nothing is cropped and the bytes of the source may pass."""
    noise = np.random.default_rng(seed).rayleigh(40, (SIZE[0] // 2, SIZE[1] // 2)).clip(8, 255).astype(np.uint8)
    return Image.fromarray(noise).resize(SIZE[::-1], Image.Resampling.BICUBIC)


def _exif(canary: Canaries, where: str) -> bytes:
    exif = Image.Exif()
    exif[0x013B] = canary(f"{where}, EXIF artist")
    exif[0x010E] = canary(f"{where}, EXIF description")
    exif[0x013C] = canary(f"{where}, EXIF host computer")
    exif[0x9C9D] = canary(f"{where}, EXIF author in UTF-16").encode("utf-16-le") + b"\0\0"
    details = exif.get_ifd(0x8769)
    details[0x9286] = b"ASCII\0\0\0" + canary(f"{where}, EXIF user comment").encode()
    details[0xA431] = canary(f"{where}, EXIF serial number")
    position = exif.get_ifd(0x8825)
    position[0x001D] = canary(f"{where}, GPS date")
    return exif.tobytes()


def _xmp(canary: Canaries, where: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a name="{canary(f"{where}, XMP")}"/></x:xmpmeta>'.encode()


def plant_jpeg(canary: Canaries, folder: Path) -> None:
    """EXIF with a thumbnail, XMP, IPTC, ICC description, a comment, and bytes behind the end."""
    _write_jpeg(canary, folder, _picture(1))
    _write_jpeg(canary, folder, _full_picture(101))


def _write_jpeg(canary: Canaries, folder: Path, picture: Image.Image) -> None:
    thumbnail = io.BytesIO()
    picture.resize((32, 32)).save(thumbnail, "JPEG", comment=canary("JPEG thumbnail, comment"))
    buffer = io.BytesIO()
    profile = b"\0" * 128 + canary("ICC description").encode() + b"\0" * 16
    picture.save(
        buffer,
        "JPEG",
        quality=95,
        exif=_exif(canary, "JPEG"),
        comment=canary("JPEG comment"),
        icc_profile=profile,
        xmp=_xmp(canary, "JPEG"),
    )
    content = buffer.getvalue()
    segments = b""
    for marker, body in (
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0" + canary("IPTC").encode()),
        (0xE7, b"THUMB\0" + thumbnail.getvalue()),
    ):
        segments += bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
    content = content[:2] + segments + content[2:] + canary("behind the JPEG's end").encode()
    (folder / f"{canary('JPEG file name')}.jpg").write_bytes(content)


def plant_png(canary: Canaries, folder: Path) -> None:
    """Every text chunk, EXIF, ICC, a private chunk, a palette of text, and bytes behind the end."""
    _write_png(canary, folder, _picture(2))
    _write_png(canary, folder, _full_picture(102))


def _write_png(canary: Canaries, folder: Path, picture: Image.Image) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("Author", canary("PNG tEXt"))
    about.add_text("Comment", canary("PNG zTXt"), zip=True)
    about.add_itxt("Title", canary("PNG iTXt"), zip=True)
    about.add_text(canary("PNG text keyword"), "x")
    about.add(b"orPh", canary("PNG private chunk").encode())
    buffer = io.BytesIO()
    profile = b"\0" * 128 + canary("PNG ICC description").encode() + b"\0" * 16
    picture.save(buffer, "PNG", pnginfo=about, exif=_exif(canary, "PNG"), icc_profile=profile)
    hidden = zlib.compress(canary("behind the PNG's end, deflated").encode() * 4)
    (folder / f"{canary('PNG file name')}.png").write_bytes(buffer.getvalue() + hidden)


def plant_tiff(canary: Canaries, folder: Path) -> None:
    """Text tags, XMP, and a private tag."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432):
        tags[tag] = canary(f"TIFF tag {tag}")
    tags[700] = _xmp(canary, "TIFF")
    tags.tagtype[700] = 1
    tags[65001] = canary("TIFF private tag")
    tags.tagtype[65001] = 2
    _picture(3).save(folder / f"{canary('TIFF file name')}.tif", tiffinfo=tags)


def plant_bmp(canary: Canaries, folder: Path) -> None:
    """Bytes between header and pixels, and behind the pixels."""
    buffer = io.BytesIO()
    _picture(4).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    start = struct.unpack_from("<I", content, 10)[0]
    gap = canary("gap of the BMP").encode()
    struct.pack_into("<I", content, 10, start + len(gap))
    content = content[:start] + gap + content[start:] + canary("behind the BMP's pixels").encode()
    (folder / f"{canary('BMP file name')}.bmp").write_bytes(bytes(content))


def plant_clip(canary: Canaries, folder: Path) -> None:
    """Container metadata of MP4 and AVI, and the encoder's own comment inside the stream."""
    for suffix, codec in (("mp4", "mpeg4"), ("avi", "mpeg4")):
        with av.open(str(folder / f"{canary(f'{suffix} file name')}.{suffix}"), "w") as container:
            for key in ("title", "artist", "comment", "copyright", "location"):
                container.metadata[key] = canary(f"{suffix} metadata {key}")
            stream = container.add_stream(codec, rate=Fraction(10))
            stream.height, stream.width, stream.pix_fmt = SIZE[0], SIZE[1], "yuv420p"
            stream.metadata["title"] = canary(f"{suffix} stream title")
            for index in range(5):
                frame = np.repeat(speckle(*SIZE, seed=50 + index)[..., None], 3, axis=2)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))


def plant_volumes(canary: Canaries, folder: Path) -> None:
    """Descriptions and extensions of NIfTI, gzip's file name, keys of MHA and NRRD, the text header of MATLAB."""
    volume = np.stack([speckle(*SIZE, seed=70 + n) for n in range(3)])
    _plant_nifti(canary, folder, volume)
    keys = [f"{key} = {canary(f'MHA key {key}')}" for key in ("Comment", "PatientName", "AcquisitionDate")]
    size = " ".join(str(n) for n in reversed(volume.shape))
    head = [
        "ObjectType = Image",
        "NDims = 3",
        *keys,
        f"DimSize = {size}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    (folder / f"{canary('MHA file name')}.mha").write_bytes("\n".join(head).encode() + b"\n" + volume.tobytes())
    head = ["NRRD0004", f"# {canary('NRRD comment')}", "type: uint8", "dimension: 3", f"sizes: {size}", "encoding: raw"]
    head += [f"content: {canary('NRRD content')}", f"PatientName:={canary('NRRD key')}", "", ""]
    (folder / f"{canary('NRRD file name')}.nrrd").write_bytes("\n".join(head).encode() + volume.tobytes())


def _plant_nifti(canary: Canaries, folder: Path, volume: np.ndarray) -> None:
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, volume.shape[2], volume.shape[1], volume.shape[0], 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 2, 8)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    for place, offset in (("db_name", 14), ("descrip", 148), ("aux_file", 228), ("intent_name", 328)):
        word = canary(f"NIfTI {place}").encode()
        head[offset : offset + len(word)] = word
    comment = canary("NIfTI extension").encode().ljust(24, b"\0")
    extension = struct.pack("<2i", 32, 6) + comment
    struct.pack_into("<f", head, 108, 352 + len(extension))
    head[344:348] = b"n+1\0"
    content = bytes(head) + b"\1\0\0\0" + extension + volume.tobytes()
    path, inner = folder / f"{canary('NIfTI file name')}.nii.gz", canary("gzip's file name")
    with path.open("wb") as raw, gzip.GzipFile(filename=inner, mode="wb", fileobj=raw, mtime=0) as packed:
        packed.write(content)


def plant_matlab(canary: Canaries, folder: Path) -> None:
    """The text header of a MATLAB 5 file, and a variable of text beside the picture."""
    import scipy.io  # an extra

    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"image": speckle(*SIZE, seed=80), "patient": canary("MATLAB variable")})
    content = bytearray(buffer.getvalue())
    word = f"MATLAB 5.0 MAT-file, {canary('MATLAB header')}".encode().ljust(116)
    content[:116] = word
    (folder / f"{canary('MATLAB file name')}.mat").write_bytes(bytes(content))


def plant_sidecars(canary: Canaries, folder: Path) -> None:
    """Tables and documents beside the pictures, and the litter of operating systems."""
    (folder / "patients.csv").write_text(f"name,born,mrn\n{canary('CSV name')},1961-03-07,{canary('CSV number')}\n")
    (folder / "notes.json").write_text(json.dumps({"patient": canary("JSON value"), canary("JSON key"): 1}))
    (folder / "report.xml").write_text(f"<report patient='{canary('XML attribute')}'/>")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + canary("Thumbs.db").encode("utf-16-le"))
    (folder / "._image.png").write_bytes(b"\0\5\x16\7" + canary("AppleDouble").encode())
    (folder / f"{canary('name of a broken file')}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + canary("broken PNG").encode()
    )
    (folder / f"{canary('name of an empty file')}.dcm").write_bytes(b"")


def plant_dicom(canary: Canaries, folder: Path) -> None:
    """A DICOM file with everything of `planted_dataset`, one that is cut short, and one that is no picture."""
    content = planted_dicom(canary, pixels=speckle(*SIZE, seed=90))
    (folder / f"{canary('DICOM file name')}.dcm").write_bytes(content)
    (folder / f"{canary('name of a cut DICOM')}.dcm").write_bytes(planted_dicom(canary)[:4000])
    report = planted_dicom(canary).replace(b"1.2.840.10008.5.1.4.1.1.6.1\0", b"1.2.840.10008.5.1.4.1.1.88.11"[:28])
    (folder / f"{canary('name of a report')}.dcm").write_bytes(report)


PLANTERS: dict[str, Planter] = {
    "dicom": plant_dicom,
    "jpeg": plant_jpeg,
    "png": plant_png,
    "tiff": plant_tiff,
    "bmp": plant_bmp,
    "clip": plant_clip,
    "volumes": plant_volumes,
    "matlab": plant_matlab,
    "sidecars": plant_sidecars,
}


def plant_archive(canary: Canaries, folder: Path, target: Path) -> None:
    """Pack a folder into `target`.tar.gz, whose owners, groups and extended headers hold canaries, and `target`.zip."""
    about_all = {"comment": canary("tar, global header")}
    with tarfile.open(f"{target}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers=about_all) as archive:

        def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uname, member.gname = canary("tar owner", 12), canary("tar group", 12)
            member.pax_headers = {"SCHILY.xattr.user.name": canary("tar extended attribute")}
            return member

        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=owned)
    with zipfile.ZipFile(f"{target}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.comment = canary("zip comment").encode()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                about = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                about.comment = canary("zip member comment").encode()
                packed.writestr(about, path.read_bytes(), zipfile.ZIP_DEFLATED)
