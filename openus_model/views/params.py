"""What happens to one view, drawn before any pixel is touched.

A view is replayed exactly from its `ViewParams`. Draws follow torchvision's RandomResizedCrop and ColorJitter, so that
the distributions are those of the iBOT pipeline; the order of the draws is our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class UltrasoundChanges:
    """Changes that follow from how ultrasound is made; all off by default.

    Args:
        gain_db: largest overall gain change in dB of the displayed range (60 dB over 255 levels); 0 is off.
        tgc_db: largest change at a single depth of a smooth time-gain curve, in dB; 0 is off.
        attenuation_db: largest extra loss at the far edge, growing linearly with depth, in dB; 0 is off.
        lateral_blur_px: largest sigma of a blur across beams only, which widens speckle as a wider beam does and
            keeps its axial structure; replaces the isotropic blur when above 0.
        prob: chance of gain, TGC and attenuation each, per view.
    """

    gain_db: float = 0.0
    tgc_db: float = 0.0
    attenuation_db: float = 0.0
    lateral_blur_px: float = 0.0
    prob: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CropGroup:
    """Views of one kind.

    Args:
        count: how many views.
        size: side of the square view in pixels, a multiple of 32.
        scale: range of the crop's share of the image's area.
        ratio: range of the crop's width over height.
        flip_prob: chance of a left-right flip. There is no up-down flip: the probe stays at its side.
        jitter_prob: chance of brightness, contrast, saturation and hue changes, in random order.
        brightness, contrast, saturation, hue: strengths as in torchvision; the last two do nothing on grey images.
        grey_prob: chance of dropping colour.
        blur_prob: chance of a Gaussian blur, one value per view of the group.
        blur_radius_px: range of the blur's sigma.
        solarize_prob: chance of inverting levels of 128 and above, one value per view of the group.
        inside_share: smallest share of the crop that must lie inside the scan area; 0 asks for nothing.
        ultrasound: changes that follow from how ultrasound is made.
    """

    count: int
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    jitter_prob: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_prob: float = 0.2
    blur_prob: tuple[float, ...] = (0.5,)
    blur_radius_px: tuple[float, float] = (0.1, 2.0)
    solarize_prob: tuple[float, ...] = (0.0,)
    inside_share: float = 0.0
    ultrasound: UltrasoundChanges = UltrasoundChanges()


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParams:
    """Everything that makes one view.

    Args:
        box: crop (x, y, width, height) in pixels of the image.
        size: side of the view in pixels.
        flip: left-right.
        jitter: (name, factor) in the order they apply; names brightness, contrast, saturation, hue.
        grey: drop colour.
        blur_px: sigma, 0 for none.
        lateral_blur_px: sigma across beams, 0 for none.
        solarize: invert the upper half of the levels.
        gain_db: (size,) change at each row of the view, or None.
    """

    box: tuple[int, int, int, int]
    size: int
    flip: bool = False
    jitter: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    blur_px: float = 0.0
    lateral_blur_px: float = 0.0
    solarize: bool = False
    gain_db: NDArray[np.float32] | None = None


def draw_view(
    rng: np.random.Generator,
    group: CropGroup,
    position: int,
    height: int,
    width: int,
    inside: NDArray[np.float32] | None,
) -> ViewParams:
    """Draw one view.

    Args:
        rng: consumed; the same state gives the same view.
        group: what may happen.
        position: index of the view in its group, which picks its blur and solarise chances.
        height, width: of the image in pixels.
        inside: integral image (rows + 1, columns + 1) of the scan area on a coarse grid, or None.
    """
    box = _draw_box(rng, group, height, width, inside)
    changes = group.ultrasound
    flip, jitter, grey, blurred, solarize, sigma, lateral, *factors = rng.random(11).tolist()
    low, high = group.blur_radius_px
    blur = blurred < group.blur_prob[min(position, len(group.blur_prob) - 1)]
    lateral *= changes.lateral_blur_px
    return ViewParams(
        box=box,
        size=group.size,
        flip=flip < group.flip_prob,
        jitter=_jitter(rng, group, factors) if jitter < group.jitter_prob else (),
        grey=grey < group.grey_prob,
        blur_px=low + (high - low) * sigma if blur and not lateral else 0.0,
        lateral_blur_px=lateral if blur else 0.0,
        solarize=solarize < group.solarize_prob[min(position, len(group.solarize_prob) - 1)],
        gain_db=_draw_gain(rng, changes, group.size),
    )


def _draw_box(
    rng: np.random.Generator, group: CropGroup, height: int, width: int, inside: NDArray[np.float32] | None
) -> tuple[int, int, int, int]:
    """RandomResizedCrop's box; with an inside share, the first of ten boxes that has it, else the best."""
    best, best_share = None, -1.0
    for _ in range(MAX_TRIES if inside is not None and group.inside_share > 0 else 1):
        box = _draw_crop(rng, group, height, width)
        if inside is None or group.inside_share <= 0:
            return box
        share = inside_share(inside, box, height, width)
        if share >= group.inside_share:
            return box
        if share > best_share:
            best, best_share = box, share
    assert best is not None
    return best


def _draw_crop(rng: np.random.Generator, group: CropGroup, height: int, width: int) -> tuple[int, int, int, int]:
    area, (small, large) = height * width, group.scale
    low, high = math.log(group.ratio[0]), math.log(group.ratio[1])
    for _ in range(MAX_TRIES):
        size, shape, down, right = rng.random(4).tolist()
        target = area * (small + (large - small) * size)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(right * (width - w + 1)), int(down * (height - h + 1)), w, h
    return _central_crop(group.ratio, height, width)


def _central_crop(ratio: tuple[float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """What RandomResizedCrop does when no draw fits: the largest central crop of an allowed shape."""
    shape = width / height
    if shape < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif shape > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (width - w) // 2, (height - h) // 2, w, h


def inside_share(inside: NDArray[np.float32], box: tuple[int, int, int, int], height: int, width: int) -> float:
    """Share of a crop's area inside the scan area, from the coarse integral image; to within a grid cell."""
    rows, columns = inside.shape[0] - 1, inside.shape[1] - 1
    x, y, w, h = box
    x0, x1 = int(x * columns / width), max(math.ceil((x + w) * columns / width), int(x * columns / width) + 1)
    y0, y1 = int(y * rows / height), max(math.ceil((y + h) * rows / height), int(y * rows / height) + 1)
    total = inside[y1, x1] - inside[y0, x1] - inside[y1, x0] + inside[y0, x0]
    return float(total) / float((y1 - y0) * (x1 - x0))


def _jitter(rng: np.random.Generator, group: CropGroup, uniform: list[float]) -> tuple[tuple[str, float], ...]:
    """ColorJitter's factors in a random order; `uniform` holds one number of [0, 1) for each of the four."""
    changes = (
        ("brightness", max(0.0, 1 - group.brightness), 1 + group.brightness),
        ("contrast", max(0.0, 1 - group.contrast), 1 + group.contrast),
        ("saturation", max(0.0, 1 - group.saturation), 1 + group.saturation),
        ("hue", -group.hue, group.hue),
    )
    drawn = [(name, low + (high - low) * u) for (name, low, high), u in zip(changes, uniform, strict=True)]
    return tuple(drawn[i] for i in rng.permutation(4).tolist() if changes[i][1] < changes[i][2])


def _draw_gain(rng: np.random.Generator, changes: UltrasoundChanges, size: int) -> NDArray[np.float32] | None:
    """Gain in dB at each row of the view: an offset, a smooth curve through five knots, and a slope with depth."""
    if not (changes.gain_db or changes.tgc_db or changes.attenuation_db):
        return None
    depth = np.linspace(0.0, 1.0, size, dtype=np.float32)
    offset = rng.uniform(-changes.gain_db, changes.gain_db) if rng.random() < changes.prob else 0.0
    knots = rng.uniform(-changes.tgc_db, changes.tgc_db, 5) * (rng.random() < changes.prob)
    slope = rng.uniform(0.0, changes.attenuation_db) if rng.random() < changes.prob else 0.0
    curve = np.interp(depth, np.linspace(0.0, 1.0, 5), knots)
    return (offset + curve - slope * depth).astype(np.float32)
