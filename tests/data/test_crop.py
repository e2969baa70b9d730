"""A crop holds the scan area and nothing outside it, for the picture and its mask alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openus_data.cone import raster
from openus_data.first_stage.crop import cut, cut_mask, on_grid, plan_crops, to_grey_if_grey
from openus_data.records import Cone

TRIANGLE = Cone(
    geometry="sector", polygon=((20.0, 5.0), (35.0, 30.0), (5.0, 30.0)), box=(5, 5, 35, 30), confidence=0.9, method="x"
)
FRAME = np.random.default_rng(0).integers(1, 255, (40, 50), dtype=np.uint8)


@pytest.mark.parametrize("frame", [FRAME, np.repeat(FRAME[..., None], 3, axis=2)])
def test_outside_is_black_and_inside_is_untouched(frame: np.ndarray) -> None:
    (crop,) = plan_crops(TRIANGLE, 40, 50)
    stored, inside = cut(frame, crop), crop.inside_bool
    assert inside is not None and stored.shape[:2] == (25, 30) and 0 < crop.area_px < 25 * 30
    assert not stored[~inside].any() and np.array_equal(stored[inside], frame[5:30, 5:35][inside])
    assert crop.polygon[0] == (15.0, 0.0)


def test_an_unsure_outline_keeps_its_box_whole() -> None:
    (crop,) = plan_crops(TRIANGLE, 40, 50, least_confidence=0.95)
    assert crop.inside is None and np.array_equal(cut(FRAME, crop), FRAME[5:30, 5:35])


def test_a_box_beyond_the_frame_is_cut_at_it_and_an_empty_one_gives_nothing() -> None:
    beyond = dataclasses.replace(TRIANGLE, box=(-5, 5, 90, 30))
    assert plan_crops(beyond, 40, 50)[0].box == (0, 5, 50, 30)
    assert plan_crops(dataclasses.replace(TRIANGLE, box=(60, 5, 90, 30)), 40, 50) == ()
    assert plan_crops(dataclasses.replace(TRIANGLE, geometry="none", polygon=()), 40, 50) == ()


def test_panels_give_a_crop_each_or_one_for_all() -> None:
    right = dataclasses.replace(TRIANGLE, box=(36, 5, 48, 30), polygon=((36.0, 5.0), (48.0, 5.0), (48.0, 30.0)))
    multi = dataclasses.replace(TRIANGLE, geometry="multi", box=(5, 5, 48, 30), panels=(TRIANGLE, right))
    assert [(c.panel, c.box) for c in plan_crops(multi, 40, 50)] == [(0, TRIANGLE.box), (1, right.box)]
    assert [c.box for c in plan_crops(multi, 40, 50, by_panel=False)] == [(5, 5, 48, 30)]


@pytest.mark.parametrize("by_panel", [True, False])
def test_the_scan_area_of_a_crop_is_that_of_the_frame(by_panel: bool) -> None:
    right = dataclasses.replace(TRIANGLE, box=(31, 2, 48, 33), polygon=((40.3, 2.7), (47.9, 32.1), (31.2, 20.0)))
    multi = dataclasses.replace(TRIANGLE, geometry="multi", box=(5, 2, 48, 33), panels=(TRIANGLE, right))
    for crop in plan_crops(on_grid(multi), 40, 50, by_panel=by_panel):
        x0, y0, x1, y1 = crop.box
        assert np.array_equal(crop.inside_bool, raster(crop.cone, 40, 50)[y0:y1, x0:x1])


def test_vertices_are_stored_as_float32_holds_them() -> None:
    cone = on_grid(dataclasses.replace(TRIANGLE, polygon=((20.1, 5.0), (34.999, 29.7), (5.0, 30.0))))
    assert cone.polygon[1] == (35.0, 29.703125)
    assert all(float(np.float32(value)) == value for vertex in cone.polygon for value in vertex)


def test_a_mask_gets_the_same_crop_and_keeps_its_labels() -> None:
    (crop,) = plan_crops(TRIANGLE, 40, 50)
    mask = np.arange(40 * 50, dtype=np.uint32).reshape(40, 50).astype(np.uint8)
    assert np.array_equal(cut_mask(mask, crop), mask[5:30, 5:35])


def test_grey_in_colour_becomes_grey_and_colour_stays() -> None:
    grey = np.repeat(FRAME[..., None], 3, axis=2)
    assert np.array_equal(to_grey_if_grey(grey), FRAME) and to_grey_if_grey(FRAME) is FRAME
    nearly = np.clip(grey.astype(int) + np.array([0, 3, -3]), 0, 255).astype(np.uint8)
    assert to_grey_if_grey(nearly).ndim == 2
    doppler = grey.copy()
    doppler[20, 21] = (200, 10, 10)
    assert to_grey_if_grey(doppler).ndim == 3
