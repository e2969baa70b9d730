"""The scan-cone detector on phantoms with exact truth, and its floor on real pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.cone import detect, raster
from openus_data.cone.complete import complete
from openus_data.cone.outline import signed_area
from openus_data.cone.shape import Fan
from openus_data.phantom import Phantom, phantom
from openus_data.records import Cone, Geometry, Region

NAMES = {"fan": "curvilinear", "phased": "sector", "precropped": "full"}


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def quality(made: Phantom, cone: Cone) -> float:
    """Overlap of a detection with a phantom's truth."""
    return overlap(raster(cone, *made.inside.shape), made.inside)


@pytest.mark.parametrize("geometry", ["sector", "curvilinear", "linear", "trapezoid", "multi"])
@pytest.mark.parametrize(
    "conditions", [(), ("text_touching", "ecg"), ("chrome",), ("white_page",), ("jpeg", "low_gain")]
)
def test_phantoms_of_every_geometry_are_found_under_every_interface(
    geometry: Geometry, conditions: tuple[str, ...]
) -> None:
    made = phantom(41, geometry=geometry, width=640, height=480, conditions=conditions)
    cone = detect(made.image)
    assert cone.geometry == geometry
    assert quality(made, cone) > 0.96
    assert (made.inside & ~raster(cone, 480, 640)).sum() < 0.02 * made.inside.sum()


@pytest.mark.parametrize("geometry", ["sector", "curvilinear"])
def test_the_dark_half_of_a_fan_is_kept(geometry: Geometry) -> None:
    made = phantom(303, geometry=geometry, conditions=("edge_shadow",))
    assert quality(made, detect(made.image)) > 0.95


def test_a_spectral_strip_is_no_part_of_the_scan_area() -> None:
    made = phantom(8, geometry="curvilinear", conditions=("duplex",))
    cone = detect(made.image)
    assert quality(made, cone) > 0.95 and cone.box[3] < 0.65 * 600


def test_an_inverted_probe_is_found_and_said_to_be_inverted() -> None:
    made = phantom(21, geometry="sector", conditions=("inverted",))
    cone = detect(made.image)
    assert quality(made, cone) > 0.95 and cone.parameters["inverted"] == 1.0


def test_mirroring_the_picture_mirrors_the_detection() -> None:
    made = phantom(5, geometry="curvilinear", conditions=("dark_far",))
    plain = raster(detect(made.image), 600, 800)
    mirrored = raster(detect(np.ascontiguousarray(made.image[:, ::-1])), 600, 800)[:, ::-1]
    assert overlap(plain, mirrored) > 0.97


def test_a_cropped_picture_is_full_and_a_page_without_echo_none() -> None:
    assert detect(phantom(2, geometry="full", interface=False).image).geometry == "full"
    assert detect(phantom(2, geometry="none").image).geometry == "none"
    assert detect(np.zeros((300, 400), np.uint8)).geometry == "none"
    assert detect(np.zeros((3, 3), np.uint8)).geometry == "none"


def test_the_same_pixels_as_grey_colour_or_one_frame_clip_give_the_same_cone() -> None:
    grey = phantom(6, geometry="linear", width=320, height=240).image
    first = detect(grey)
    assert detect(np.repeat(grey[..., None], 3, axis=2)) == first
    assert detect(grey[None]).polygon == first.polygon


def test_a_clip_is_found_from_what_moves() -> None:
    made = phantom(9, geometry="sector", width=400, height=300, frames=6, conditions=("ecg",))
    cone = detect(made.frames)
    assert cone.method == "temporal" and quality(made, cone) > 0.95


def test_a_clip_that_starts_with_another_setting_is_cut_as_most_of_its_frames() -> None:
    made = phantom(9, geometry="linear", width=400, height=300, frames=6)
    made.frames[0] = phantom(10, geometry="sector", width=400, height=300).image
    assert quality(made, detect(made.frames)) > 0.95


def test_regions_name_the_panel_and_stand_in_where_there_is_no_echo() -> None:
    made = phantom(12, geometry="multi", width=640, height=480)
    left = made.cone.panels[0]
    region = Region(box=left.box, spatial_format=1, data_type=1, spacing_mm=None)
    cone = detect(made.image, regions=(region,))
    assert cone.geometry == left.geometry and cone.method == "regions+image"
    spectral = replace(region, spatial_format=3)
    assert detect(made.image, regions=(spectral,)).geometry == "multi"
    dark = detect(np.zeros((480, 640), np.uint8), regions=(region,))
    assert dark.box == left.box and dark.method == "regions" and dark.confidence < 0.5


def test_a_prior_stands_in_for_an_unsure_frame_but_not_for_a_clear_one_nor_a_page_without_echo() -> None:
    made = phantom(14, geometry="linear", width=320, height=240)
    prior = replace(made.cone, method="consensus")
    x0, y0, x1, y1 = prior.box
    dark = np.zeros((240, 320), np.uint8)
    assert detect(dark, prior=prior).geometry == "none"
    seen = np.zeros_like(dark)
    cv2.ellipse(seen, ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) // 3, (y1 - y0) // 5), 30, 0, 360, 1, -1)
    dark[seen > 0] = made.image[seen > 0]
    assert detect(dark).confidence < 0.9 and detect(dark, prior=prior) == prior
    elsewhere = replace(prior, polygon=((0, 0), (9, 0), (9, 9), (0, 9)), box=(0, 0, 9, 9))
    assert quality(made, detect(made.image, prior=elsewhere)) > 0.95


def test_polygons_are_clockwise_within_the_frame_and_in_their_box() -> None:
    geometries: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid")
    for seed, geometry in enumerate(geometries):
        cone = detect(phantom(60 + seed, geometry=geometry, width=320, height=240).image)
        vertices = np.array(cone.polygon)
        assert signed_area(vertices) > 0
        assert vertices.min() >= 0 and vertices[:, 0].max() <= 320 and vertices[:, 1].max() <= 240
        assert (vertices >= cone.box[:2]).all() and (vertices <= cone.box[2:]).all()
        assert 0 <= cone.confidence <= 1


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        detect(np.zeros((20, 20), np.uint16))  # type: ignore[arg-type]  # what a caller without types may do


def test_alpha_and_real_numbers_change_nothing() -> None:
    grey = phantom(6, geometry="linear", width=320, height=240).image
    first = detect(grey)
    alpha = np.dstack([grey, grey, grey, np.full_like(grey, 7)])
    assert detect(alpha) == first
    assert detect(grey.astype(np.float32)) == first
    assert detect(grey / 255) == first


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (16, 16), (17, 400), (600, 800), (3000, 4000)])
def test_a_page_of_one_level_has_no_scan_area(size: tuple[int, int], level: int) -> None:
    assert detect(np.full(size, level, np.uint8)).geometry == "none"


def test_no_picture_is_too_odd() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        height, width = rng.integers(1, 60, 2)
        cells = (rng.integers(0, 2, (height, width)) * rng.integers(0, 256)).astype(np.uint8)
        frame = np.kron(cells, np.ones((5, 7), np.uint8)) if rng.random() < 0.5 else cells
        cone = detect(frame)
        assert raster(cone, *frame.shape).any() == (cone.geometry != "none")


def test_echo_of_a_few_columns_has_no_halves() -> None:
    frame = np.zeros((240, 24), np.uint8)
    frame[20:200, 8:12] = np.random.default_rng(0).integers(40, 200, (180, 4))
    frame[100:150, 8:10] = 0
    assert not detect(frame).panels


def test_a_frame_on_a_page_is_found_as_it_is_alone() -> None:
    made = phantom(6, geometry="curvilinear", width=640, height=480, conditions=("chrome",))
    page = np.full((700, 900), 235, np.uint8)
    page[100:580, 150:790] = made.image
    inside = np.zeros(page.shape, np.bool_)
    inside[100:580, 150:790] = made.inside
    assert overlap(raster(detect(page), *page.shape), inside) > 0.97


def test_a_frame_whose_black_is_a_level_above_that_of_its_bars_is_no_linear_array() -> None:
    inner = phantom(6, geometry="sector", width=520, height=360, interface=False)
    frame, inside = np.zeros((480, 640), np.uint8), np.zeros((480, 640), np.bool_)
    frame[60:420, 80:600], inside[60:420, 80:600] = np.maximum(1, inner.image), inner.inside
    assert overlap(raster(detect(frame), 480, 640), inside) > 0.97


@pytest.mark.parametrize("geometry", ["curvilinear", "linear"])
def test_a_lossy_frame_between_bars_is_not_taken_for_the_scan_area(geometry: Geometry) -> None:
    made = phantom(12, geometry=geometry, width=640, height=480, conditions=("jpeg",))
    frame, inside = np.pad(made.image, ((60, 60), (40, 80))), np.pad(made.inside, ((60, 60), (40, 80)))
    assert overlap(raster(detect(frame), *frame.shape), inside) > 0.95


def test_a_rectangle_of_the_darkest_level_is_not_sure_to_be_echo() -> None:
    frame = np.zeros((480, 640), np.uint8)
    frame[60:420, 80:600] = 1
    cone = detect(frame)
    assert cone.geometry == "linear" and cone.confidence < 0.9


def test_noise_over_the_whole_frame_is_no_echo() -> None:
    made = phantom(6, geometry="curvilinear", width=640, height=480)
    noise = np.random.default_rng(2).normal(0, 2.5, made.image.shape)
    noisy = np.clip(made.image + noise, 0, 255).astype(np.uint8)
    assert quality(made, detect(noisy)) > 0.95


def test_noise_over_a_page_hides_no_frame() -> None:
    made = phantom(6, geometry="curvilinear", width=640, height=480, conditions=("white_page",))
    noise = np.random.default_rng(2).normal(0, 2.5, made.image.shape)
    noisy = np.clip(made.image + noise, 0, 255).astype(np.uint8)
    assert quality(made, detect(noisy)) > 0.95


def test_noise_below_a_dark_far_end_is_no_faint_echo() -> None:
    made = phantom(940_005, geometry="sector", width=640, height=480, conditions=("dark_far",))
    noise = np.random.default_rng(2).normal(0, 2.5, made.image.shape)
    noisy = np.clip(made.image + noise, 0, 255).astype(np.uint8)
    assert quality(made, detect(noisy)) > 0.9


@pytest.mark.parametrize("geometry", ["sector", "linear"])
def test_a_wide_strip_below_a_small_scan_area_is_no_part_of_it(geometry: Geometry) -> None:
    small = phantom(31, geometry=geometry, width=320, height=220, interface=False)
    frame, inside = np.zeros((600, 800), np.uint8), np.zeros((600, 800), np.bool_)
    frame[20:240, 240:560], inside[20:240, 240:560] = small.image, small.inside
    frame[320:560, 30:770] = np.random.default_rng(1).rayleigh(50, (240, 740)).clip(0, 255)  # an M-mode
    assert overlap(raster(detect(frame), 600, 800), inside) > 0.95


@pytest.mark.parametrize("axis", [0, 1])
def test_a_background_that_runs_from_dark_to_light_is_no_echo(axis: int) -> None:
    made = phantom(6, geometry="curvilinear", width=640, height=480, interface=False)
    ramp = np.linspace(15, 120, made.image.shape[axis]).astype(np.uint8)
    ground = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, made.image.shape)
    assert quality(made, detect(np.where(made.inside, made.image, ground))) > 0.97


def test_four_scan_areas_in_two_rows_are_four_panels() -> None:
    one = phantom(7, geometry="sector", width=400, height=300, interface=False)
    cone = detect(np.tile(one.image, (2, 2)))
    assert cone.geometry == "multi" and len(cone.panels) == 4
    assert overlap(raster(cone, 600, 800), np.tile(one.inside, (2, 2))) > 0.95


@pytest.mark.parametrize("geometry", ["curvilinear", "linear"])
def test_a_scan_area_that_fluid_cuts_in_two_keeps_its_deep_part(geometry: Geometry) -> None:
    made = phantom(7, geometry=geometry, width=640, height=480, interface=False)
    _, top, _, bottom = made.cone.box
    frame = made.image.copy()
    frame[top + (bottom - top) * 6 // 10 : top + (bottom - top) * 7 // 10] = 0
    assert quality(made, detect(frame)) > 0.95


def test_a_cropped_picture_whose_deep_part_fades_out_is_full() -> None:
    picture = phantom(2, geometry="full", interface=False).image
    fade = np.clip((480 - np.arange(len(picture))) / 200, 0, 1)[:, None]
    assert detect((picture * fade).astype(np.uint8)).geometry == "full"


def test_a_small_panel_beside_a_large_one_is_kept_but_no_slender_bar() -> None:
    large = phantom(3, geometry="linear", width=400, height=560, interface=False)
    small = phantom(4, geometry="curvilinear", width=340, height=240, interface=False)
    frame, inside = np.zeros((600, 800), np.uint8), np.zeros((600, 800), np.bool_)
    for made, row, column in ((large, 20, 20), (small, 150, 440)):
        height, width = made.inside.shape
        frame[row : row + height, column : column + width] = made.image
        inside[row : row + height, column : column + width] = made.inside
    cone = detect(frame)
    assert len(cone.panels) == 2 and overlap(raster(cone, 600, 800), inside) > 0.97
    frame[:, 430:] = 0
    frame[60:540, 600:650] = large.image[60:540, 150:200]
    assert not detect(frame).panels


def test_an_inverted_fan_is_found_whether_narrow_or_wide() -> None:
    rows, cols = np.mgrid[:600, :800]
    echo = 60 + np.random.default_rng(4).integers(0, 90, rows.shape)
    for half, near, far, apex in ((0.33, 220, 540, 760), (1.35, 50, 340, 440)):
        radius, angle = np.hypot(cols - 400, apex - rows), np.arctan2(cols - 400, apex - rows)
        inside = (radius > near) & (radius < far) & (np.abs(angle) < half)
        cone = detect((echo * inside).astype(np.uint8))
        assert cone.parameters["inverted"] == 1 and overlap(raster(cone, 600, 800), inside) > 0.95


@pytest.mark.parametrize("geometry", ["linear", "trapezoid"])
def test_noise_that_leaves_half_of_the_frame_black_is_no_full_frame(geometry: Geometry) -> None:
    made = phantom(6, geometry=geometry, width=640, height=480)
    noise = np.random.default_rng(2).normal(0, 2, made.image.shape)
    assert quality(made, detect(np.clip(made.image + noise, 0, 255).astype(np.uint8))) > 0.95


def test_a_frame_whose_echo_is_as_bright_as_the_page_is_found_on_it() -> None:
    made = phantom(28, geometry="curvilinear", width=640, height=480, interface=False)
    page, inside = np.full((660, 860), 140, np.uint8), np.zeros((660, 860), np.bool_)
    page[90:570, 120:760] = np.where(made.inside, 118 + made.image // 6, 0)
    inside[90:570, 120:760] = made.inside
    assert overlap(raster(detect(page), 660, 860), inside) > 0.95


def test_a_side_in_shadow_is_kept_where_the_echo_near_the_probe_shows_it() -> None:
    made = phantom(22, geometry="linear", width=640, height=480, interface=False)
    rows, cols = np.mgrid[:480, :640]
    x0, y0, x1, _ = made.cone.box
    lit = np.where(rows - y0 < 40, 1, 1 - np.clip((cols - (x0 + 0.66 * (x1 - x0))) / 40, 0, 1))
    contact = np.where(rows - y0 < 40, 60 + 20 * (rows % 3), 0) * made.inside
    frame = np.maximum(made.image * lit, contact).astype(np.uint8)
    assert (made.inside & ~raster(detect(frame), 480, 640)).sum() < 0.03 * made.inside.sum()


def test_a_narrow_fan_is_as_wide_as_its_echo_near_the_probe_but_not_as_a_mark_there() -> None:
    rows, cols = np.mgrid[:600, :800]
    radius, angle = np.hypot(cols - 400, rows + 100), np.arctan2(cols - 400, rows + 100)
    echo = 80 + np.random.default_rng(4).integers(0, 60, radius.shape)
    near = (radius > 200) & (radius < 240)
    lit = 1 - np.clip((angle - 0.1) / 0.08, 0, 1)
    shadowed = np.where((radius > 200) & (radius < 600) & (angle > -0.3) & (angle < 0.3), echo * lit, 0)
    fan = Fan(apex_x=400, apex_y=-100, left=-0.3, right=0.14, near=200, far=600, box=(0, 0, 800, 600))
    for upto, right in ((0.36, 0.36), (0.2, 0.14)):
        frame = np.where(near & (angle > -0.3) & (angle < upto), echo, shadowed).astype(np.uint8)
        found = complete(fan, frame)
        assert isinstance(found, Fan) and abs(found.right - right) < 0.02


@pytest.mark.parametrize("name", ["d023", "d062"])
def test_a_dark_frame_whose_black_is_not_exact_is_found_between_bars(realdata: Path, name: str) -> None:
    picture = cv2.imread(str(realdata / "annotated_frames" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    inner, (height, width) = np.asarray(picture, np.uint8), picture.shape
    barred = raster(detect(np.pad(inner, ((50, 50), (40, 80)))), height + 100, width + 120)
    assert overlap(barred[50:-50, 40:-80], raster(detect(inner), height, width)) > 0.9


def test_real_pictures_keep_their_floor(realdata: Path) -> None:
    """Every third annotated picture; the whole set is the business of benchmarks/cone.py."""
    entries = [e for e in json.loads((realdata / "annotations.json").read_text())["images"] if not e.get("ambiguous")]
    overlaps, named = [], []
    for entry in entries[::3]:
        picture = cv2.imread(str(realdata / (entry.get("frame_png") or entry["file"])))
        assert picture is not None
        truth = np.zeros(picture.shape[:2], np.bool_)
        for drawn in entry["cones"]:
            vertices = tuple((x, y) for x, y in drawn["polygon"])
            part = Cone(geometry="linear", polygon=vertices, box=(0, 0, 1, 1), confidence=1, method="hand")
            truth |= raster(part, *truth.shape)
        cone = detect(np.ascontiguousarray(picture[..., ::-1]))
        overlaps.append(overlap(raster(cone, *truth.shape), truth))
        wanted = "multi" if len(entry["cones"]) > 1 else NAMES.get(entry["geometry"], entry["geometry"])
        named.append(cone.geometry == wanted)
    assert np.mean(overlaps) > 0.97 and np.percentile(overlaps, 10) > 0.93
    assert np.mean(named) > 0.9
