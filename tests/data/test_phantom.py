"""Made-up ultrasound: exact truth, determinism, and echo that looks like speckle."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from openus_data.cone import raster
from openus_data.phantom import CONDITIONS, phantom
from openus_data.records import Geometry


@pytest.mark.parametrize("geometry", get_args(Geometry))
def test_every_geometry_can_be_made_and_says_its_name(geometry: Geometry) -> None:
    made = phantom(3, geometry=geometry, width=240, height=180)
    assert made.image.shape == (180, 240)
    assert made.cone.geometry == geometry
    assert made.inside.any() == (geometry != "none")


@pytest.mark.parametrize("geometry", ["sector", "curvilinear", "linear", "trapezoid", "full", "multi"])
def test_the_polygon_and_the_mask_tell_the_same_truth(geometry: Geometry) -> None:
    made = phantom(5, geometry=geometry, width=400, height=300)
    drawn = raster(made.cone, 300, 400)
    assert (drawn ^ made.inside).sum() < 0.004 * made.inside.sum() + 20


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    first, again, other = (phantom(seed, width=160, height=120, conditions=CONDITIONS[:3]).image for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_words_lie_in_their_boxes() -> None:
    plain = phantom(9, width=320, height=240, interface=False).image
    made = phantom(9, width=320, height=240)
    covered = np.zeros(plain.shape, np.bool_)
    for box in made.text_boxes:
        covered[box.box[1] : box.box[3], box.box[0] : box.box[2]] = True
    assert made.text_boxes
    left_column = made.image[:, :40] != plain[:, :40]
    assert not (left_column & ~covered[:, :40]).any()


def test_speckle_is_rayleigh_like() -> None:
    """Fully developed speckle has a standard deviation of 5.6 dB after log compression (24 of 255 levels at 60 dB)."""
    image = phantom(4, geometry="full", width=300, height=300, interface=False).image.astype(np.float64)
    patches = [image[y : y + 30, x : x + 30].std() for y in range(60, 200, 30) for x in range(0, 270, 30)]
    assert 14 < np.median(patches) < 32


def test_a_clip_moves_inside_and_rests_outside() -> None:
    made = phantom(2, width=200, height=150, frames=4)
    spread = made.frames.max(axis=0).astype(int) - made.frames.min(axis=0)
    assert spread[~made.inside].max() == 0
    assert np.median(spread[made.inside]) > 10


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="conditions"):
        phantom(1, conditions=("fog",))
