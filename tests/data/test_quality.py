"""Flags name what is wrong with a picture, and only the worst is rejected."""

from __future__ import annotations

import numpy as np
import pytest

from openus_data import quality
from openus_data.quality import QualitySettings
from openus_data.records import Pixels

SPECKLE = np.random.default_rng(0).integers(0, 200, (100, 120), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (SPECKLE, None),
        (np.zeros((100, 100), np.uint8), "blank"),
        (np.full((100, 100), 255, np.uint8), "blank"),
        (SPECKLE[:10], "tiny"),
        (np.ones((1, 1), np.uint8), "tiny"),
        (np.repeat(SPECKLE[..., None], 3, axis=2), None),
    ],
)
def test_only_the_worst_is_rejected(pixels: Pixels, reason: str | None) -> None:
    report = quality.judge(pixels)
    assert report.reject_reason == reason
    assert set(report.flags) <= set(quality.FLAGS) and list(report.flags) == sorted(report.flags)


def test_only_what_lies_inside_the_scan_area_counts() -> None:
    pixels = np.zeros((100, 120), np.uint8)
    pixels[:20] = SPECKLE[:20]
    inside = np.zeros((100, 120), bool)
    inside[40:] = True
    assert quality.judge(pixels).reject_reason is None
    assert quality.judge(pixels, inside).reject_reason == "blank"


def test_white_pictures_are_flagged_and_rejected_on_request() -> None:
    white = np.where(SPECKLE > 60, 255, SPECKLE).astype(np.uint8)
    assert "saturated" in quality.judge(white).flags and quality.judge(white).reject_reason is None
    assert quality.judge(white, settings=QualitySettings(reject_saturated=True)).reject_reason == "saturated"


def test_the_rest_is_flagged() -> None:
    flags = quality.judge(SPECKLE // 40, cone_part=0.01, text_part=0.2).flags
    assert set(flags) >= {"dark", "few_levels", "low_contrast", "small_cone", "text_heavy"}
