"""A name that shows in some frames of a clip only is filled in those, and nothing is filled in the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.first_stage.encode import decode_stored
from openus_data.first_stage.records import DatasetTerms, EncodedSample
from openus_data.first_stage.sample_maker import SampleMaker
from openus_data.phantom import phantom
from openus_data.recipe import BuildRecipe
from openus_data.records import Item, Media, Pixels

SHOWN = 3


@pytest.fixture(scope="module")
def clip() -> NDArray[np.uint8]:
    return np.array(phantom(6, geometry="linear", width=400, height=300, frames=6, interface=False).frames)


def built(frames: NDArray[np.uint8], policy: str = "mask") -> tuple[tuple[EncodedSample, ...], int]:
    def read(wanted: Sequence[int] | None) -> Iterator[tuple[int, Pixels]]:
        yield from ((n, frames[n]) for n in (range(len(frames)) if wanted is None else wanted))

    height, width = frames.shape[1:3]
    media = Media(kind="clip", frame_count=len(frames), height_px=height, width_px=width, read=read)
    terms = DatasetTerms(
        dataset="clips",
        role="pretrain",
        license=None,
        redistributable=False,
        card_sha256="",
        is_private=True,
        header_subject=False,
        family=None,
        policy=policy,  # type: ignore[arg-type]
        pseudonymizer=Pseudonymizer(key=b"k" * 32),
    )
    item = Item(dataset="clips", path=Path("clip"), relative="clip")
    samples, rejects = SampleMaker(item, "source", media, terms, BuildRecipe()).run()
    return samples, sum(reject.stage == "text" for reject in rejects)


def named(frames: NDArray[np.uint8], shown: Sequence[int]) -> NDArray[np.uint8]:
    out = frames.copy()
    for number in shown:
        cv2.putText(out[number], "DOE JANE", (155, 170), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * (out.ndim - 2), 1)
    return out


def boxes_of(samples: Sequence[EncodedSample]) -> list[bool]:
    return [bool(sample.candidate.row["text_boxes_removed"]) for sample in samples]


def test_a_clip_without_words_is_left_as_it_is(clip: NDArray[np.uint8]) -> None:
    assert boxes_of(built(clip)[0]) == [False] * len(clip)


def test_a_name_in_one_frame_is_filled_there_and_only_there(clip: NDArray[np.uint8]) -> None:
    samples, turned_away = built(named(clip, [SHOWN]))
    assert boxes_of(samples) == [n == SHOWN for n in range(len(clip))] and not turned_away
    plain = built(clip)[0]
    for number, (with_name, without) in enumerate(zip(samples, plain, strict=True)):
        assert (with_name.image == without.image) == (number != SHOWN)
    stored, tissue = (decode_stored(s[SHOWN].image).astype(int) for s in (samples, plain))
    assert np.mean(np.abs(stored - tissue) > 90) < 0.001


def test_under_quarantine_only_the_frame_with_the_name_is_turned_away(clip: NDArray[np.uint8]) -> None:
    samples, turned_away = built(named(clip, [SHOWN]), policy="quarantine")
    assert len(samples) == len(clip) - 1 and turned_away == 1


def test_a_name_that_stands_still_is_filled_in_every_frame(clip: NDArray[np.uint8]) -> None:
    assert boxes_of(built(named(clip, range(len(clip))))[0]) == [True] * len(clip)
