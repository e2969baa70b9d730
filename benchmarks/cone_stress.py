"""Real frames changed the way other machines, screens and archives change them, with the truth changed alike.

    python benchmarks/cone.py            # a row per change, in the robustness table

A change takes a picture uint8 (H, W, 3) with its truth bool
(H, W) and gives both anew. What is random follows from the case's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Truth = NDArray[np.bool_]
Change = Callable[[Picture, Truth, np.random.Generator], tuple[Picture, Truth]]
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def changed(name: str, picture: Picture, inside: Truth, case: str) -> tuple[Picture, Truth]:
    """One of `CHANGES`, applied."""
    image, truth = CHANGES[name](picture.copy(), inside.copy(), np.random.default_rng(zlib.crc32(case.encode())))
    return np.ascontiguousarray(image), np.ascontiguousarray(truth)


def _upside_down(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
    return image[::-1], inside[::-1]


def _mirrored(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
    return image[:, ::-1], inside[:, ::-1]


def _letterboxed(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    rows, cols = (int(share * side) for share, side in zip(rng.uniform(0.05, 0.2, 2), image.shape[:2], strict=True))
    edges = ((rows, rows), (cols // 2, cols))
    return np.pad(image, (*edges, (0, 0))), np.pad(inside, edges)


def _screenshot(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    """On the page of a viewer: a light margin, a title bar and a grey panel of buttons."""
    rim = int(0.06 * max(image.shape[:2]))
    edges = ((2 * rim, rim), (rim, 4 * rim))
    light = int(rng.integers(200, 246))
    page = np.pad(image, (*edges, (0, 0)), constant_values=light)
    cv2.putText(
        page, "Viewer - study 1 of 4", (rim, rim), _FONT, rim / 40, (30, 30, 30), max(1, rim // 20), cv2.LINE_AA
    )
    for row in range(2 * rim, page.shape[0] - 2 * rim, int(1.6 * rim) + 1):
        cv2.rectangle(page, (page.shape[1] - 3 * rim, row), (page.shape[1] - rim, row + rim), (120, 140, 170), -1)
    return page, np.pad(inside, edges)


def _recoloured(level: int) -> Change:
    """The interface's black at another level; the echo as it was."""

    def change(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
        dark = (image.max(axis=2) < 24) & ~inside
        image[dark] = level
        return image, inside

    return change


def _gain(factor: float) -> Change:
    def change(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
        return np.clip(image * factor, 0, 255).astype(np.uint8), inside

    return change


def _jpeg(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8), inside


def _sized(longest: int) -> Change:
    def change(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
        scale = longest / max(image.shape[:2])
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=way), np.uint8)
        truth = cv2.resize(inside.astype(np.float32), small.shape[1::-1], interpolation=way)
        return small, truth >= 0.5

    return change


def _noisy(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    """A frame grabber's noise, interface included."""
    noise = rng.normal(0, 2.5, image.shape[:2])[..., None]
    return np.clip(image + noise, 0, 255).astype(np.uint8), inside


def _worded(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    """Four labels, each across the border."""
    border = np.argwhere(inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_))
    size = max(0.35, image.shape[0] / 700)
    for word in ("LIVER", "RT KIDNEY", "SAG 2", "4.21 cm"):
        row, col = border[rng.integers(len(border))]
        (width, _), _ = cv2.getTextSize(word, _FONT, size, 1)
        at = int(col) - width // 2, int(row) + 5
        cv2.putText(image, word, at, _FONT, size, (240, 240, 160), max(1, round(size * 1.5)), cv2.LINE_AA)
    return image, inside


def _traced(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    """An ECG across the frame, over the deep part of the echo."""
    rows = np.flatnonzero(inside.any(axis=1))
    base, tall = rows[0] + 0.88 * len(rows), 0.07 * len(rows)
    x = np.arange(image.shape[1])
    beat = (x % (image.shape[1] / 5.5)) / (image.shape[1] / 5.5)
    y = base - tall * np.exp(-(((beat - rng.uniform(0.3, 0.7)) / 0.02) ** 2))
    cv2.polylines(image, [np.stack([x, y], 1).astype(np.int32)], False, (60, 230, 60), 1, cv2.LINE_AA)
    return image, inside


def _barred(image: Picture, inside: Truth, _: np.random.Generator) -> tuple[Picture, Truth]:
    """A colour bar that overlaps the right border by half its width."""
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, tall = rows[0] + len(rows) // 10, len(rows) // 3
    wide = max(4, image.shape[1] // 45)
    left = min(int(cols[-1]) - wide // 2, image.shape[1] - wide)
    ramp = np.linspace(255, 0, tall)[:, None] * np.array([[1.0, 0.6, 0.2]])
    image[top : top + tall, left : left + wide] = ramp[:, None].astype(np.uint8)
    return image, inside


def _cut(image: Picture, inside: Truth, rng: np.random.Generator) -> tuple[Picture, Truth]:
    """One side of the frame cut off, a tenth of the echo's extent within it."""
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    side = int(rng.integers(4))
    if side == 0:
        return image[: rows[-1] - len(rows) // 10], inside[: rows[-1] - len(rows) // 10]
    if side == 1:
        return image[rows[0] + len(rows) // 10 :], inside[rows[0] + len(rows) // 10 :]
    if side == 2:
        return image[:, : cols[-1] - len(cols) // 10], inside[:, : cols[-1] - len(cols) // 10]
    return image[:, cols[0] + len(cols) // 10 :], inside[:, cols[0] + len(cols) // 10 :]


CHANGES: dict[str, Change] = {
    "upside down": _upside_down,
    "mirrored": _mirrored,
    "letterboxed": _letterboxed,
    "screenshot": _screenshot,
    "grey interface": _recoloured(70),
    "white interface": _recoloured(255),
    "gain 0.4": _gain(0.4),
    "gain 1.6": _gain(1.6),
    "JPEG quality 20": _jpeg,
    "noise": _noisy,
    "200 px": _sized(200),
    "1920 px": _sized(1920),
    "words over the border": _worded,
    "ECG over the echo": _traced,
    "colour bar over the border": _barred,
    "cut by the frame": _cut,
}
