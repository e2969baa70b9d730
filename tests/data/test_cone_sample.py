"""Pictures read at points, and frames that are no whole number of cells."""

from __future__ import annotations

import numpy as np
import pytest

from openus_data.cone import detect
from openus_data.cone.sample import MOST_SIDE_PX, levels_at
from openus_data.cone.shape import Fan, Slab, to_frame
from openus_data.phantom import phantom


def test_a_point_reads_the_pixel_that_it_lies_in_and_nothing_beyond_the_frame() -> None:
    picture = np.random.default_rng(1).integers(1, 255, (40, 50), dtype=np.uint8)
    corners = np.indices(picture.shape)
    for share in (0.0, 0.25, 0.5, 0.99):
        at = (corners + share).astype(np.float32)
        assert (levels_at(picture, at[1], at[0]) == picture).all()
    beyond = np.array([[-0.5, 50.5, 10, 10]], np.float32), np.array([[10, 10, -0.5, 40.5]], np.float32)
    assert not levels_at(picture, *beyond).any()


@pytest.mark.parametrize("size", [(803, 607), (801, 600), (487, 365), (1283, 961)])
def test_echo_up_to_the_rim_is_kept_where_cells_do_not_fill_the_frame(size: tuple[int, int]) -> None:
    width, height = size
    cone = detect(phantom(2, geometry="full", width=width, height=height, interface=False).image)
    assert cone.geometry == "full" and cone.box == (0, 0, width, height)


def test_shapes_that_reach_the_end_of_the_grid_reach_that_of_the_frame() -> None:
    slab = Slab(top_left=0, top_right=50, bottom_right=50, bottom_left=0, top=3, bottom=40)
    moved = to_frame(slab, (40, 50), (4.0, 4.0), (163, 202))
    assert isinstance(moved, Slab) and (moved.top, moved.bottom, moved.bottom_right) == (12.0, 163.0, 202.0)
    fan = Fan(apex_x=25, apex_y=2, left=-0.5, right=0.5, near=3, far=30, box=(0, 0, 50, 33))
    turned = to_frame(fan, (40, 50), (4.0, 4.0), (163, 202))
    assert isinstance(turned, Fan) and turned.box == (0.0, 0.0, 202.0, 132.0)


def test_a_strip_wider_than_any_screen_is_no_scan() -> None:
    strip = np.random.default_rng(3).integers(0, 255, (20, MOST_SIDE_PX + 1), dtype=np.uint8)
    assert detect(strip).geometry == "none"
