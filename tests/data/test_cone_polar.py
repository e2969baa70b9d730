"""Beam space and back."""

from __future__ import annotations

import numpy as np
import pytest

from openus_data.cone import detect
from openus_data.cone.polar import from_polar, to_beams, to_frame, to_polar
from openus_data.phantom import phantom
from openus_data.records import Geometry


@pytest.mark.parametrize("geometry", ["sector", "curvilinear", "linear", "trapezoid"])
def test_the_maps_are_inverses(geometry: Geometry) -> None:
    cone = detect(phantom(31, geometry=geometry).image)
    beam, depth = np.meshgrid(np.linspace(0.01, 0.99, 40), np.linspace(0.01, 0.99, 50))
    again = to_beams(cone, *to_frame(cone, beam, depth))
    assert np.allclose(again, (beam, depth), atol=1e-9)


@pytest.mark.parametrize("geometry", ["sector", "curvilinear", "linear"])
def test_a_smooth_picture_comes_back_from_beam_space(geometry: Geometry) -> None:
    made = phantom(31, geometry=geometry)
    cone = detect(made.image)
    x, y = np.meshgrid(np.arange(800), np.arange(600))
    smooth = (120 + 50 * np.sin(x / 40) + 50 * np.cos(y / 30)).astype(np.uint8)
    again = from_polar(to_polar(smooth, cone, depths=600, beams=600), cone, 600, 800)
    inner = made.inside.copy()
    for axis in (0, 1):
        for shift in (-4, 4):
            inner &= np.roll(made.inside, shift, axis)
    assert np.abs(again.astype(int) - smooth)[inner].max() <= 6
    assert not again[np.roll(made.inside, 40, 0) & ~made.inside & (y > 580)].any()


def test_an_inverted_fan_has_its_near_end_first() -> None:
    made = phantom(21, geometry="sector", conditions=("inverted",))
    cone = detect(made.image)
    _, depth = to_beams(cone, np.array([400.0, 400.0]), np.array([500.0, 100.0]))
    assert depth[0] < depth[1]


def test_several_panels_or_none_are_refused() -> None:
    for geometry in ("multi", "none"):
        cone = detect(phantom(12, geometry=geometry).image)
        with pytest.raises(ValueError, match="one scan area"):
            to_polar(np.zeros((600, 800), np.uint8), cone, depths=8, beams=8)
