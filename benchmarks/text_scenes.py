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
from PIL import Image, ImageDraw, ImageFont

from openus_data.phantom import phantom
from openus_data.records import Geometry

WORDS = (
    *(
        "SMITH",
        "JANE",
        "DOE",
        "MUELLER",
        "Garcia",
        "Dr Chen",
        "ID",
        "MRN",
        "DOB",
        "Hospital",
        "St Mary",
        "Lee",
        "F",
        "M",
    ),
    *(
        "Liver",
        "LT KID",
        "SAG",
        "1 D 2.31 cm",
        "MI 1.1",
        "TIS 0.4",
        "C5-1",
        "28Hz",
        "Gn 60",
        "OBGYN",
        "Patient",
        "ward",
    ),
)
COLOURS = ((255, 255, 255), (255, 255, 0), (0, 255, 255), (90, 255, 90), (255, 170, 60), (205, 205, 205))
CAP_HEIGHTS_PX = (8, 12, 20)
PLACES = ("speckle", "black", "boxed")
MOST_SIDE_PX = 1000
HERSHEY = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN)
_FONT_FOLDER = Path("/usr/share/fonts/truetype")
_FONT_NAMES = ("dejavu/DejaVuSans.ttf", "dejavu/DejaVuSansMono.ttf", "liberation/LiberationSans-Bold.ttf")
TRUETYPE = tuple(str(_FONT_FOLDER / name) for name in _FONT_NAMES if (_FONT_FOLDER / name).is_file())


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
        box: half-open box (x0, y0, x1, y1) of the string.
        cap_px: height of a capital letter.
        place: speckle, black or boxed.
    """

    picture: Picture
    pixels: NDArray[np.uint8]
    strokes: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    cap_px: int
    place: str


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


def scenes(pictures: list[Picture], per_picture: int, seed: int = 0) -> Iterator[Scene]:
    """Strings over pictures: each combination of height and place in turn, where it fits."""
    rng = np.random.default_rng(seed)
    for picture in pictures:
        made = 0
        for attempt in range(6 * per_picture):
            scene = _scene(rng, picture, CAP_HEIGHTS_PX[attempt % 3], PLACES[int(rng.integers(3))])
            if scene is not None:
                made += 1
                yield scene
            if made >= per_picture:
                break


def _scene(rng: np.random.Generator, picture: Picture, cap: int, place: str) -> Scene | None:
    stamp = render(rng, cap)
    h, w = stamp.shape
    height, width = picture.inside.shape
    if h >= height or w >= width:
        return None
    level = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.max(axis=2)
    for _ in range(30):
        y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        under = level[y : y + h, x : x + w]
        colour = np.asarray(COLOURS[int(rng.integers(len(COLOURS)))], np.float32)
        if not picture.inside[y : y + h, x : x + w].all() or not _fits(float(under.mean()), float(colour.max()), place):
            continue
        pixels = _stamped(rng, picture.pixels, stamp, (y, x), colour, place)
        strokes = np.zeros(level.shape, bool)
        strokes[y : y + h, x : x + w] = stamp > 0.35
        box = (x, y, x + w, y + h)
        return Scene(picture=picture, pixels=pixels, strokes=strokes, box=box, cap_px=cap, place=place)
    return None


def _fits(under: float, brightest: float, place: str) -> bool:
    """Whether the ground is what the place asks for, and the string can be read on it."""
    return under <= 12 if place == "black" else 25 <= under <= brightest - 70


def _stamped(
    rng: np.random.Generator,
    pixels: NDArray[np.uint8],
    stamp: NDArray[np.float32],
    corner: tuple[int, int],
    colour: NDArray[np.float32],
    place: str,
) -> NDArray[np.uint8]:
    """The picture with the string on it; some boxes are light with dark words, some words have a dark outline."""
    y, x = corner
    h, w = stamp.shape
    out = (pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)).astype(np.float32)
    area = out[y : y + h, x : x + w]
    if place == "boxed":
        is_light = rng.random() < 0.2
        area[:] = 225 if is_light else 12
        colour = np.full(3, 10, np.float32) if is_light else colour
    elif rng.random() < 0.3:
        area *= 1 - 0.85 * cv2.dilate(stamp, np.ones((3, 3), np.uint8))[..., None]
    if pixels.ndim == 2:
        colour = np.full(3, colour.max(), np.float32)
    area[:] = area * (1 - stamp[..., None]) + colour * stamp[..., None]
    whole = out.round().astype(np.uint8)
    return np.ascontiguousarray(whole[..., 0]) if pixels.ndim == 2 else whole


def render(rng: np.random.Generator, cap: int) -> NDArray[np.float32]:
    """A string as coverage in [0, 1], with a margin of two pixels."""
    kind = int(rng.integers(4))
    text = " ".join(str(rng.choice(WORDS)) for _ in range(int(rng.integers(1, 3))))
    if kind == 1:
        text += f" {rng.integers(10**5, 10**8)}"
    elif kind == 2:
        text = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1930, 2024)}"
    elif kind == 3:
        text = f"{text} {rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}"
    if TRUETYPE and rng.random() < 0.5:
        font = ImageFont.truetype(str(rng.choice(TRUETYPE)), round(cap / 0.72))
    elif rng.random() < 0.5:
        font = ImageFont.load_default(round(cap / 0.72))
    else:
        return _hershey(text, cap, HERSHEY[int(rng.integers(3))])
    box = font.getbbox(text)
    canvas = Image.new("L", (int(box[2]) + 5, int(box[3]) + 5))
    ImageDraw.Draw(canvas).text((2, 2), text, 255, font=font)
    coverage = np.asarray(canvas, np.float32) / 255
    rows = np.flatnonzero(coverage.max(axis=1) > 0)
    return coverage[max(0, rows[0] - 2) : rows[-1] + 3]


def _hershey(text: str, cap: int, face: int) -> NDArray[np.float32]:
    thick = 2 if cap >= 20 else 1
    scale = cap / cv2.getTextSize("H", face, 1.0, 1)[0][1]
    (w, h), base = cv2.getTextSize(text, face, scale, thick)
    canvas = np.zeros((h + base + 6, w + 6), np.uint8)
    cv2.putText(canvas, text, (3, h + 3), face, scale, 255, thick, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255
