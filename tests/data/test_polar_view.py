"""Pictures and masks in beam space fit each other, and lead back to the frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openus_data.cone import detect
from openus_data.cone.polar import from_polar, to_frame, to_polar
from openus_data.first_stage.crop import Crop, cut, cut_mask, plan_crops
from openus_data.first_stage.polar_view import MOST_SIDE, PolarView, cut_polar, cut_polar_mask, plan_polar, polar_boxes
from openus_data.phantom import phantom
from openus_data.records import Geometry, Pixels, TextBox

FANS_AND_SLABS = ("sector", "curvilinear", "linear", "trapezoid")


def planned(geometry: Geometry, conditions: tuple[str, ...] = ()) -> tuple[Pixels, Crop, PolarView]:
    """A phantom's frame, its crop and its way to beam space."""
    made = phantom(31, geometry=geometry, width=400, height=300, conditions=conditions)
    (crop,) = plan_crops(detect(made.image), 300, 400)
    view = plan_polar(crop)
    assert view is not None
    return made.image, crop, view


def spot(crop: Crop, view: PolarView) -> tuple[int, int]:
    """The pixel (x, y) of the frame half way down, a third across."""
    x, y = to_frame(view.cone, np.array(0.33), np.array(0.5))
    return int(x) + crop.box[0], int(y) + crop.box[1]


@pytest.mark.parametrize("geometry", FANS_AND_SLABS)
def test_a_crop_in_beam_space_is_the_frame_in_beam_space(geometry: Geometry) -> None:
    frame, crop, view = planned(geometry)
    stored = cut_polar(cut(frame, crop), view)
    depths, beams = stored.shape[:2]
    whole = to_polar(frame, crop.cone, depths=depths, beams=beams)
    inner = np.s_[8:-8, 8:-8]  # at the border, as at all of a tip, the crop is black beyond the outline, the frame not
    assert np.mean(np.abs(stored[inner].astype(int) - whole[inner]) > 1) < 0.001
    assert 0.9 < depths / (crop.box[3] - crop.box[1]) < 1.5 and stored.dtype == np.uint8


@pytest.mark.parametrize("geometry", FANS_AND_SLABS)
@pytest.mark.parametrize("conditions", [(), ("inverted",)])
def test_a_place_comes_back_within_a_pixel(geometry: Geometry, conditions: tuple[str, ...]) -> None:
    frame, crop, view = planned(geometry, conditions)
    x, y = spot(crop, view)
    marked = np.zeros(frame.shape[:2], np.uint8)
    marked[y - 3 : y + 4, x - 3 : x + 4] = 255
    again = from_polar(cut_polar(cut(marked, crop), view), crop.cone, 300, 400).astype(float)
    rows, columns = np.indices(again.shape)
    assert abs((again * rows).sum() / again.sum() - y) < 0.5
    assert abs((again * columns).sum() / again.sum() - x) < 0.5


@pytest.mark.parametrize("geometry", FANS_AND_SLABS)
def test_a_mask_lies_where_its_picture_does_and_keeps_its_labels(geometry: Geometry) -> None:
    frame, crop, view = planned(geometry)
    x, y = spot(crop, view)
    mask = np.zeros(frame.shape[:2], np.uint8)
    mask[y - 15 : y + 16, x - 15 : x + 16] = 7
    mask[y - 5 : y + 6, x - 5 : x + 6] = 3
    labels = cut_polar_mask(cut_mask(mask, crop), view)
    picture = cut_polar(cut((mask == 7).astype(np.uint8) * 255, crop), view)
    assert set(np.unique(labels)) == {0, 3, 7} and labels.shape == picture.shape
    assert np.mean((picture > 127) != (labels == 7)) < 0.002


def test_the_outline_is_the_whole_picture_and_boxes_go_along() -> None:
    _, crop, view = planned("sector")
    depths, beams = view.x.shape
    assert view.polygon == ((0, 0), (beams, 0), (beams, depths), (0, depths))
    x, y = spot(crop, view)
    left, top = x - crop.box[0], y - crop.box[1]
    inside = TextBox(box=(left - 4, top - 4, left + 4, top + 4), score=1.0, detector="gate")
    outside = dataclasses.replace(inside, box=(0, 0, 3, 3))
    (box,) = (b.box for b in polar_boxes((inside, outside), view))
    assert box[0] < 0.33 * beams < box[2] and box[1] < 0.5 * depths < box[3] and box[2] - box[0] < 0.2 * beams


def test_what_has_no_geometry_of_its_own_or_is_unsure_has_no_way_to_beam_space() -> None:
    _, crop, _ = planned("sector")
    bare = dataclasses.replace(crop, cone=dataclasses.replace(crop.cone, parameters={}))
    several = dataclasses.replace(crop, cone=dataclasses.replace(crop.cone, panels=(crop.cone, crop.cone)))
    unsure = dataclasses.replace(crop, cone=dataclasses.replace(crop.cone, confidence=0.2))
    full = dataclasses.replace(crop, cone=dataclasses.replace(crop.cone, geometry="full"))
    assert plan_polar(bare) is None and plan_polar(full) is None
    assert plan_polar(several) is None
    assert plan_polar(unsure, least_confidence=0.3) is None and plan_polar(unsure) is not None


def test_a_shape_of_any_size_costs_a_bounded_picture() -> None:
    _, crop, _ = planned("sector")
    huge = dict(crop.cone.parameters) | {"radius_far": 1e9}
    view = plan_polar(dataclasses.replace(crop, cone=dataclasses.replace(crop.cone, parameters=huge)))
    assert view is not None and view.x.shape == (MOST_SIDE, MOST_SIDE)
