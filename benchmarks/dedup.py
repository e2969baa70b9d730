"""Near-duplicates: which altered copies of real pictures are found, which unlike pictures are merged, and at what cost.

    python benchmarks/dedup.py REALDATA        # REALDATA: a folder with annotations.json and the pictures it names
    python benchmarks/dedup.py --speed 100000  # cost against the number of pictures, made up here

Rivals: imagehash.phash (64 bits, whole frame) at 8 bits, as its users run it, when it is installed; and a 256-bit DCT
hash at 32 bits without index, variants or check, the best figure of an earlier comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from openus_data import duplicates
from openus_data.records import Pixels

Change = Callable[[Pixels], Pixels]


def real_pictures(folder: Path) -> dict[str, Pixels]:
    """Scan areas of the annotated pictures, cut and blackened as a build stores them, by source; one of each."""
    notes = json.loads((folder / "annotations.json").read_text("utf-8"))
    found: dict[str, Pixels] = {}
    for entry in notes["images"]:
        grey = cv2.imread(str(folder / (entry.get("frame_png") or entry["file"])), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            continue
        inside = np.zeros(grey.shape, np.uint8)
        for cone in entry["cones"]:
            cv2.fillPoly(inside, [np.round(np.array(cone["polygon"])).astype(np.int32)], 1)
        x0, y0, x1, y1 = (round(v) for v in entry["bbox"])
        found[entry["id"]] = np.ascontiguousarray((grey * inside)[y0:y1, x0:x1])
    return found


def distinct(pictures: dict[str, Pixels]) -> dict[str, Pixels]:
    """Without those that the hand annotations hold twice: the same frame under another name, or seconds apart."""
    kept: dict[str, Pixels] = {}
    thumbs: list[Pixels] = []
    for name, picture in pictures.items():
        thumb = duplicates.thumbnail(picture)
        if all(duplicates.correlation(thumb, other) < 0.9 for other in thumbs):
            kept[name] = picture
            thumbs.append(thumb)
    return kept


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    """Parts of the sides cut away."""

    def change(p: Pixels) -> Pixels:
        h, w = p.shape
        return p[round(top * h) : h - round(bottom * h), round(left * w) : w - round(right * w)]

    return change


def with_callipers(p: Pixels) -> Pixels:
    """Two crosses, a dotted line and a label."""
    q, (h, w) = p.copy(), p.shape
    ends = (w // 3, h // 2), (2 * w // 3, h // 2 + h // 12)
    for end in ends:
        cv2.drawMarker(q, end, 255, cv2.MARKER_CROSS, max(9, h // 40), 1)
    for part in np.linspace(0, 1, 24):
        x, y = (round(a + part * (b - a)) for a, b in zip(*ends, strict=True))
        q[y, x] = 255
    cv2.putText(q, "1 L 12.3 mm", (w // 8, h // 5), cv2.FONT_HERSHEY_SIMPLEX, h / 900, 255, 1, cv2.LINE_AA)
    return q


def with_text(p: Pixels) -> Pixels:
    """A name over the speckle."""
    q, (h, w) = p.copy(), p.shape
    cv2.putText(q, "DOE JANE 1970", (w // 6, h // 3), cv2.FONT_HERSHEY_SIMPLEX, h / 700, 255, 1, cv2.LINE_AA)
    return q


CHANGES: dict[str, Change] = {
    "JPEG 50": lambda p: np.asarray(cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)),
    "half size": lambda p: np.asarray(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "224 x 224": lambda p: np.asarray(cv2.resize(p, (224, 224))),
    "cropped 5% all around": cropped(0.05, 0.05, 0.05, 0.05),
    "cropped 2.5% all around": cropped(0.025, 0.025, 0.025, 0.025),
    "cropped 3.5% all around": cropped(0.035, 0.035, 0.035, 0.035),
    "cropped 5% one side": cropped(0.05, 0, 0, 0),
    "cropped 5% corner": cropped(0, 0.05, 0.05, 0),
    "callipers": with_callipers,
    "text": with_text,
    "flipped": lambda p: p[:, ::-1],
    "gain 1.3": lambda p: np.asarray(cv2.convertScaleAbs(p, alpha=1.3)),
    "gamma 0.8": lambda p: np.asarray(255 * (p / 255.0) ** 0.8, np.uint8),
}


def ours(pictures: list[Pixels]) -> np.ndarray:
    """Labels by openus_data.duplicates."""
    return duplicates.group(np.stack([duplicates.thumbnail(p) for p in pictures]))


def plain_hash(bits: int, most: int) -> Callable[[list[Pixels]], np.ndarray]:
    """Labels by a DCT hash of `bits` bits at a distance of `most`, every pair compared."""
    side = round(bits**0.5)

    def label(pictures: list[Pixels]) -> np.ndarray:
        waves = [
            cv2.dct(np.float32(cv2.resize(p, (4 * side, 4 * side), interpolation=cv2.INTER_AREA))) for p in pictures
        ]
        low = np.stack([w[:side, :side].ravel() for w in waves])
        signs = low > np.median(low[:, 1:], axis=1, keepdims=True)
        labels = np.arange(len(pictures), dtype=np.int64)
        first, second = np.triu_indices(len(pictures), 1)
        near = (signs[first] != signs[second]).sum(axis=1) <= most
        duplicates.join(labels, first[near], second[near])
        return labels

    return label


def quality(folder: Path) -> None:
    """Recall per change and false merges, against the rivals."""
    pictures = list(distinct(real_pictures(folder)).values())
    n = len(pictures)
    rivals = {"openus": ours, "64 bits at 8": plain_hash(64, 8), "256 bits at 32": plain_hash(256, 32)}
    print(f"{n} unlike real pictures, {n * (n - 1) // 2} pairs; recall of the altered copy, false merges")
    print(f"{'change':<26}" + "".join(f"{name:>22}" for name in rivals))
    found = {name: [0, 0, 0] for name in rivals}
    for title, change in CHANGES.items():
        altered = [np.ascontiguousarray(change(p)) for p in pictures]
        line = f"{title:<26}"
        for name, label in rivals.items():
            labels = label(pictures + altered)
            hits = int((labels[:n] == labels[n:]).sum())
            pairs = sum(int(c) * (int(c) - 1) // 2 for c in np.unique(labels, return_counts=True)[1])
            wrong = pairs - hits
            line += f"{hits / n:.3f}, {wrong} false".rjust(22)
            found[name] = [found[name][0] + hits, found[name][1] + wrong, found[name][2] + n]
        print(line)
    for name, (hits, wrong, total) in found.items():
        print(f"{name}: recall {hits / total:.4f}, precision {hits / max(1, hits + wrong):.4f}")


def clips(folder: Path) -> None:
    """What `novel` keeps and what is merged within clips of one patient each."""
    thumbs, owner = [], []
    for number, path in enumerate(sorted(folder.rglob("*.mp4"))):
        reader = cv2.VideoCapture(str(path))
        frames = []
        while (step := reader.read())[0]:
            frames.append(cv2.cvtColor(step[1], cv2.COLOR_BGR2GRAY))
        for frame in frames[:: max(1, len(frames) // 12)]:
            h, w = frame.shape
            thumbs.append(duplicates.thumbnail(np.ascontiguousarray(frame[h // 6 : -h // 6, w // 6 : -w // 6])))
            owner.append(number)
    labels = duplicates.group(np.stack(thumbs))
    groups = [{owner[i] for i in np.flatnonzero(labels == label)} for label in np.unique(labels)]
    crossing = sum(len(g) > 1 for g in groups)
    print(f"{len(thumbs)} frames of {len(set(owner))} clips: {len(groups)} groups, {crossing} across different clips")


def speed(count: int) -> None:
    """CPU time of hash and index for made-up thumbnails, a tenth of them near-copies."""
    rng = np.random.default_rng(0)
    copies = np.arange(0, count - 1, 10)
    thumbs = np.empty((count, 32, 32), np.uint8)
    for number in range(count):
        field = cv2.GaussianBlur(rng.standard_normal((32, 32)).astype(np.float32), (0, 0), 1)
        thumbs[number] = np.clip(110 + 160 * field, 0, 255)
    noise = rng.normal(0, 4, (len(copies), 32, 32))
    thumbs[copies + 1] = np.clip(thumbs[copies] + noise, 0, 255).astype(np.uint8)
    start = time.process_time()
    labels = duplicates.group(thumbs)
    seconds = time.process_time() - start
    found = float((labels[copies] == labels[copies + 1]).mean())
    wrong = len(np.unique(labels)) - (count - len(copies))
    print(f"{count} pictures: {seconds:.1f} CPU s, {1e6 * seconds / count:.0f} us each", end="; ")
    print(f"copies found {found:.4f}, groups off by {wrong}")


def hashing() -> None:
    """CPU time of thumbnail and hash of one 800 x 600 picture against imagehash."""
    picture = np.random.default_rng(0).integers(0, 255, (600, 800), dtype=np.uint8)
    rows: dict[str, Callable[[], object]] = {"openus": lambda: duplicates.phash(duplicates.thumbnail(picture))}
    try:
        import imagehash
        from PIL import Image

        rows["imagehash.phash"] = lambda: imagehash.phash(Image.fromarray(picture))
    except ImportError:
        print("imagehash is not installed; its figure is left out")
    for name, action in rows.items():
        start = time.process_time()
        for _ in range(100):
            action()
        print(f"{name:<20}{10 * (time.process_time() - start):>8.3f} ms a picture")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("realdata", nargs="?", type=Path)
    parser.add_argument("--speed", type=int, nargs="*", default=[])
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    hashing()
    if chosen.realdata:
        quality(chosen.realdata)
        clips(chosen.realdata)
    for count in chosen.speed or [1000, 10000]:
        speed(count)


if __name__ == "__main__":
    main()
