"""Images per CPU second from JPEG bytes to the views of a pretraining step.

Against the rival, iBOT's pipeline on Pillow (no dependency of the package: left out where it is not installed), and the
floor, decoding alone. One thread, a 512 x 512 grey fan of speckle at JPEG quality 95, 2 x 224 and 8 x 96 pixel views.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from openus_model.bench.report import BenchReport, Row, cpu_seconds
from openus_model.stream import DEFAULT_GROUPS
from openus_model.views import multi_crop

SIDE_PX = 512
JPEG_QUALITY = 95
WANTED = 4.0
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
        files = [speckle_jpeg(seed) for seed in range(images)]
        calls: dict[str, Callable[[], object]] = {
            "views": lambda: _views(files),
            "decode": lambda: [_decode(data) for data in files],
        }
        if importlib.util.find_spec("PIL"):
            from openus_model.bench.pil_views import pil_views

            calls["pil"] = lambda: pil_views(files)
        rates = {name: images / seconds for name, seconds in cpu_seconds(calls, dict.fromkeys(calls, repeats)).items()}
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    rows = tuple(
        Row(name="decode and make the views", value=rates["views"], unit="images/s", baseline=baseline,
            baseline_value=rates[name], wanted=wanted)
        for name, baseline, wanted in (("pil", "PIL on RGB (iBOT)", WANTED), ("decode", "decode alone (floor)", None))
        if name in rates
    )  # fmt: skip
    facts: dict[str, float | int | str] = {
        "threads": 1,
        "images": images,
        "JPEG, KB": round(sum(map(len, files)) / images / 1024, 1),
    }
    if "pil" not in rates:
        facts["PIL on RGB (iBOT)"] = "not measured: pip install pillow"
    return BenchReport(what="stream", rows=rows, facts=facts)


def _views(files: list[bytes]) -> None:
    for seed, data in enumerate(files):
        multi_crop(_decode(data), NO_CONE, DEFAULT_GROUPS, np.random.default_rng(seed))


def _decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def speckle_jpeg(seed: int) -> bytes:
    """A 512 x 512 grey fan of speckle, JPEG quality 95."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX, 2)).astype(np.float32), (0, 0), 2.6)
    image = np.log1p(4 * np.hypot(field[..., 0], field[..., 1]))
    fan = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.ellipse(fan, (256, -40), (540, 540), 90, -42, 42, 1, -1)
    pixels = (255 * image / image.max() * fan).astype(np.uint8)
    encoded: bytes = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return encoded
