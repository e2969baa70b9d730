"""Commands as a user runs them, and real pictures made small, for the acceptance tests of this folder."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from openus_data.records import Pixels

Answer = subprocess.CompletedProcess[str]


def openus_data(*arguments: object, cwd: Path | None = None) -> Answer:
    """Run `openus-data` in a process of its own; a traceback fails the test at once."""
    command = [sys.executable, "-m", "openus_data.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)
    assert "Traceback" not in answer.stderr + answer.stdout, answer
    assert "a fault in openus-data itself" not in answer.stderr, answer
    return answer


@functools.cache
def small_pictures(realdata: Path, side_px: int = 240) -> tuple[Pixels, ...]:
    """Real grey frames, no two alike, at most `side_px` long."""
    found: list[Pixels] = []
    thumbnails: list[np.ndarray] = []
    for path in sorted((realdata / "annotated_frames").glob("*.png")):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        scale = min(1.0, side_px / max(grey.shape))
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        thumbnail = cv2.resize(small, (16, 16), interpolation=cv2.INTER_AREA).astype(float).ravel()
        if all(np.corrcoef(thumbnail, other)[0, 1] < 0.8 for other in thumbnails):
            thumbnails.append(thumbnail)
            found.append(np.asarray(small, dtype=np.uint8))
    return tuple(found)


def write_picture(path: Path, pixels: Pixels) -> None:
    """A picture in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix.lower(), pixels)
    assert done
    path.write_bytes(data.tobytes())


def disc(pixels: Pixels) -> Pixels:
    """A drawn mask: 255 in a disc in the middle."""
    mask = np.zeros_like(pixels)
    height, width = pixels.shape
    cv2.circle(mask, (width // 2, height // 2), min(height, width) // 6, 255, -1)
    return mask
