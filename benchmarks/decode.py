"""What decoding costs against the readers one would use otherwise, in CPU time on one core.

    OMP_NUM_THREADS=1 python benchmarks/decode.py

Every row decodes the same bytes with this project (opening, sniffing, strict checks and the choice of grey or colour
included) and with the named rival. `ratio` is rival time by our time: above 1 we are faster. Pictures are synthetic
speckle of 800x600, so that anyone can run it.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "data")]
import hostile  # noqa: E402

from openus_data.decode import decode  # noqa: E402

Row = tuple[str, int, Callable[[], Any], list[tuple[str, Callable[[], Any]]]]
FRAMES = 40


def speckle(seed: int = 0) -> NDArray[np.uint8]:
    """A sector of smooth speckle on black, as an ultrasound frame compresses."""
    rows, columns = np.mgrid[0:600, 0:800]
    inside = np.hypot(rows + 80, columns - 400) < 620
    return (hostile.speckle(600, 800, seed) * (inside & (abs(columns - 400) < (rows + 80) * 0.8))).astype(np.uint8)


def ours(path: Path) -> Callable[[], Any]:
    """Decode every frame of a file."""
    return lambda: [pixels for _, pixels in decode(path).read(None)]


def cv2_read(path: Path, flag: int) -> Callable[[], Any]:
    """Read one picture with OpenCV."""
    return lambda: cv2.imread(str(path), flag)


def cv2_video(path: Path) -> list[Any]:
    """Every frame through OpenCV, to grey."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def av_grey(path: Path) -> list[Any]:
    """Every frame through PyAV's own conversion to grey, on one thread."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def fragments_with_cv2(path: Path) -> list[Any]:
    """The floor for JPEG in DICOM: fragments straight to grey, no checks, no choice."""
    dataset = pydicom.dcmread(path)
    frames = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    return [cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE) for frame in frames]


def pixel_array(path: Path) -> Callable[[], Any]:
    """pydicom's array of all frames."""
    return lambda: pydicom.dcmread(path).pixel_array


def stills(folder: Path) -> list[Row]:
    """PNG and JPEG against OpenCV."""
    grey, rows = speckle(), list[Row]()
    grey_rgb = np.dstack([grey] * 3)
    colour = grey_rgb.copy()
    colour[200:300, 350:450, 0] = 255 - colour[200:300, 350:450, 0] // 2
    for name, picture in (("grey", grey), ("grey as RGB", grey_rgb), ("colour", colour)):
        for suffix in ("png", "jpg"):
            path = folder / f"{name}.{suffix}"
            options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == "jpg" else []
            cv2.imwrite(str(path), picture if picture.ndim == 2 else picture[..., ::-1], options)
            flag = cv2.IMREAD_UNCHANGED
            rivals = [("cv2 as stored", cv2_read(path, flag)), ("cv2 to grey", cv2_read(path, cv2.IMREAD_GRAYSCALE))]
            rows.append((f"{suffix} {name}", 1, ours(path), rivals))
    return rows


def objects(folder: Path) -> list[Row]:
    """DICOM against pydicom."""
    clip = np.stack([speckle(seed) for seed in range(FRAMES)])
    rgb = np.repeat(clip[..., None], 3, axis=3)
    jpegs = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for frame in rgb]
    made = hostile.dataset(rgb[:4], frames=4)
    made.compress(pydicom.uid.RLELossless)
    stream = cv2.imencode(".jp2", rgb[0])[1].tobytes()
    contents = {
        "JPEG clip, YBR": hostile.encapsulated(
            jpegs, rgb[0], hostile.JPEG_BASELINE, PhotometricInterpretation="YBR_FULL_422"
        ),
        "uncompressed clip, RGB": hostile.dicom(hostile.dataset(rgb, frames=FRAMES)),
        "uncompressed clip, grey": hostile.dicom(hostile.dataset(clip, frames=FRAMES)),
        "RLE clip, RGB": hostile.dicom(made),
        "JPEG 2000, RGB": hostile.encapsulated(
            [stream[stream.index(b"\xff\x4f\xff\x51") :]],
            rgb[0],
            "1.2.840.10008.1.2.4.90",
            PhotometricInterpretation="YBR_RCT",
        ),
    }
    rows: list[Row] = []
    for name, content in contents.items():
        path = folder / f"{name}.dcm"
        path.write_bytes(content)
        rivals: list[tuple[str, Callable[[], Any]]] = [("pydicom pixel_array", pixel_array(path))]
        if name.startswith("JPEG clip"):
            rivals.append(("fragments, cv2 grey", lambda path=path: fragments_with_cv2(path)))
        rows.append((name, decode(path).frame_count, ours(path), rivals))
    return rows


def clips(folder: Path) -> list[Row]:
    """Video against OpenCV and PyAV's conversion."""
    rows: list[Row] = []
    for name, container, codec in (("H.264 mp4", "mp4", "libx264"), ("MJPEG avi", "avi", "mjpeg")):
        path = folder / f"{name}.{container}"
        path.write_bytes(hostile.video([speckle(seed) for seed in range(FRAMES)], container, codec))
        rivals = [
            ("cv2 to grey", lambda path=path: cv2_video(path)),
            ("PyAV to grey", lambda path=path: av_grey(path)),
        ]
        rows.append((f"{name}, grey", FRAMES, ours(path), rivals))
    return rows


def volumes(folder: Path) -> list[Row]:
    """NIfTI against nibabel, where it is installed."""
    try:
        import nibabel
    except ImportError:
        return []
    volume = np.stack([speckle(seed)[:256, 300:556] for seed in range(64)])
    rows: list[Row] = []
    for suffix in ("nii", "nii.gz"):
        path = folder / f"v.{suffix}"
        nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), path)
        rivals = [("nibabel", lambda path=path: np.asarray(nibabel.load(path).dataobj))]
        rows.append((f"{suffix}, 64 slices of 256x256", 64, ours(path), rivals))
    return rows


def milliseconds(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Least CPU milliseconds of a call, over about `seconds` of calls."""
    call()
    least, spent = float("inf"), 0.0
    while spent < seconds:
        started = time.process_time()
        call()
        took = time.process_time() - started
        least, spent = min(least, took), spent + max(took, 1e-4)
    return least * 1000


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    table = Table("input", "ours, ms a frame", "rival", "rival, ms a frame", "ratio")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, count, call, rivals in [*stills(folder), *objects(folder), *clips(folder), *volumes(folder)]:
            mine = milliseconds(call) / count
            for rival, other in rivals:
                theirs = milliseconds(other) / count
                table.add_row(title, f"{mine:.2f}", rival, f"{theirs:.2f}", f"{theirs / mine:.2f}")
    Console(file=sys.stdout if sys.stdout.isatty() else io.TextIOWrapper(sys.stdout.buffer), width=110).print(table)


if __name__ == "__main__":
    main()
