"""What makes a stored picture poor: flags for the manifest, and a reason to reject the worst.

report = judge(pixels, inside)
report.reject_reason        # "blank", "tiny", "saturated" or None
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

FLAGS: Final = (
    "blank",
    "colour",
    "cone_unsure",
    "dark",
    "few_levels",
    "low_contrast",
    "not_polar",
    "saturated",
    "small_cone",
    "text_heavy",
    "tiny",
)
"""Every flag that a row's `quality` may hold."""
_DARK_MEAN: Final = 8.0
_LOW_CONTRAST_STD: Final = 12.0
_SATURATED_LEVEL: Final = 250
_SATURATED_PART: Final = 0.5
_FEW_LEVELS: Final = 16
_SMALL_CONE_PART: Final = 0.15
_TEXT_PART: Final = 0.05
_SAMPLED_PX: Final = 1 << 14
_LEVELS: Final = np.arange(256.0)
_SQUARES: Final = _LEVELS**2


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """What is rejected.

    Args:
        least_side_px: shorter pictures are `tiny`.
        least_contrast: standard deviation of the grey levels below which a picture is `blank`.
        reject_saturated: whether `saturated` rejects.
    """

    least_side_px: int = 32
    least_contrast: float = 3.0
    reject_saturated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What was seen.

    Args:
        flags: names out of FLAGS, sorted.
        reject_reason: one of them, or None.
    """

    flags: tuple[str, ...]
    reject_reason: str | None


def judge(
    pixels: Pixels,
    inside: NDArray[np.bool_] | None = None,
    *,
    settings: QualitySettings | None = None,
    cone_part: float = 1.0,
    text_part: float = 0.0,
    is_cone_sure: bool = True,
    is_view_kept: bool = True,
) -> QualityReport:
    """Judge one stored picture. Works on an even sample of its pixels, so that the cost does not grow with its size.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), cropped.
        inside: bool (H, W), the scan area; None where it fills the picture.
        settings: what is rejected.
        cone_part: area of the scan area over that of the source frame, 0 to 1.
        text_part: area of removed text over that of the scan area, 0 to 1.
        is_cone_sure: whether the outline could be relied on.
        is_view_kept: whether the picture is stored in the view that the recipe asks for.
    """
    settings = settings or QualitySettings()
    flags: set[str] = set()
    if min(pixels.shape[:2]) < settings.least_side_px:
        flags.add("tiny")
    if pixels.ndim == 3:
        flags.add("colour")
    if not is_cone_sure:
        flags.add("cone_unsure")
    if not is_view_kept:
        flags.add("not_polar")
    if cone_part < _SMALL_CONE_PART:
        flags.add("small_cone")
    if text_part > _TEXT_PART:
        flags.add("text_heavy")
    flags |= _level_flags(_histogram(pixels, inside), settings)
    rejecting = ("tiny", "blank", *(("saturated",) if settings.reject_saturated else ()))
    return QualityReport(flags=tuple(sorted(flags)), reject_reason=next((r for r in rejecting if r in flags), None))


def _histogram(pixels: Pixels, inside: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Counts (256,) of grey levels inside the scan area, over at most about 16,000 pixels of an even grid."""
    step = max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / _SAMPLED_PX))))
    sampled = np.ascontiguousarray(pixels[::step, ::step])
    grey = sampled if sampled.ndim == 2 else cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY)
    mask = None if inside is None else np.ascontiguousarray(inside[::step, ::step]).view(np.uint8)
    counts = cv2.calcHist([grey], [0], mask, [256], [0, 256]).ravel()
    if not counts.any():  # a scan area too thin for the grid
        counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    return np.asarray(counts, dtype=np.float64)


def _level_flags(counts: NDArray[np.float64], settings: QualitySettings) -> set[str]:
    total = counts.sum()
    mean = float(counts @ _LEVELS / total)
    deviation = max(0.0, float(counts @ _SQUARES / total) - mean**2) ** 0.5
    checks = {
        "blank": deviation < settings.least_contrast,
        "dark": mean < _DARK_MEAN,
        "low_contrast": deviation < _LOW_CONTRAST_STD,
        "saturated": counts[_SATURATED_LEVEL:].sum() / total > _SATURATED_PART,
        "few_levels": np.count_nonzero(counts) < _FEW_LEVELS,
    }
    return {name for name, is_seen in checks.items() if is_seen}
