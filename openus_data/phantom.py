"""Made-up ultrasound with exact truth: speckle scan-converted into a known scan area, under a scanner's interface.

    made = phantom(7, geometry="curvilinear", conditions=("dark_far", "ecg"))
    made.image, made.cone, made.text_boxes

For tests, benchmarks and examples; no patient was imaged. Speckle is the log-compressed magnitude of filtered complex
noise (fully developed speckle) times a tissue map with layers, cysts, bright interfaces, shadows and attenuation, on a
grid of depth and beam, carried to the screen by the inverse of the geometry. Everything follows from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Box, Cone, Geometry, Pixels, TextBox

CONDITIONS: Final = (
    "dark_far",  # attenuation swallows the deep part
    "edge_shadow",  # lost contact darkens one side
    "low_gain",
    "text_touching",  # words overlap the border
    "chrome",  # grey interface instead of black
    "white_page",  # a screenshot on a white page
    "ecg",  # a trace over the deep part
    "duplex",  # a spectral strip below
    "colour",  # a Doppler box
    "letterbox",  # black bars above and below
    "cropped",  # the frame cuts the scan area
    "inverted",  # the probe is below
    "jpeg",  # lossy, with ringing
)
_DEPTHS, _BEAMS = 256, 192
_PHRASES = (
    "DOE JANE",
    "12:31:05",
    "MI 1.1",
    "TIS 0.4",
    "C5-1",
    "Gn 60",
    "DR 65",
    "9.0 cm",
    "28Hz",
    "ID 00000",
    "Abdomen",
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_Rng = np.random.Generator
_Reals = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A made-up picture or clip.

    Args:
        frames: uint8 (T, H, W) or (T, H, W, 3); T is 1 for a still.
        inside: bool (H, W), pixels whose centre lies in the scan area.
        cone: the scan area, exact.
        text_boxes: where words were burned in.
        conditions: what was made difficult.
    """

    frames: Pixels
    inside: NDArray[np.bool_]
    cone: Cone
    text_boxes: tuple[TextBox, ...]
    conditions: tuple[str, ...]

    @property
    def image(self) -> Pixels:
        """The first frame: uint8 (H, W) or (H, W, 3)."""
        first: Pixels = self.frames[0]
        return first


def phantom(
    seed: int,
    *,
    geometry: Geometry = "curvilinear",
    width: int = 800,
    height: int = 600,
    frames: int = 1,
    conditions: Collection[str] = (),
    interface: bool = True,
) -> Phantom:
    """Make a picture or clip.

    Args:
        seed: decides all that the other arguments leave open.
        geometry: shape of the scan area; `none` gives a page without echo.
        width, height: of the frame, px; at least 96.
        frames: 1 for a still.
        conditions: of `CONDITIONS`.
        interface: draw words, bars and scales round the scan area.

    Raises:
        ValueError: an unknown condition, or a frame that is too small.
    """
    unknown = sorted(set(conditions) - set(CONDITIONS))
    if unknown or min(width, height) < 96:
        raise ValueError(
            f"Expected conditions of {CONDITIONS} and a frame of 96 px or more, got {unknown}, {width}x{height}"
        )
    rng = np.random.default_rng([seed, 20240])
    canvas = _Canvas(rng, width, height, frozenset(conditions))
    cones = [_place(rng, geometry, box, canvas) for box in canvas.panes(geometry)]
    for cone in cones:
        canvas.paint_echo(cone, frames)
    if interface:
        canvas.paint_interface(cones, frames)
    return canvas.finish(cones, geometry, frames)


# -- geometry ---------------------------------------------------------------------------------------------------------


def _place(rng: _Rng, geometry: Geometry, pane: Box, canvas: _Canvas) -> Cone:
    """A scan area of a geometry that fits a pane (the frame may cut it where asked)."""
    kind = geometry if geometry != "multi" else ("curvilinear" if canvas.both_curved else "linear")
    if kind == "full":
        return _cone("full", np.array(_corners(pane), np.float64), canvas, {})
    if kind in ("linear", "trapezoid"):
        return _straight(rng, kind, pane, canvas)
    return _fan(rng, kind, pane, canvas)


def _straight(rng: _Rng, kind: Geometry, pane: Box, canvas: _Canvas) -> Cone:
    x0, y0, x1, y1 = pane
    w, h = x1 - x0, y1 - y0
    inset_x, inset_y = rng.uniform(0.03, 0.2) * w, rng.uniform(0.01, 0.06) * h
    left, right, top, bottom = x0 + inset_x, x1 - inset_x, y0 + inset_y, y1 - inset_y
    narrow = 0.0 if kind == "linear" else rng.uniform(0.1, 0.24) * (right - left)
    corners = [(left + narrow, top), (right - narrow, top), (right, bottom), (left, bottom)]
    return _cone(kind, np.round(np.array(corners)), canvas, {})


def _fan(rng: _Rng, kind: Geometry, pane: Box, canvas: _Canvas) -> Cone:
    x0, y0, x1, y1 = pane
    w, h = x1 - x0, y1 - y0
    half = rng.uniform(0.55, 0.8) if kind == "sector" else rng.uniform(0.5, 0.95)
    ratio = rng.uniform(0.0, 0.06) if kind == "sector" else rng.uniform(0.2, 0.45)
    tall = 1 - ratio * math.cos(half)
    far = min(h * 0.96 / tall, w * 0.98 / (2 * math.sin(half)))
    if "cropped" in canvas.conditions:
        far *= rng.uniform(1.1, 1.3)
    near = ratio * far
    apex_x = (x0 + x1) / 2 + rng.uniform(-0.05, 0.05) * max(0.0, w - 2 * far * math.sin(half))
    apex_y = y0 + max(0.01 * h, (h - far * tall) / 2) - near * math.cos(half)
    if "inverted" in canvas.conditions:
        apex_y = y1 + y0 - apex_y
    down = -1.0 if "inverted" in canvas.conditions else 1.0
    angles = np.linspace(-half, half, 61)
    rays = np.stack([np.sin(angles), down * np.cos(angles)], 1)
    apex = np.array([apex_x, apex_y])
    outline = np.concatenate([apex + near * rays, (apex + far * rays)[::-1]])
    parameters = {
        "apex_x": apex_x,
        "apex_y": apex_y,
        "radius_near": near,
        "radius_far": far,
        "angle_left": -half,
        "angle_right": half,
        "inverted": float(down < 0),
    }
    return _cone(kind, outline, canvas, parameters)


def _corners(box: Box) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _cone(kind: Geometry, outline: NDArray[np.float64], canvas: _Canvas, parameters: dict[str, float]) -> Cone:
    cut = np.clip(outline, (0, 0), (canvas.width, canvas.height))
    (left, top), (right, bottom) = cut.min(axis=0), cut.max(axis=0)
    area = np.dot(cut[:, 0], np.roll(cut[:, 1], -1)) - np.dot(np.roll(cut[:, 0], -1), cut[:, 1])
    vertices = outline if area > 0 else outline[::-1]
    return Cone(
        geometry=kind,
        polygon=tuple((float(x), float(y)) for x, y in vertices),
        box=(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)),
        confidence=1.0,
        method="phantom",
        parameters=parameters,
    )


def _inside(cone: Cone, width: int, height: int) -> NDArray[np.bool_]:
    """Pixels whose centre lies in the scan area, by its equations rather than its vertices."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    p = cone.parameters
    if "apex_x" in p:
        down = -1.0 if p["inverted"] else 1.0
        radius, angle = (
            np.hypot(x - p["apex_x"], y - p["apex_y"]),
            np.arctan2(x - p["apex_x"], down * (y - p["apex_y"])),
        )
        ring = (radius >= p["radius_near"]) & (radius < p["radius_far"])
        fan: NDArray[np.bool_] = ring & (angle >= p["angle_left"]) & (angle < p["angle_right"])
        return fan
    (tl, top), (tr, _), (br, bottom), (bl, _) = cone.polygon
    share = (y - top) / (bottom - top)
    slab: NDArray[np.bool_] = (share >= 0) & (share < 1) & (x >= tl + (bl - tl) * share) & (x < tr + (br - tr) * share)
    return slab


# -- echo -------------------------------------------------------------------------------------------------------------


def _tissue(rng: _Rng, conditions: Collection[str]) -> _Reals:
    """Mean backscatter in dB on the grid (depths, beams)."""
    depth = np.linspace(0, 1, _DEPTHS, dtype=np.float32)[:, None]
    beam = np.linspace(-1, 1, _BEAMS, dtype=np.float32)[None]
    db = np.full((_DEPTHS, _BEAMS), -18.0, np.float32) + rng.uniform(-4, 4)
    for _ in range(rng.integers(2, 6)):
        edge = rng.uniform(0.03, 0.9) + rng.uniform(-0.1, 0.1) * beam + 0.02 * np.sin(7 * beam + rng.uniform(0, 6))
        db += np.where(depth > edge, rng.uniform(-7, 6), 0).astype(np.float32)
        db += (rng.uniform(5, 18) * np.exp(-(((depth - edge) / 0.006) ** 2))).astype(np.float32)
    for _ in range(rng.integers(0, 3)):
        cy, cx, ry, rx = rng.uniform(0.2, 0.8), rng.uniform(-0.8, 0.8), rng.uniform(0.04, 0.18), rng.uniform(0.08, 0.3)
        db[((depth - cy) / ry) ** 2 + ((beam - cx) / rx) ** 2 < 1] -= 60
    db -= (rng.uniform(2, 9) + (38 if "dark_far" in conditions else 0)) * depth
    for _ in range(rng.integers(0, 3)):
        at, half = rng.uniform(-0.9, 0.9), rng.uniform(0.02, 0.08)
        db -= np.where((np.abs(beam - at) < half) & (depth > rng.uniform(0.1, 0.5)), 14, 0).astype(np.float32)
    if "edge_shadow" in conditions:
        side = 1 if rng.random() < 0.5 else -1
        db -= (45 / (1 + np.exp(-(side * beam - rng.uniform(0.55, 0.75)) / 0.03))).astype(np.float32)
    return db - (12 if "low_gain" in conditions else 0)


def _speckle(rng: _Rng, tissue_db: _Reals) -> NDArray[np.uint8]:
    """Display levels on the grid: Rayleigh speckle over the tissue, log-compressed to 60 dB."""
    noise = rng.standard_normal((2, _DEPTHS, _BEAMS), np.float32)
    real, imaginary = (cv2.GaussianBlur(part, (0, 0), sigmaX=1.5, sigmaY=0.9) for part in noise)
    power = real**2 + imaginary**2
    power /= power.mean()
    received = power * np.power(10.0, tissue_db / 10) + 10 ** (rng.uniform(-6.4, -5.6))
    level = (10 * np.log10(received) + 60) * (255 / 60)
    shown: NDArray[np.uint8] = np.clip(level, 0, 255).astype(np.uint8)
    return shown


def _scan_maps(cone: Cone, width: int, height: int) -> tuple[_Reals, _Reals]:
    """For each pixel of the frame its beam and depth on the grid."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5)
    p = cone.parameters
    if "apex_x" in p:
        down = -1.0 if p["inverted"] else 1.0
        radius, angle = (
            np.hypot(x - p["apex_x"], y - p["apex_y"]),
            np.arctan2(x - p["apex_x"], down * (y - p["apex_y"])),
        )
        depth = (radius - p["radius_near"]) / (p["radius_far"] - p["radius_near"])
        beam = (angle - p["angle_left"]) / (p["angle_right"] - p["angle_left"])
    else:
        (tl, top), (tr, _), (br, bottom), (bl, _) = cone.polygon
        depth = (y - top) / (bottom - top)
        left, right = tl + (bl - tl) * depth, tr + (br - tr) * depth
        beam = (x - left) / (right - left)
    return (beam * (_BEAMS - 1)).astype(np.float32), (depth * (_DEPTHS - 1)).astype(np.float32)


# -- the frame --------------------------------------------------------------------------------------------------------


class _Canvas:
    """The frames being painted, and where words went."""

    def __init__(self, rng: _Rng, width: int, height: int, conditions: frozenset[str]) -> None:
        self.rng, self.width, self.height, self.conditions = rng, width, height, conditions
        self.both_curved = bool(rng.random() < 0.5)
        self.bar = int(height * rng.uniform(0.06, 0.12)) if "letterbox" in conditions else 0
        self.background = int(rng.integers(35, 75)) if "chrome" in conditions else 0
        self.page = 255 if "white_page" in conditions else self.background
        self.layers: list[tuple[Pixels, NDArray[np.bool_]]] = []
        self.words: list[TextBox] = []
        self.base = np.full((height, width), self.background, np.uint8)
        self.overlay: Pixels = np.zeros((1, height, width), np.uint8)

    def panes(self, geometry: Geometry) -> list[Box]:
        """Where scan areas go."""
        w, h = self.width, self.height
        if geometry == "none":
            return []
        if geometry == "full":
            return [(0, 0, w, h)]
        x0, y0, x1, y1 = int(0.14 * w), int(0.1 * h) + self.bar, int(0.9 * w), int(0.93 * h) - self.bar
        if "white_page" in self.conditions:
            x0, y0, x1, y1 = x0 + int(0.04 * w), y0 + int(0.04 * h), x1 - int(0.04 * w), y1 - int(0.04 * h)
        if "duplex" in self.conditions:
            y1 = int(0.6 * h)
        if geometry == "multi":
            middle = (x0 + x1) // 2
            return [(int(0.05 * w), y0, middle - int(0.01 * w), y1), (middle + int(0.01 * w), y0, int(0.95 * w), y1)]
        return [(x0, y0, x1, y1)]

    def paint_echo(self, cone: Cone, frames: int) -> None:
        """Speckle in a scan area; in clips the speckle is redrawn and the tissue moves a little."""
        inside = _inside(cone, self.width, self.height)
        maps = _scan_maps(cone, self.width, self.height)
        tissue = _tissue(self.rng, self.conditions)
        painted = []
        for t in range(frames):
            moved = np.roll(tissue, round(2 * math.sin(t / 3)), axis=0)
            grid = _speckle(self.rng, moved)
            painted.append(cv2.remap(grid, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        self.layers.append((np.stack(painted), inside))

    def paint_interface(self, cones: list[Cone], frames: int) -> None:
        """Words, a grey bar, a depth scale, and what the conditions ask for."""
        w, h, rng = self.width, self.height, self.rng
        self.overlay = np.zeros((frames, h, w), np.uint8)
        size = max(0.28, h / 1300)
        if self.page != self.background:
            rim = int(0.03 * min(w, h))
            page = np.ones((h, w), np.bool_)
            page[rim : h - rim, rim : w - rim] = False
            self.base[page] = self.page
        rows = range(int(0.05 * h) + self.bar, int(0.75 * h), max(12, int(0.05 * h)))
        for row in list(rows)[: int(rng.integers(3, 11))]:
            self._word(str(rng.choice(_PHRASES)), (int(0.035 * w), row), size * 0.9)
        self._word("SYNTHETIC " + str(rng.choice(_PHRASES)), (int(0.4 * w), int(0.055 * h) + self.bar), size)
        bar_x, top, bottom = int(0.945 * w), int(0.15 * h), int(0.4 * h)
        ramp = np.linspace(255, 1, bottom - top).astype(np.uint8)[:, None]
        self.overlay[:, top:bottom, bar_x : bar_x + max(3, w // 60)] = ramp
        for y in np.linspace(0.12 * h + self.bar, 0.9 * h - self.bar, 9).astype(int):
            self.overlay[:, y : y + max(1, h // 400), int(0.925 * w) : int(0.935 * w)] = 200
        if "text_touching" in self.conditions and cones:
            self._touch(cones[0], size)
        if "ecg" in self.conditions:
            self._trace(int(0.88 * h) - self.bar, 0.07 * h, frames)
        if "duplex" in self.conditions:
            self._spectrum(frames)

    def _word(self, text: str, at: tuple[int, int], size: float) -> None:
        thick = max(1, round(size * 1.6))
        (tw, th), below = cv2.getTextSize(text, _FONT, size, thick)
        for frame in self.overlay:
            cv2.putText(frame, text, at, _FONT, size, 235, thick, cv2.LINE_AA)
        x0, y0 = max(0, at[0] - 1), max(0, at[1] - th - 1)
        x1, y1 = min(self.width, at[0] + tw + 1), min(self.height, at[1] + below)
        if x1 > x0 and y1 > y0:
            self.words.append(TextBox(box=(x0, y0, x1, y1), score=1.0, detector="phantom"))

    def _touch(self, cone: Cone, size: float) -> None:
        x0, y0, x1, y1 = cone.box
        self._word("LIVER RT", (x0 - int(0.03 * self.width), y0 + int(0.45 * (y1 - y0))), size * 1.3)
        self._word("SAG", (x1 - int(0.06 * self.width), y0 + int(0.3 * (y1 - y0))), size * 1.3)

    def _trace(self, y: int, tall: float, frames: int) -> None:
        x = np.arange(int(0.1 * self.width), int(0.85 * self.width))
        for t, frame in enumerate(self.overlay[:frames]):
            beat = ((x + 5 * t) % 140) / 140
            wave = tall * (np.exp(-(((beat - 0.5) / 0.02) ** 2)) + 0.2 * np.exp(-(((beat - 0.7) / 0.06) ** 2)))
            points = np.stack([x, y - wave], 1).astype(np.int32)
            cv2.polylines(frame, [points], False, 210, 1, cv2.LINE_AA)

    def _spectrum(self, frames: int) -> None:
        x0, x1, y0, y1 = int(0.06 * self.width), int(0.9 * self.width), int(0.66 * self.height), int(0.9 * self.height)
        x, y = np.arange(x1 - x0)[None], np.arange(y1 - y0)[:, None] / (y1 - y0)
        envelope = 0.25 + 0.5 * np.abs(np.sin(x / 45.0)) ** 3
        body = (1 - y < envelope) * self.rng.rayleigh(60, (y1 - y0, x1 - x0))
        self.overlay[:frames, y0:y1, x0:x1] = np.clip(body, 0, 255).astype(np.uint8)

    def finish(self, cones: list[Cone], geometry: Geometry, frames: int) -> Phantom:
        """Put the layers together."""
        inside = np.zeros((self.height, self.width), np.bool_)
        picture = np.repeat(self.base[None], frames, axis=0)
        for painted, mask in self.layers:
            picture[:, mask] = painted[:, mask]
            inside |= mask
        overlay = self.overlay if len(self.overlay) == frames else np.repeat(self.overlay, frames, axis=0)
        picture = np.maximum(picture, overlay)
        if self.bar:
            picture[:, : self.bar], picture[:, self.height - self.bar :] = 0, 0
            inside[: self.bar], inside[self.height - self.bar :] = False, False
        if "colour" in self.conditions and cones:
            picture = self._doppler(picture, self.layers[0][1] & inside)
        if "jpeg" in self.conditions:
            picture = np.stack([_lossy(frame) for frame in picture])
        return Phantom(
            frames=picture,
            inside=inside,
            cone=_whole(cones, geometry, self.width, self.height),
            text_boxes=tuple(self.words),
            conditions=tuple(name for name in CONDITIONS if name in self.conditions),
        )

    def _doppler(self, picture: Pixels, inside: NDArray[np.bool_]) -> Pixels:
        rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        y0, y1 = (int(rows[0] + share * len(rows)) for share in (0.35, 0.7))
        x0, x1 = (int(cols[0] + share * len(cols)) for share in (0.4, 0.65))
        colour = np.repeat(picture[..., None], 3, axis=-1)
        flow = np.zeros((y1 - y0, x1 - x0), np.bool_)
        flow[(y1 - y0) // 3 : (y1 - y0) // 2, 5:-5] = True
        colour[:, y0:y1, x0:x1][:, flow] = (220, 60, 10)
        for frame in colour:
            cv2.rectangle(frame, (x0, y0), (x1, y1), (240, 240, 60), 1)
        return colour


def _lossy(frame: Pixels) -> Pixels:
    coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)


def _whole(cones: list[Cone], geometry: Geometry, width: int, height: int) -> Cone:
    if not cones:
        return Cone(geometry="none", polygon=(), box=(0, 0, 0, 0), confidence=1.0, method="phantom")
    if geometry != "multi":
        return cones[0]
    boxes = np.array([cone.box for cone in cones])
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    box = (max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))
    polygon = tuple(_corners(box))
    return replace(cones[0], geometry="multi", polygon=polygon, box=box, parameters={}, panels=tuple(cones))
