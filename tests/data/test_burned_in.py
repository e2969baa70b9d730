"""Burned-in text is found and taken out, and tissue is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from openus_data.decode import decode
from openus_data.deid import burned_in, text_ocr
from openus_data.deid.burned_in import (
    POSSIBLE,
    find_text,
    find_text_in_clip,
    remove_text,
    rows_around,
    text_remains,
)
from openus_data.deid.text_features import FEATURES
from openus_data.deid.text_gate import Trees, chances, load_trees
from openus_data.deid.text_lines import candidate_lines
from openus_data.errors import MissingExtra
from openus_data.phantom import phantom


def speckle(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    made = phantom(seed, geometry="curvilinear", width=640, height=480, interface=False)
    return made.image, made.inside


def named(pixels: NDArray[np.uint8], corner: tuple[int, int], scale: float = 0.5) -> NDArray[np.uint8]:
    out = pixels.copy()
    colour = 255 if out.ndim == 2 else (255, 255, 0)
    return np.asarray(
        cv2.putText(out, "DOE JANE 1970", corner, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    )


def covered(boxes: tuple[object, ...], changed: NDArray[np.bool_]) -> float:
    held = np.zeros(changed.shape, bool)
    for found in boxes:
        x0, y0, x1, y1 = found.box  # type: ignore[attr-defined]
        held[y0:y1, x0:x1] = True
    return float((held & changed).sum() / changed.sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.38, 0.6, 0.95])
def test_a_name_over_speckle_is_found_whole(seed: int, scale: float) -> None:
    pixels, inside = speckle(seed)
    shown = named(pixels, (220, 250), scale)
    assert covered(find_text(shown, inside), np.abs(shown.astype(int) - pixels) > 60) > 0.9


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("scale", [0.38, 0.6])
def test_a_name_that_runs_up_or_down_is_found_whole(turns: int, scale: float) -> None:
    pixels, inside = speckle(0)
    shown = np.ascontiguousarray(np.rot90(named(np.rot90(pixels, -turns), (170, 320), scale), turns))
    assert covered(find_text(shown, inside), np.abs(shown.astype(int) - pixels) > 60) > 0.9


@pytest.mark.parametrize("seed", range(2))
def test_large_letters_far_apart_are_found(seed: int) -> None:
    pixels, inside = speckle(seed)
    shown = pixels.copy()
    for place, letter in enumerate("7/3/1961"):
        cv2.putText(shown, letter, (180 + 38 * place, 330), cv2.FONT_HERSHEY_PLAIN, 2.9, 255, 2, cv2.LINE_AA)
    assert covered(find_text(shown, inside), np.abs(shown.astype(int) - pixels) > 60) > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_speckle_holds_no_text(seed: int) -> None:
    pixels, inside = speckle(seed)
    assert find_text(pixels, inside) == ()


@pytest.mark.parametrize("seed", range(3))
def test_noise_without_grain_holds_no_text_but_a_name_over_it_is_found(seed: int) -> None:
    _, inside = speckle(seed)
    noise = np.random.default_rng(seed).rayleigh(50, inside.shape).clip(1, 255)
    pixels = np.where(inside, noise, 0).astype(np.uint8)
    assert find_text(pixels, inside) == ()
    shown = named(pixels, (220, 250))
    assert covered(find_text(shown, inside), np.abs(shown.astype(int) - pixels) > 60) > 0.9


def test_colour_changes_nothing_of_what_is_found() -> None:
    pixels, inside = speckle(1)
    grey = named(pixels, (220, 250))
    assert find_text(np.repeat(grey[..., None], 3, axis=2), inside) == find_text(grey, inside)


def test_dark_words_on_a_light_box_are_found() -> None:
    pixels, _ = speckle(2)
    pixels = pixels.copy()
    pixels[230:256, 215:360] = 225
    shown = pixels.copy()
    cv2.putText(shown, "DOE JANE 1970", (220, 250), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 10, 1, cv2.LINE_AA)
    assert covered(find_text(shown), shown != pixels) > 0.9


def test_what_lies_outside_is_not_looked_at() -> None:
    pixels, inside = speckle(3)
    assert find_text(named(pixels, (220, 250)), inside & False) == ()


@pytest.mark.parametrize(("left", "top"), [(200, 120), (37, 61)])
def test_what_is_found_moves_with_the_scan_area(left: int, top: int) -> None:
    pixels, inside = speckle(3)
    shown = named(pixels, (220, 250))
    canvas, area = np.zeros((760, 960), np.uint8), np.zeros((760, 960), bool)
    canvas[top : top + 480, left : left + 640], area[top : top + 480, left : left + 640] = shown, inside
    there = [(x0 + left, y0 + top, x1 + left, y1 + top) for x0, y0, x1, y1 in (b.box for b in find_text(shown, inside))]
    assert there and [b.box for b in find_text(canvas, area)] == there


def test_a_closer_look_takes_one_look_of_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    looks = []
    monkeypatch.setattr(burned_in, "candidate_lines", lambda *given: looks.append(1) or candidate_lines(*given))
    pixels, inside = speckle(4)
    shown = named(pixels, (220, 250))
    assert find_text(shown, inside, ocr="flagged") == find_text(shown, inside, ocr=True) != ()
    assert 2 <= len(looks) <= 2 * len(burned_in._LEAST)


def test_without_the_extra_a_closer_look_keeps_the_gates_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    text_ocr._detector.cache_clear()
    pixels, inside = speckle(4)
    shown = named(pixels, (220, 250))
    assert find_text(shown, inside, ocr="flagged") == find_text(shown, inside) != ()
    text_ocr._detector.cache_clear()


def test_rows_around_a_fill_hold_it_and_leave_out_what_is_far_or_outside() -> None:
    pixels, inside = speckle(4)
    (found, *_) = find_text(named(pixels, (220, 250)), inside)
    rows = rows_around([found], inside, pixels.shape)
    x0, y0, x1, y1 = found.box
    assert np.array_equal(rows[y0 - 60 : y1 + 60], inside[y0 - 60 : y1 + 60]) and rows[y0:y1, x0:x1].all()
    assert inside[: y0 - 110].any() and not rows[: y0 - 110].any()
    assert rows_around([found], None, pixels.shape)[y0].all()


def test_after_removal_nothing_remains_and_the_rest_is_untouched() -> None:
    pixels, inside = speckle(4)
    shown = named(pixels, (220, 250))
    boxes = find_text(shown, inside)
    cleaned = remove_text(shown, boxes)
    letters = np.abs(shown.astype(int) - pixels) > 100
    assert text_remains(shown, inside) and not text_remains(cleaned, inside)
    assert np.mean(np.abs(cleaned.astype(int) - shown)[letters] > 40) > 0.9
    assert (cleaned != shown).sum() == (cleaned != shown)[230:270, 205:380].sum()


def test_the_fill_has_the_grain_of_what_is_around_it() -> None:
    pixels, inside = speckle(4)
    shown = named(pixels, (220, 250), 0.6)
    cleaned = remove_text(shown, find_text(shown, inside))
    touched = cleaned != shown
    smooth = cv2.GaussianBlur(cleaned.astype(np.float32), (0, 0), 2)
    grain = np.abs(cleaned - smooth)
    assert 0.4 < grain[touched].mean() / grain[232:262, 400:500].mean() < 2


def test_nothing_found_gives_back_the_same_picture() -> None:
    pixels, _ = speckle(5)
    assert remove_text(pixels, ()) is pixels


def test_text_stands_still_while_tissue_moves() -> None:
    frames = phantom(6, width=640, height=480, frames=6, interface=False).frames
    shown = np.stack([named(f, (220, 250)) for f in frames])
    boxes = find_text_in_clip(shown)
    assert covered(boxes, np.abs(shown[0].astype(int) - frames[0]) > 60) > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (9, 9, 3)])
def test_tiny_pictures_hold_no_text(shape: tuple[int, ...]) -> None:
    assert find_text(np.full(shape, 200, np.uint8)) == ()


def test_chances_are_probabilities_and_need_no_line() -> None:
    some = np.random.default_rng(0).normal(50, 40, (200, len(FEATURES)))
    assert np.all((chances(some) > 0) & (chances(some) < 1)) and chances(some[:0]).shape == (0,)


@pytest.mark.parametrize("seed", range(8))
def test_trees_add_up_as_if_walked_one_by_one(seed: int) -> None:
    trees = load_trees()
    rows = np.random.default_rng(seed).normal(60, 60, (40, len(FEATURES)))
    alone = np.array([_walked(trees, row) for row in rows])
    together = chances(rows)
    matter = (alone >= POSSIBLE) | (together >= POSSIBLE)  # the others are given up before the last tree
    assert together[matter] == pytest.approx(alone[matter])


def _walked(trees: Trees, row: NDArray[np.float64]) -> float:
    odds = trees.start
    for feature, threshold, leaf in zip(trees.feature, trees.threshold, trees.leaf, strict=True):
        node = 0
        while node < len(feature):
            node = 2 * node + 1 + int(np.float32(row[feature[node]]) > threshold[node])
        odds += leaf[node - len(feature)]
    return float(1 / (1 + np.exp(-odds)))


def test_the_ocr_detector_agrees_on_a_name() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    pixels, inside = speckle(4)
    shown = named(pixels, (220, 250))
    boxes = find_text(shown, inside, ocr=True)
    assert [b.detector for b in boxes] == ["ocr"]
    assert covered(boxes, np.abs(shown.astype(int) - pixels) > 60) > 0.9


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    text_ocr._detector.cache_clear()
    pixels, inside = speckle(4)
    with pytest.raises(MissingExtra, match=r"openus\[ocr\]"):
        find_text(named(pixels, (220, 250)), inside, ocr=True)
    text_ocr._detector.cache_clear()


def test_power_doppler_is_left_alone_and_white_letters_over_it_are_found() -> None:
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "examples_jpeg2k.dcm"
    (picture,) = [pixels for _, pixels in decode(source).read(None)]
    flow = np.zeros(picture.shape[:2], bool)
    flow[155:275, 88:545] = np.ptp(picture[155:275, 88:545], axis=2) > 60
    assert flow.sum() > 9000 and _covered(picture)[flow].mean() < 0.01
    named = picture.copy()
    cv2.putText(named, "SMITH JANE", (130, 220), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2, cv2.LINE_AA)
    assert _covered(named)[(named != picture).any(axis=2)].mean() > 0.9


def _covered(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    covered = np.zeros(pixels.shape[:2], bool)
    for x0, y0, x1, y1 in (found.box for found in find_text(pixels)):
        covered[y0:y1, x0:x1] = True
    return covered
