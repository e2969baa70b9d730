"""Burned-in text: what is found, what is gone, what is wiped by mistake, and what it costs.

    python benchmarks/text.py [--pictures N] [--each N] [--no-ocr] [--packaged]

Words over real ultrasound inside hand-drawn scan areas (`text_scenes.py`), in fonts that no gate was trained on; times
are CPU on one core. Each picture is looked at by a gate that was trained without its source (a few minutes of training
at the start); `--packaged` takes the gate of the package, which knows all sources, at once. The rivals are a plain
top-hat and the detector of rapidocr on the whole picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from text_legible import Reader
from text_scenes import (
    CAP_HEIGHTS_PX,
    PLACES,
    Picture,
    Scene,
    difference,
    phantoms,
    real_pictures,
    scaled,
    scenes,
    with_flow,
)

from openus_data.deid.burned_in import find_text, find_text_in_clip, remove_text
from openus_data.deid.text_gate import Trees
from openus_data.errors import MissingExtra
from openus_data.executor.worker import hold_memory
from openus_data.phantom import phantom
from openus_data.records import Box, TextBox

VISIBLE = 25
"""Levels by which a letter's pixel stands out of its ground, and by which a gone one has changed."""

Finder = Callable[[Picture, NDArray[np.uint8]], Sequence[Box]]


class Result(NamedTuple):
    """One scene, one finder.

    Args:
        held: part of the letters' pixels that lie in boxes.
        replaced: part of them that changed at all.
        gone: part of those that stood out by `VISIBLE` that changed by as much.
        wrong: part of the scan area, away from the string, that changed.
        was_read, is_read: whether the recogniser reads the string before and after.
        seconds: to find and remove.
    """

    held: float
    replaced: float
    gone: float
    wrong: float
    was_read: bool
    is_read: bool
    seconds: float


def ours(gates: dict[str, Trees], *, ocr: bool) -> Finder:
    """The project's finder, with the gate of the picture's source."""
    return lambda picture, pixels: [
        found.box for found in find_text(pixels, picture.inside, ocr=ocr, trees=gates.get(picture.source))
    ]


def plain_tophat(picture: Picture, pixels: NDArray[np.uint8]) -> Sequence[Box]:
    """The floor: top-hat, threshold, close, a filter on size."""
    red, green, blue = cv2.split(pixels) if pixels.ndim == 3 else (pixels,) * 3
    level = cv2.max(cv2.max(red, green), blue)
    bright = cv2.morphologyEx(level, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8)) > 70
    joined = cv2.morphologyEx((bright & picture.inside).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 13), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    return [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist() if 5 <= h <= 44 and w >= 1.2 * h]


def rapidocr() -> Finder:
    """The rival: the detector of rapidocr on the whole picture."""
    from rapidocr_onnxruntime import RapidOCR

    detector: Any = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_det

    def find(picture: Picture, pixels: NDArray[np.uint8]) -> Sequence[Box]:
        quads, _ = detector(pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
        corners: Sequence[Any] = [] if quads is None else list(np.asarray(quads).astype(int).clip(0))
        boxes = [(*c.min(axis=0).tolist(), *c.max(axis=0).tolist()) for c in corners]
        return [b for b in boxes if picture.inside[b[1] : b[3], b[0] : b[2]].mean() > 0.5]

    return find


def measured(scene: Scene, find: Finder, reader: Reader | None) -> Result:
    """Find, remove, compare."""
    inside = scene.picture.inside
    started = time.process_time()
    boxes = find(scene.picture, scene.pixels)
    cleaned = remove_text(scene.pixels, [TextBox(box=b, score=1.0, detector="gate") for b in boxes])
    seconds = time.process_time() - started
    held = np.zeros(inside.shape, bool)
    for x0, y0, x1, y1 in boxes:
        held[y0:y1, x0:x1] = True
    change = difference(cleaned, scene.pixels)
    stood_out = scene.strokes & (scene.seen >= VISIBLE)
    wrong = (change > 0) & inside
    x0, y0, x1, y1 = scene.box
    wrong[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4] = False
    return Result(
        held=float(held[scene.strokes].mean()),
        replaced=float((change > 0)[scene.strokes].mean()),
        gone=float((change >= VISIBLE)[stood_out].mean()) if stood_out.any() else 1.0,
        wrong=float(wrong.sum() / inside.sum()),
        was_read=reader is not None and reader.reads(scene.pixels, scene),
        is_read=reader is not None and reader.reads(cleaned, scene),
        seconds=seconds,
    )


def report(name: str, find: Finder, shown: list[Scene], plain: list[Picture], reader: Reader | None) -> None:
    """A block of the table."""
    results = [measured(scene, find, reader) for scene in shown]
    held, replaced, gone, wrong, was, now, seconds = (np.array(c) for c in zip(*results, strict=True))
    print(f"\n{name}: {len(shown)} strings, {len(plain)} text-free pictures", flush=True)
    for place in PLACES:
        cells = []
        for cap in CAP_HEIGHTS_PX:
            rows = [k for k, s in enumerate(shown) if s.place == place and s.cap_px == cap]
            if rows:
                cells.append(
                    f"{cap:2d} px {_share(held[rows] >= 0.5)} / {_share(replaced[rows] >= 0.9)} of {len(rows)}"
                )
        print(f"  {place:8s} half boxed / 90% replaced: " + " | ".join(cells))
    print(f"  all: half boxed {_share(held >= 0.5)}, 90% boxed {_share(held >= 0.9)}")
    print(f"  all: 90% of the pixels replaced {_share(replaced >= 0.9)}, visibly {_share(gone >= 0.9)}")
    if reader is not None:
        print(f"  read before {_share(was)}, after {_share(was & now)}")
    sizes = [_touched(find, p) for p in plain]
    print(f"  text-free: flagged {_share(np.array(sizes) > 0)}, touched {np.mean(sizes):.5f} of the cone")
    print(
        f"  with text: cone wrongly touched {wrong.mean():.5f}; CPU ms {1e3 * np.median(seconds):.1f} (median), "
        f"{1e3 * np.percentile(seconds, 95):.1f} (95%)",
        flush=True,
    )


def doppler(name: str, find: Finder, pictures: list[Picture]) -> None:
    """Text-free pictures with made-up colour flow."""
    sizes = np.array([_touched(find, p) for p in pictures])
    print(f"  {name}: of {len(pictures)} with flow {_share(sizes > 0)} flagged, {sizes.mean():.5f} of the cone touched")


def _touched(find: Finder, picture: Picture) -> float:
    """Part of the scan area that removal changes in a picture without text."""
    boxes = [TextBox(box=b, score=1.0, detector="gate") for b in find(picture, picture.pixels)]
    changed = difference(remove_text(picture.pixels, boxes), picture.pixels) > 0
    return float((changed & picture.inside).sum() / picture.inside.sum())


def _share(rows: NDArray[np.bool_]) -> str:
    return f"{rows.mean():.4f}"


def costs(plain: list[Picture]) -> None:
    """CPU of the gate at 800x600 against the plain top-hat, and a clip's per frame; the least of five runs each."""
    made_up = [p for p in plain if p.source == "phantom"]
    real = [p for p in plain if p.source != "phantom"]
    grey, colour = ([p for p in real if p.pixels.ndim == dimensions] for dimensions in (2, 3))
    for kind, pictures in (("real grey", grey), ("real colour", colour), ("made-up grey", made_up)):
        sized = [_sized(p) for p in pictures]
        gate, floor = (
            np.array([_least(partial(f, p, p.pixels)) for p in sized]) for f in (ours({}, ocr=False), plain_tophat)
        )
        print(
            f"{kind} 800x600, {len(sized)} pictures: gate {np.median(gate):.1f} ms (median), {gate.mean():.1f} (mean), "
            f"{np.percentile(gate, 95):.1f} (95%); plain top-hat {np.median(floor):.1f}"
        )
    made = phantom(1, frames=24, width=800, height=600, interface=False)
    clip, inside = made.frames, made.inside
    standing = _least(lambda: find_text_in_clip(clip, inside)) / len(clip)
    each = np.median([_least(partial(find_text, f, inside)) for f in clip[::4]])
    print(f"clip of 24 frames, 800x600: {standing:.2f} ms a frame for standing text, {each:.2f} for a frame by itself")


def _sized(picture: Picture) -> Picture:
    pixels = cv2.resize(picture.pixels, (800, 600), interpolation=cv2.INTER_AREA)
    inside = cv2.resize(picture.inside.astype(np.uint8), (800, 600), interpolation=cv2.INTER_NEAREST).astype(bool)
    return Picture(source=picture.source, pixels=pixels, inside=inside)


def _least(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return 1e3 * min(taken)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=63)
    parser.add_argument("--each", type=int, default=6)
    parser.add_argument("--no-ocr", action="store_true")
    parser.add_argument("--packaged", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    hold_memory()  # as the workers of `build` and `deid` do
    real = real_pictures()
    real = [scaled(p, min(1.0, 800 / max(p.inside.shape))) for p in real[:: max(1, len(real) // options.pictures)]]
    shown = list(scenes(real, options.each, seed=77))
    plain = [*real, *phantoms(12)]
    rng = np.random.default_rng(7)
    flow = [with_flow(picture, rng) for picture in real]
    costs(plain)
    gates = {} if options.packaged else _held_out()
    reader = None if options.no_ocr else Reader.installed()
    report("plain top-hat", plain_tophat, shown, plain, reader)
    report("gate", ours(gates, ocr=False), shown, plain, reader)
    doppler("gate", ours(gates, ocr=False), flow)
    if options.no_ocr:
        return
    try:
        report("gate + OCR detector", ours(gates, ocr=True), shown, plain, reader)
        doppler("gate + OCR detector", ours(gates, ocr=True), flow)
        report("rapidocr detector alone", rapidocr(), shown[::6], plain[::6], reader)
    except (MissingExtra, ImportError):
        print("\nthe [ocr] extra is not installed: its rows are left out")


def _held_out() -> dict[str, Trees]:
    from train_text import examples, held_out

    return held_out(examples(1))


if __name__ == "__main__":
    main()
