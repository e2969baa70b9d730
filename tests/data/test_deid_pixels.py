"""Frames come out black outside the scan area and without text inside it, in every frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planted import speckle

from openus_data.deid.pixels import clean_frames

SIZE = (300, 400)


def written(picture: NDArray[np.uint8], text: str, place: tuple[int, int]) -> NDArray[np.bool_]:
    """Write text into a picture, in place; returns where."""
    before = picture.copy()
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * picture.ndim, 1)
    changed = picture != before
    return np.asarray(changed if changed.ndim == 2 else changed.any(axis=2))


@pytest.fixture
def clip() -> NDArray[np.uint8]:
    """Six frames whose speckle has a grain of a few pixels, as a beam gives it."""
    return np.stack([cv2.GaussianBlur(speckle(*SIZE, seed=n), (0, 0), 1.2) for n in range(6)]).astype(np.uint8)


@pytest.fixture
def inside(clip: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(cv2.morphologyEx(clip.max(axis=0), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)


def test_everything_outside_is_black_in_every_frame(clip: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    for frame in clip:
        written(frame, "SMITH^JANE 1961", (4, 20))
    result = clean_frames(clip, inside)
    assert result.frames is clip and not clip[:, ~inside].any()
    assert len(result.boxes) == len(clip)


@pytest.mark.parametrize("frames", [[0, 1, 2, 3, 4, 5], [3]], ids=["standing", "for a moment"])
def test_text_inside_goes_whether_it_stands_or_flashes(
    clip: NDArray[np.uint8], inside: NDArray[np.bool_], frames: list[int]
) -> None:
    where = [written(clip[n], "JANE SMITH", (150, 200)) for n in frames]
    result = clean_frames(clip, inside)
    assert all(result.boxes[n] for n in frames) and not result.is_doubtful
    for n, mask in zip(frames, where, strict=True):
        assert (clip[n][mask & inside] < 250).mean() > 0.95


def test_colour_frames_are_cleaned_too(clip: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    colour = np.repeat(clip[:1, ..., None], 3, axis=3)
    mask = written(colour[0], "JANE SMITH", (150, 200))
    result = clean_frames(colour, inside)
    assert result.boxes[0] and (colour[0][mask & inside] < 250).mean() > 0.95
    assert not colour[:, ~inside].any()


def test_without_an_outline_the_whole_frame_is_searched(clip: NDArray[np.uint8]) -> None:
    mask = written(clip[0], "JANE SMITH", (4, 20))
    assert clean_frames(clip[:1], None).boxes[0]
    assert (clip[0][mask] < 250).mean() > 0.95
