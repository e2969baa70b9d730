"""Outlines of scan areas: order, box and raster."""

from __future__ import annotations

import numpy as np
import pytest

from openus_data.cone import raster
from openus_data.cone.outline import box_of, box_polygon, clip_to_box, frame_polygon, make_cone, no_cone, signed_area


def test_the_raster_of_a_box_is_the_box() -> None:
    cone = make_cone("linear", box_polygon((10, 20, 50, 80)), height=100, width=90, confidence=1, method="image")
    mask = raster(cone, 100, 90)
    assert mask.sum() == 40 * 60 and mask[20:80, 10:50].all()
    assert cone.box == (10, 20, 50, 80)


def test_a_polygon_is_cut_at_the_frame_and_runs_clockwise() -> None:
    outline = np.array([(-20.0, 50.0), (50, 130), (120, 50), (50, -30)])
    cone = make_cone("trapezoid", outline, height=100, width=100, confidence=1, method="image")
    vertices = np.array(cone.polygon)
    assert vertices.min() >= 0 and vertices.max() <= 100
    assert signed_area(vertices) > 0
    assert cone.box == (0, 0, 100, 100)


def test_the_whole_frame_fills_every_pixel() -> None:
    cone = make_cone("full", frame_polygon(7, 5), height=7, width=5, confidence=1, method="image")
    assert raster(cone, 7, 5).all()


def test_no_echo_fills_nothing() -> None:
    assert not raster(no_cone("image"), 6, 6).any()


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.49])
def test_a_box_holds_its_polygon(shift: float) -> None:
    polygon = box_polygon((3 + shift, 4 + shift, 9 + shift, 11 + shift))
    x0, y0, x1, y1 = box_of(polygon, 100, 100)
    assert x0 <= polygon[:, 0].min() and y0 <= polygon[:, 1].min()
    assert x1 >= polygon[:, 0].max() and y1 >= polygon[:, 1].max()


def test_clipping_what_lies_outside_leaves_nothing() -> None:
    assert len(clip_to_box(box_polygon((-20, -20, -5, -5)), (0, 0, 10, 10))) == 0


def test_a_pixel_is_inside_when_its_centre_is_even_where_a_row_is_left_and_entered_again() -> None:
    dent = np.array([(2.2, 3.1), (20.0, 14.6), (37.4, 2.8), (33.3, 28.9), (6.1, 27.2)])
    cone = make_cone("curvilinear", dent, height=30, width=40, confidence=1, method="image")
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    inside = np.zeros((30, 40), np.bool_)
    for (x0, y0), (x1, y1) in zip(dent, np.roll(dent, -1, axis=0), strict=True):
        inside ^= ((y0 <= y) != (y1 <= y)) & (x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    assert (raster(cone, 30, 40) == inside).all()
