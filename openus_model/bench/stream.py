"""Images per CPU second from JPEG bytes to the views of a pretraining step, against the floor: decoding alone.

One thread, 512 x 512 grey speckle at JPEG quality 95, 2 x 224 and 8 x 96 pixel views. `benchmarks/stream.py` in the
repository has the rival, iBOT's pipeline on Pillow, which is no dependency of the package.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from openus_model.bench.report import BenchReport, Row, cpu_seconds
from openus_model.stream import DEFAULT_GROUPS
from openus_model.views import multi_crop

SIDE_PX = 512
JPEG_QUALITY = 95
NO_CONE = np.zeros((0, 2), np.float32)


def run(images: int = 48, *, repeats: int = 3) -> BenchReport:
    """Measure.

    Args:
        images: to decode and crop per turn.
        repeats: turns, of which the fastest counts.
    """
    threads = (torch.get_num_threads(), cv2.getNumThreads())
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        files = [_speckle_jpeg(seed) for seed in range(images)]
        calls = {"views": lambda: _views(files), "decode": lambda: [_decode(data) for data in files]}
        seconds = cpu_seconds(calls, dict.fromkeys(calls, repeats))
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    row = Row(
        name="decode and make the views", value=images / seconds["views"], unit="images/s",
        baseline="decode alone (the floor)", baseline_value=images / seconds["decode"],
    )  # fmt: skip
    kilobytes = round(sum(map(len, files)) / images / 1024, 1)
    return BenchReport(what="stream", rows=(row,), facts={"threads": 1, "images": images, "JPEG, KB": kilobytes})


def _views(files: list[bytes]) -> None:
    for seed, data in enumerate(files):
        multi_crop(_decode(data), NO_CONE, DEFAULT_GROUPS, np.random.default_rng(seed))


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def _speckle_jpeg(seed: int) -> bytes:
    field = np.random.default_rng(seed).standard_normal((SIDE_PX, SIDE_PX, 2)).astype(np.float32)
    envelope = np.log1p(4 * np.hypot(*np.moveaxis(cv2.GaussianBlur(field, (0, 0), 2.6), 2, 0)))
    pixels = (255 * envelope / envelope.max()).astype(np.uint8)
    encoded: bytes = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return encoded
