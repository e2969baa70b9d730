"""Altered copies are found, look-alikes are not, and order, size and machine do not matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openus_data import duplicates
from openus_data.duplicates import DuplicateSettings
from openus_data.records import Pixels

RNG = np.random.default_rng(7)


def speckle(seed: int, height: int = 240, width: int = 320) -> Pixels:
    """A sector of speckle: every picture has the same outline, as on one machine with one preset."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((10, 12)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 1.5) * 4
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, 0), (width * 2 // 3, height - 1), 90, -45, 45, 1, -1)
    return np.asarray(np.clip(90 * coarse * fine, 0, 255) * mask, dtype=np.uint8)


def cropped(image: Pixels, left: float, top: float, right: float, bottom: float) -> Pixels:
    height, width = image.shape
    return image[int(top * height) : height - int(bottom * height), int(left * width) : width - int(right * width)]


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg": lambda p: np.asarray(cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0), np.uint8),
    "half size": lambda p: np.asarray(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8),
    "squashed": lambda p: np.asarray(cv2.resize(p, (224, 224)), np.uint8),
    "gain": lambda p: np.asarray(cv2.convertScaleAbs(p, alpha=1.25), np.uint8),
    "flipped": lambda p: p[:, ::-1],
    "cropped all around": lambda p: cropped(p, 0.05, 0.05, 0.05, 0.05),
    "cropped left": lambda p: cropped(p, 0.05, 0, 0, 0),
    "cropped bottom": lambda p: cropped(p, 0, 0, 0, 0.05),
    "in colour": lambda p: np.repeat(p[..., None], 3, axis=2),
}


def labels_of(pictures: list[Pixels], settings: DuplicateSettings | None = None) -> np.ndarray:
    return duplicates.group(np.stack([duplicates.thumbnail(p) for p in pictures]), settings)


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_copy_is_found_among_others(change: str) -> None:
    originals = [speckle(s) for s in range(40)]
    labels = labels_of(originals + [CHANGES[change](p) for p in originals])
    assert list(labels[:40]) == list(range(40)), "different pictures of one outline were merged"
    assert np.mean(labels[40:] == np.arange(40)) >= 0.95


def test_without_flips_and_crops_these_are_not_looked_for() -> None:
    pictures = [speckle(0), speckle(0)[:, ::-1]]
    assert list(labels_of(pictures, DuplicateSettings(flips=False, crops=False))) == [0, 1]


def test_real_pictures_are_not_merged_with_each_other(realdata: Path) -> None:
    folder = realdata / "dev/05_ultrasam_mmotu_coco/sample_dataset/sample_images"
    pictures = [np.asarray(cv2.imread(str(p), 0), np.uint8) for p in sorted(folder.glob("*.png"))]
    assert len(pictures) >= 5 and len(set(labels_of(pictures))) == len(pictures)


def test_blank_pictures_are_not_near_anything() -> None:
    assert list(labels_of([np.zeros((64, 64), np.uint8)] * 3)) == [0, 1, 2]


def test_a_long_chain_of_equal_pictures_is_one_group() -> None:
    labels = labels_of([speckle(1)] * 100 + [speckle(2)])
    assert set(labels[:100]) == {0} and labels[100] == 100


def test_groups_do_not_depend_on_the_order_of_the_pictures() -> None:
    pictures = [speckle(s) for s in range(20)] + [CHANGES["gain"](speckle(s)) for s in range(20)]
    order = RNG.permutation(40)
    plain, mixed = labels_of(pictures), labels_of([pictures[i] for i in order])
    same = [{frozenset(np.flatnonzero(found == v)) for v in set(found)} for found in (plain, mixed)]
    assert same[0] == {frozenset(int(order[i]) for i in group) for group in same[1]}


def test_the_hash_is_64_hex_digits_and_ignores_gain() -> None:
    first, second = (duplicates.phash(duplicates.thumbnail(p)) for p in (speckle(3), CHANGES["gain"](speckle(3))))
    assert len(first) == 64 and int(first, 16) >= 0
    assert (int(first, 16) ^ int(second, 16)).bit_count() <= 24


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_joined_labels_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    labels = np.arange(31, dtype=np.int64)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    duplicates.join(labels, ends[:, 0], ends[:, 1])
    expected = list(range(31))
    for _ in range(31):
        for one, other in pairs:
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert list(labels) == expected


def test_equal_keys_are_joined() -> None:
    labels = np.arange(5, dtype=np.int64)
    duplicates.join_equal(labels, np.array([b"b", b"a", b"b", b"c", b"a"], dtype="S1"))
    assert list(labels) == [0, 1, 0, 3, 1]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_a_thumbnail_is_the_mean_of_each_cell(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    blown_up = np.repeat(
        np.repeat(pixels, 32, axis=0), 32, axis=1
    )  # a cell of the thumbnail is height x width of these
    means = blown_up.reshape(32, height, 32, width).mean(axis=(1, 3))
    assert np.abs(duplicates.thumbnail(pixels) - means).max() <= 0.5 + 1e-6


def test_a_large_white_picture_has_a_white_thumbnail() -> None:
    assert duplicates.thumbnail(np.full((3000, 3001), 255, np.uint8)).min() == 255  # its sum is beyond 31 bits
