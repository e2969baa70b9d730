"""Burned-in text: what is found, what is gone, what is wiped by mistake, and what it costs.

    python benchmarks/text.py [--pictures N] [--each N] [--no-ocr]

Words over real ultrasound inside hand-drawn scan areas (`text_scenes.py`); times are CPU on one core. The rivals are a
plain top-hat and the detector of rapidocr on the whole picture. Note that the packaged gate was trained on these
pictures: `train_text.py` prints the figures of gates that never saw the source they are tested on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from text_scenes import CAP_HEIGHTS_PX, PLACES, Picture, Scene, phantoms, real_pictures, scaled, scenes

from openus_data.deid.burned_in import find_text, find_text_in_clip, remove_text
from openus_data.errors import MissingExtra
from openus_data.phantom import phantom
from openus_data.records import Box

Finder = Callable[[NDArray[np.uint8], NDArray[np.bool_]], Sequence[Box]]


class Result(NamedTuple):
    """One scene, one finder: parts of the string's pixels in boxes and gone; part of the scan area touched wrongly."""

    held: float
    gone: float
    wrong: float
    seconds: float


def ours(*, ocr: bool) -> Finder:
    """The project's finder."""
    return lambda pixels, inside: [found.box for found in find_text(pixels, inside, ocr=ocr)]


def plain_tophat(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Sequence[Box]:
    """The floor: top-hat, threshold, close, a filter on size."""
    red, green, blue = cv2.split(pixels) if pixels.ndim == 3 else (pixels,) * 3
    level = cv2.max(cv2.max(red, green), blue)
    strokes = ((cv2.morphologyEx(level, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8)) > 70) & inside).astype(np.uint8)
    joined = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((3, 13), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    return [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist() if 5 <= h <= 44 and w >= 1.2 * h]


def rapidocr() -> Finder:
    """The rival: the detector of rapidocr on the whole picture."""
    from rapidocr_onnxruntime import RapidOCR

    detector: Any = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_det

    def find(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Sequence[Box]:
        quads, _ = detector(pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
        corners = [] if quads is None else np.asarray(quads).astype(int)
        boxes = [(*c.min(axis=0).tolist(), *c.max(axis=0).tolist()) for c in corners]
        return [b for b in boxes if inside[max(0, b[1]) : b[3], max(0, b[0]) : b[2]].mean() > 0.5]

    return find


def measured(scene: Scene, find: Finder) -> Result:
    """Find, remove, compare."""
    inside = scene.picture.inside
    started = time.process_time()
    boxes = find(scene.pixels, inside)
    cleaned = remove_text(scene.pixels, _text_boxes(boxes))
    seconds = time.process_time() - started
    held = np.zeros(inside.shape, bool)
    for x0, y0, x1, y1 in boxes:
        held[max(0, y0) : y1, max(0, x0) : x1] = True
    change = np.abs(cleaned.astype(np.int16) - scene.pixels)
    changed = (change.max(axis=2) if change.ndim == 3 else change) > 0
    new = changed.copy()
    x0, y0, x1, y1 = scene.box
    changed[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4] = False
    count = scene.strokes.sum()
    return Result(
        float((held & scene.strokes).sum() / count),
        float((new & scene.strokes).sum() / count),
        float((changed & inside).sum() / inside.sum()),
        seconds,
    )


def _text_boxes(boxes: Sequence[Box]) -> list[Any]:
    from openus_data.records import TextBox

    return [TextBox(box=(max(0, b[0]), max(0, b[1]), b[2], b[3]), score=1.0, detector="gate") for b in boxes]


def report(name: str, find: Finder, shown: list[Scene], plain: list[Picture]) -> None:
    """A block of the table."""
    results = [measured(scene, find) for scene in shown]
    held, gone = np.array([r.held for r in results]), np.array([r.gone for r in results])
    print(f"\n{name}: {len(shown)} strings, {len(plain)} text-free pictures")
    for place in PLACES:
        cells = []
        for cap in CAP_HEIGHTS_PX:
            rows = [k for k, s in enumerate(shown) if s.place == place and s.cap_px == cap]
            if rows:
                cells.append(f"{cap:2d} px {np.mean(held[rows] >= 0.5):.3f} {np.mean(held[rows] >= 0.9):.3f}")
        print(f"  over {place:8s} half, 90% in boxes: " + " | ".join(cells))
    flagged = np.mean([bool(find(p.pixels, p.inside)) for p in plain])
    print(f"  all strings: half in boxes {np.mean(held >= 0.5):.4f}, 90% {np.mean(held >= 0.9):.4f}")
    print(f"  all strings: 90% of the pixels replaced {np.mean(gone >= 0.9):.4f}")
    print(f"  text-free flagged {flagged:.3f}; cone wrongly touched {np.mean([r.wrong for r in results]):.5f}")
    print(f"  CPU ms a picture with text, removal included: {1e3 * np.median([r.seconds for r in results]):.1f}")


def costs(plain: list[Picture]) -> None:
    """CPU of the gate at 800x600 against the plain top-hat, and a clip's per frame."""
    sized = [cv2.resize(p.pixels, (800, 600), interpolation=cv2.INTER_AREA) for p in plain[:20]]
    everywhere = np.ones((600, 800), bool)
    times = {}
    for name, find in (("gate", ours(ocr=False)), ("plain top-hat", plain_tophat)):
        taken = []
        for picture in sized:
            find(picture, everywhere)
            started = time.process_time()
            find(picture, everywhere)
            taken.append(time.process_time() - started)
        times[name] = float(np.median(taken))
    gate, floor = times["gate"], times["plain top-hat"]
    print(f"\n800x600: gate {1e3 * gate:.1f} ms, plain top-hat {1e3 * floor:.1f} ms, ratio {gate / floor:.1f}")
    clip = phantom(1, frames=24, width=800, height=600, interface=False).frames
    started = time.process_time()
    find_text_in_clip(clip)
    print(f"clip of 24 frames, 800x600: {1e3 * (time.process_time() - started) / 24:.2f} ms a frame")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=63)
    parser.add_argument("--each", type=int, default=6)
    parser.add_argument("--no-ocr", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    real = real_pictures()
    real = real[:: max(1, len(real) // options.pictures)]
    real = [scaled(p, min(1.0, 800 / max(p.inside.shape))) for p in real]
    shown = list(scenes(real, options.each, seed=77))
    plain = [*real, *phantoms(12)]
    costs(plain)
    report("plain top-hat", plain_tophat, shown, plain)
    report("gate", ours(ocr=False), shown, plain)
    if options.no_ocr:
        return
    try:
        report("gate + OCR detector", ours(ocr=True), shown, plain)
        report("rapidocr detector alone", rapidocr(), shown[::6], plain[::6])
    except (MissingExtra, ImportError):
        print("\nthe [ocr] extra is not installed: its rows are left out")


if __name__ == "__main__":
    main()
