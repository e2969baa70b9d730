"""Text laid over real ultrasound inside hand-drawn scan areas: the scenes of `benchmarks/text.py`.

Needs `realdata/` beside the checkout (or in OPENUS_SHARED), which is not part of the project.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from text_strings import COLOURS, OTHER_FONTS, Fonts, rendered, stamped, words

from openus_data.phantom import phantom
from openus_data.records import Geometry

CAP_HEIGHTS_PX = (8, 12, 20)
PLACES = ("speckle", "black", "boxed")
MOST_SIDE_PX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A real picture without text of its own inside the looked-at area.

    Args:
        source: folder it came from, for cross-validation.
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        inside: bool (H, W): the hand-drawn scan area less every annotated overlay.
    """

    source: str
    pixels: NDArray[np.uint8]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture with one string on it.

    Args:
        picture: what is below.
        pixels: with the string.
        strokes: bool (H, W), pixels that the string covers by more than a third.
        seen: by how many levels the letters stand out of their ground (tissue, outline or box), int (H, W).
        box: half-open box (x0, y0, x1, y1) of the string.
        cap_px: height of a capital letter.
        place: speckle, black or boxed.
        text: what stands there.
    """

    picture: Picture
    pixels: NDArray[np.uint8]
    strokes: NDArray[np.bool_]
    seen: NDArray[np.int16]
    box: tuple[int, int, int, int]
    cap_px: int
    place: str
    text: str


def real_pictures() -> list[Picture]:
    """Every annotated picture with a scan area, at most `MOST_SIDE_PX` wide and high."""
    default = Path(__file__).resolve().parents[2] / "shared"
    root = Path(os.environ.get("OPENUS_SHARED", default)) / "realdata"
    entries = json.loads((root / "annotations.json").read_text())["images"]
    return [p for entry in entries if (p := _picture(root, entry)) is not None]


def _picture(root: Path, entry: dict[str, object]) -> Picture | None:
    path = root / (str(entry["frame_png"]) if entry.get("frame_png") else str(entry["file"]))
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return None
    inside = np.zeros(image.shape[:2], np.uint8)
    for cone in entry["cones"]:  # type: ignore[attr-defined]
        cv2.fillPoly(inside, [np.round(np.asarray(cone["polygon"])).astype(np.int32)], 1)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=0)
    for box in entry["text_boxes"]:  # type: ignore[attr-defined]
        x0, y0, x1, y1 = box["box"] if "box" in box else box["bbox"]
        inside[max(0, int(y0) - 8) : int(y1) + 8, max(0, int(x0) - 8) : int(x1) + 8] = 0
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    grey = bool(np.all(pixels.max(axis=2) - pixels.min(axis=2) < 6))
    source = str(entry["file"]).split("/")[1]
    picture = Picture(source=source, pixels=pixels[..., 0].copy() if grey else pixels, inside=inside.astype(bool))
    return scaled(picture, min(1.0, MOST_SIDE_PX / max(inside.shape)))


def phantoms(count: int) -> list[Picture]:
    """Made-up speckle without any text: more text-free ground of many looks."""
    kinds: tuple[Geometry, ...] = ("curvilinear", "sector", "linear", "trapezoid")
    looks = ((), ("low_gain",), ("edge_shadow",), ("dark_far",), ("jpeg",))
    made = []
    for seed in range(count):
        one = phantom(
            5000 + seed, geometry=kinds[seed % 4], width=640, height=480, conditions=looks[seed % 5], interface=False
        )
        inside = one.inside.copy()
        for word in one.text_boxes:
            x0, y0, x1, y1 = word.box
            inside[max(0, y0 - 8) : y1 + 8, max(0, x0 - 8) : x1 + 8] = False
        made.append(Picture(source="phantom", pixels=one.image, inside=inside))
    return made


def scaled(picture: Picture, factor: float) -> Picture:
    """The picture at another size."""
    if factor == 1.0:
        return picture
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(picture.pixels, None, fx=factor, fy=factor, interpolation=kind)
    size = pixels.shape[1::-1]
    inside = cv2.resize(picture.inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    return Picture(source=picture.source, pixels=pixels, inside=inside)


def varied(picture: Picture, rng: np.random.Generator) -> Picture:
    """Another size, gain, contrast curve and sharpness: what another machine or export would have shown."""
    picture = scaled(picture, float(rng.uniform(0.6, 1.15)))
    curve = (np.arange(256) / 255) ** rng.uniform(0.7, 1.5) * 255 * rng.uniform(0.8, 1.2)
    pixels = cv2.LUT(picture.pixels, np.clip(curve, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, 1.0)))
    elif rng.random() < 0.5:
        pixels = cv2.addWeighted(pixels, 1.6, cv2.GaussianBlur(pixels, (0, 0), 1.0), -0.6, 0)
    return Picture(source=picture.source, pixels=np.asarray(pixels), inside=picture.inside)


def compressed(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """After a round of JPEG."""
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), dtype=np.uint8)


def with_flow(picture: Picture, rng: np.random.Generator) -> Picture:
    """Made-up colour or power Doppler over a part of the scan area: blobs or branches of many hues, a colour bar."""
    height, width = picture.inside.shape
    speed = _noise(rng, (height, width), rng.uniform(5, 22))
    if rng.random() < 0.5:  # branches: bands around the lines where the noise changes its sign
        band = 1 - np.abs(speed) / rng.uniform(0.04, 0.2)
        speed = np.where(band > 0, band, 0) * np.sign(_noise(rng, (height, width), 40.0))
    fine = _noise(rng, (height, width), rng.uniform(0.7, 3))
    speed = np.clip(1.3 * speed + 0.3 * fine * (np.abs(speed) > 0.2), -1, 1)
    window = np.zeros_like(picture.inside)
    y, x = int(rng.integers(height // 2)), int(rng.integers(width // 2))
    window[y : y + height // 2, x : x + width // 2] = True
    is_flow = (np.abs(speed) > rng.uniform(0.25, 0.5)) & window & picture.inside
    table = _flow_table(rng)
    out = _in_colour(picture.pixels).copy()
    out[is_flow] = table[np.round((speed[is_flow] + 1) * 127.5).astype(np.uint8)]
    bar = cv2.resize(table[:, None], (12, max(20, height // 4)), interpolation=cv2.INTER_LINEAR)
    out[4 : 4 + len(bar), 4:16] = bar[: height - 4]
    return Picture(source=picture.source, pixels=out, inside=picture.inside)


def _noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> NDArray[np.float32]:
    """Smooth noise in [-1, 1]."""
    made = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), sigma)
    return np.asarray(made / max(1e-6, float(np.abs(made).max())), np.float32)


def _flow_table(rng: np.random.Generator) -> NDArray[np.uint8]:
    """256 colours from fast away to fast towards; power Doppler has one half for both."""
    stops = np.array([(120, 255, 255), (0, 90, 255), (0, 0, 90), (90, 0, 0), (255, 60, 0), (255, 255, 110)], float)
    if rng.random() < 0.5:
        stops = np.array(
            [(255, 240, 140), (255, 130, 20), (130, 30, 10), (130, 30, 10), (255, 130, 20), (255, 240, 140)]
        )
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, k]) for k in range(3)], axis=1).astype(np.uint8)


def scenes(
    pictures: list[Picture],
    per_picture: int,
    seed: int = 0,
    *,
    fonts: Fonts = OTHER_FONTS,
    caps: tuple[int, ...] = CAP_HEIGHTS_PX,
) -> Iterator[Scene]:
    """Strings over pictures: heights and places in turn, where they fit."""
    rng = np.random.default_rng(seed)
    for picture in pictures:
        made = 0
        for attempt in range(6 * per_picture):
            cap = caps[attempt % len(caps)]
            scene = _scene(rng, picture, cap, PLACES[int(rng.integers(3))], fonts)
            if scene is not None:
                made += 1
                yield scene
            if made >= per_picture:
                break


def _scene(rng: np.random.Generator, picture: Picture, cap: int, place: str, fonts: Fonts) -> Scene | None:
    text = words(rng)
    stamp = rendered(rng, text, cap, fonts)
    h, w = stamp.shape
    height, width = picture.inside.shape
    if h >= height or w >= width:
        return None
    level = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.max(axis=2)
    for _ in range(30):
        y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        here = np.s_[y : y + h, x : x + w]
        colour = np.asarray(COLOURS[int(rng.integers(len(COLOURS)))], np.float32)
        is_free = picture.inside[here].all()
        if not is_free or not _fits(float(level[here].mean()), float(colour.max()), place):
            continue
        under = _in_colour(picture.pixels[here]).astype(np.float32)
        if picture.pixels.ndim == 2:
            colour = np.full(3, colour.max(), np.float32)
        shown, ground = (_like(picture.pixels, p) for p in stamped(rng, under, stamp, colour, place))
        pixels, strokes, seen = picture.pixels.copy(), np.zeros(level.shape, bool), np.zeros(level.shape, np.int16)
        pixels[here], strokes[here], seen[here] = shown, stamp > 0.35, difference(shown, ground)
        box = (x, y, x + w, y + h)
        return Scene(
            picture=picture, pixels=pixels, strokes=strokes, seen=seen, box=box, cap_px=cap, place=place, text=text
        )
    return None


def _fits(under: float, brightest: float, place: str) -> bool:
    """Whether the ground is what the place asks for, and the string can be read on it."""
    return under <= 12 if place == "black" else 25 <= under <= brightest - 70


def _in_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def _like(pixels: NDArray[np.uint8], piece: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A piece in colour as bytes, grey where the picture is."""
    whole = piece.round().astype(np.uint8)
    return whole if pixels.ndim == 3 else whole.max(axis=2)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Greatest difference of a channel, (h, w)."""
    apart = np.abs(one.astype(np.int16) - other)
    return np.asarray(apart if apart.ndim == 2 else apart.max(axis=2))
