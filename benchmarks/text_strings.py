"""Made-up overlay strings: what scanners and annotators write, in their fonts, colours, outlines and boxes.

    text = words(rng)
    coverage = rendered(rng, text, cap_px=8, fonts=TRAINING_FONTS)      # float (h, w) in [0, 1]

Two sets of fonts, so that a gate can be tested on fonts that it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WORDS: Final = (
    *("SMITH", "JANE", "DOE", "MUELLER", "Garcia", "Dr Chen", "ID", "MRN", "DOB", "Hospital", "St Mary", "Lee", "F 54"),
    *("Liver", "LT KID", "SAG", "1 D 2.31 cm", "MI 1.1", "TIS 0.4", "C5-1", "28Hz", "Gn 60", "OBGYN", "Patient", "LT"),
    *("OKONKWO", "Nguyen, T", "born", "Acc#", "RT LOBE", "TRANS", "Vol", "HR 72 bpm", "FR 41", "Exam", "ward", "M 7"),
)
COLOURS: Final = (
    *((255, 255, 255), (255, 255, 0), (0, 255, 255), (90, 255, 90), (255, 170, 60), (205, 205, 205)),
    *((0, 255, 0), (255, 165, 0), (255, 230, 140), (180, 220, 255)),
)
_FOLDER: Final = Path("/usr/share/fonts/truetype")
_Coverage = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fonts:
    """Fonts to draw from.

    Args:
        hershey: of `cv2.putText`.
        truetype: paths below the folder of fonts; those that are not there are left out.
        has_default: whether Pillow's own font is one of them.
    """

    hershey: tuple[int, ...]
    truetype: tuple[str, ...]
    has_default: bool

    def installed(self) -> list[str]:
        """Paths of the TrueType fonts that are there."""
        return [str(_FOLDER / name) for name in self.truetype if (_FOLDER / name).is_file()]


TRAINING_FONTS: Final = Fonts(
    hershey=(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN),
    truetype=(
        *("dejavu/DejaVuSans.ttf", "dejavu/DejaVuSansMono.ttf", "liberation/LiberationSans-Bold.ttf"),
        *("liberation/LiberationSans-Regular.ttf", "liberation/LiberationSerif-Regular.ttf"),
    ),
    has_default=True,
)
OTHER_FONTS: Final = Fonts(
    hershey=(cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_TRIPLEX),
    truetype=(
        *("dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSansCondensed.ttf", "dejavu/DejaVuSansMono-Bold.ttf"),
        *("liberation/LiberationMono-Regular.ttf", "liberation/LiberationSansNarrow-Regular.ttf"),
        *("liberation/LiberationSans-Italic.ttf", "dejavu/DejaVuSerif.ttf"),
    ),
    has_default=False,
)


def words(rng: np.random.Generator) -> str:
    """A name, a label, a number, a date or a time."""
    kind = int(rng.integers(5))
    text = " ".join(str(word) for word in rng.choice(WORDS, int(rng.integers(1, 3))))
    if kind == 1:
        return f"{text} {rng.integers(10**5, 10**8)}"
    if kind == 2:
        return f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1930, 2024)}"
    if kind == 3:
        return f"{text} {rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}"
    return text


def rendered(rng: np.random.Generator, text: str, cap_px: int, fonts: Fonts) -> _Coverage:
    """The text as coverage in [0, 1], float (h, w), with a margin of two pixels."""
    installed = fonts.installed()
    drawn = rng.random()
    if installed and drawn < 0.5:
        return _truetype(text, ImageFont.truetype(str(rng.choice(installed)), round(cap_px / 0.72)))
    if fonts.has_default and drawn < 0.65:
        return _truetype(text, ImageFont.load_default(round(cap_px / 0.72)))
    return _hershey(rng, text, cap_px, int(rng.choice(fonts.hershey)))


def stamped(
    rng: np.random.Generator, area: NDArray[np.float32], coverage: _Coverage, colour: NDArray[np.float32], place: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A piece of a picture, float (h, w, 3), with the string on it, and the same with its box or outline alone.

    A box is dark, see-through, coloured, or light with dark words; a string without a box may have a dark outline or a
    shadow.
    """
    drawn = rng.random()
    if place == "boxed":
        if drawn < 0.2:
            area, colour = np.full_like(area, rng.integers(170, 246)), np.full(3, 10, np.float32)
        elif drawn < 0.4:
            area = area * 0.35
        elif drawn < 0.5:
            area = np.broadcast_to(np.array((20, 40, 110), np.float32), area.shape)
        else:
            area = np.full_like(area, rng.integers(0, 40))
    elif drawn < 0.3:
        area = area * (1 - 0.9 * cv2.dilate(coverage, np.ones((3, 3), np.uint8))[..., None])
    elif drawn < 0.4:
        area = area * (1 - np.roll(coverage, (1, 1), axis=(0, 1))[..., None])
    return area + (colour - area) * coverage[..., None], area


def _truetype(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> _Coverage:
    box = font.getbbox(text)
    canvas = Image.new("L", (int(box[2]) + 5, int(box[3]) + 5))
    ImageDraw.Draw(canvas).text((2, 2), text, 255, font=font)
    coverage = np.asarray(canvas, np.float32) / 255
    rows = np.flatnonzero(coverage.max(axis=1) > 0)
    return np.asarray(coverage[max(0, rows[0] - 2) : rows[-1] + 3], np.float32)


def _hershey(rng: np.random.Generator, text: str, cap_px: int, face: int) -> _Coverage:
    thick = 2 if cap_px >= 20 or (cap_px >= 12 and rng.random() < 0.3) else 1
    edge = cv2.LINE_AA if rng.random() < 0.6 else cv2.LINE_8
    scale = cap_px / cv2.getTextSize("H", face, 1.0, 1)[0][1]
    (w, h), base = cv2.getTextSize(text, face, scale, thick)
    canvas = np.zeros((h + base + 6, w + 6), np.uint8)
    cv2.putText(canvas, text, (3, h + 3), face, scale, 255, thick, edge)
    coverage = canvas.astype(np.float32) / 255
    rows = np.flatnonzero(coverage.max(axis=1) > 0)
    return np.asarray(coverage[max(0, rows[0] - 2) : rows[-1] + 3], np.float32)
