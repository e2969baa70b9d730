"""`openus-data cone PATH...`: one scan area per image, video or DICOM, as JSON and as pictures to look at.

report = detect_paths([Path("scan.png")], overlay=Path("overlays"))
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from openus_data.archive.names import printable
from openus_data.cone import detect
from openus_data.cone.overlay import draw
from openus_data.decode import decode
from openus_data.deid.burned_in import find_text
from openus_data.errors import OpenUSDataError, UsageError
from openus_data.records import Cone, Media, Pixels, TextBox
from openus_data.store import write_aside

MOST_FRAMES = 8
"""Frames of a clip that are looked at, evenly apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The scan area of one file.

    Args:
        file: as the user wrote it, or below the folder the user named.
        frames: number of frames in the file.
        cone: the scan area, in pixels of the original.
        text_boxes: words burned into the first frame looked at.
        seconds: time spent on the scan area, without decoding.
        overlay: name of the picture in the overlay folder, or None.
    """

    file: str
    frames: int
    cone: Cone
    text_boxes: tuple[TextBox, ...]
    seconds: float
    overlay: str | None

    def to_json(self) -> dict[str, object]:
        """One entry of `detections`."""
        cone = self.cone
        polygon: object = _points(cone)
        if cone.geometry == "multi":
            polygon = [_points(panel) for panel in cone.panels]
        return {
            "file": self.file,
            "frames": self.frames,
            "geometry": cone.geometry,
            "polygon": polygon,
            "box": list(cone.box),
            "confidence": cone.confidence,
            "method": cone.method,
            "parameters": dict(cone.parameters),
            "text_boxes": [list(text.box) for text in self.text_boxes],
            "seconds": round(self.seconds, 4),
            "overlay": self.overlay,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeReport:
    """What `openus-data cone` found.

    Args:
        detections: one per file that could be read, in the order given (folders sorted).
        failed: (file, what was wrong) of the others.
    """

    detections: tuple[Detection, ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when a file could not be read."""
        return int(bool(self.failed))

    def to_json(self) -> dict[str, object]:
        """The object behind --json."""
        return {
            "detections": [detection.to_json() for detection in self.detections],
            "failed": [{"file": file, "error": error} for file, error in self.failed],
        }

    def to_text(self) -> str:
        """A line per file."""
        lines = [_line(detection) for detection in self.detections]
        return "\n".join([*lines, *(f"{printable(file)}: {error}" for file, error in self.failed)])


def detect_paths(paths: Sequence[Path], *, overlay: Path | None = None) -> ConeReport:
    """Find the scan area of each file.

    Args:
        paths: images, videos, DICOM files, or folders of them (searched through, hidden files left out).
        overlay: folder for pictures with the outline drawn, made if need be; named by number, since a file's own name
            may be a patient's.

    Raises:
        UsageError: a path does not exist.
    """
    files = list(_files(paths))
    if overlay is not None:
        overlay.mkdir(parents=True, exist_ok=True)
    detections: list[Detection] = []
    failed: list[tuple[str, str]] = []
    for number, file in enumerate(files, start=1):
        try:
            detections.append(_detect_file(file, overlay, f"{number:05d}.png"))
        except OpenUSDataError as error:
            failed.append((str(file), str(error)))
    return ConeReport(detections=tuple(detections), failed=tuple(failed))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for number, path in enumerate(paths, start=1):
        if path.is_dir():
            found = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from (file for file in found if not any(p.startswith(".") for p in file.relative_to(path).parts))
        elif path.is_file():
            yield path
        else:
            raise UsageError("no such file or folder", where=f"path {number}", next_step="check how it is spelt")


def _detect_file(file: Path, overlay: Path | None, name: str) -> Detection:
    media = decode(file)
    frames = sample_frames(media)
    stack = np.stack([_grey(frame) for frame in frames]) if len(frames) > 1 else _grey(frames[0])
    started = time.perf_counter()
    cone = detect(stack, regions=media.regions)
    seconds = time.perf_counter() - started
    first = frames[0]
    words = find_text(first)
    if overlay is not None:
        _save(overlay / name, draw(first, cone, words))
    return Detection(
        file=str(file),
        frames=media.frame_count,
        cone=cone,
        text_boxes=words,
        seconds=seconds,
        overlay=name if overlay is not None else None,
    )


def sample_frames(media: Media) -> list[Pixels]:
    """Up to eight frames, evenly apart, the first among them; uint8 (H, W) or (H, W, 3)."""
    count = min(media.frame_count, MOST_FRAMES)
    wanted = sorted({round(position) for position in np.linspace(0, media.frame_count - 1, count)})
    return [pixels for _, pixels in media.read(wanted)]


def _grey(frame: Pixels) -> Pixels:
    grey: Pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame
    return grey


def _save(path: Path, picture: Pixels) -> None:
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    with write_aside(path) as handle:
        handle.write(encoded.tobytes())


def _points(cone: Cone) -> list[list[float]]:
    return [list(vertex) for vertex in cone.polygon]


def _line(detection: Detection) -> str:
    cone, box = detection.cone, ",".join(map(str, detection.cone.box))
    name, words = printable(detection.file), f"{len(detection.text_boxes)} text boxes"
    return f"{name}: {cone.geometry} [{box}] confidence {cone.confidence:.2f} ({cone.method}), {words}"
