"""A scan area remembered per scanner."""

from __future__ import annotations

import random
from dataclasses import replace

from openus_data.cone import Consensus, settle
from openus_data.cone.consensus import box_overlap
from openus_data.records import Box, Cone


def linear(box: Box) -> Cone:
    """A rectangular scan area."""
    x0, y0, x1, y1 = box
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return Cone(geometry="linear", polygon=corners, box=box, confidence=0.8, method="image")


USUAL = linear((100, 50, 500, 450))


def test_what_most_images_agree_on_is_recalled() -> None:
    memory = Consensus()
    for _ in range(6):
        memory.add("scanner", USUAL)
    memory.add("scanner", linear((100, 50, 300, 200)))
    recalled = memory.recall("scanner")
    assert recalled is not None and recalled.box == USUAL.box
    assert recalled.method == "consensus" and 0.8 < recalled.confidence < 1
    assert memory.recall("another") is None


def test_few_or_quarrelling_images_say_nothing() -> None:
    memory = Consensus(least=3)
    memory.add("few", USUAL)
    for offset in range(0, 400, 100):
        memory.add("quarrel", linear((offset, 0, offset + 100, 100)))
    assert memory.recall("few") is None and memory.recall("quarrel") is None


def test_the_answer_does_not_depend_on_the_order_of_images() -> None:
    cones = [linear((100, 50, 500, 450 - i)) for i in range(9)]
    answers = set()
    for seed in range(4):
        shuffled = random.Random(seed).sample(cones, len(cones))
        memory = Consensus()
        for cone in shuffled:
            memory.add("scanner", cone)
        recalled = memory.recall("scanner")
        assert recalled is not None
        answers.add(recalled.box)
    assert len(answers) == 1


def test_frames_without_echo_do_not_vote() -> None:
    memory = Consensus(least=1)
    memory.add("scanner", replace(USUAL, geometry="none", polygon=(), box=(0, 0, 0, 0)))
    assert memory.recall("scanner") is None


def test_what_only_repeats_the_memory_does_not_vote() -> None:
    memory = Consensus(least=1)
    memory.add("scanner", replace(USUAL, method="consensus"))
    assert memory.recall("scanner") is None


def test_memories_of_several_workers_merge_into_the_memory_of_one() -> None:
    cones = [linear((100, 50, 500, 450 - i)) for i in range(23)]
    alone, shares = Consensus(), [Consensus() for _ in range(3)]
    for number, cone in enumerate(cones):
        alone.add("scanner", cone)
        shares[number % 3].add("scanner", cone)
    merged = Consensus()
    for share in reversed(shares):
        merged.merge(share)
    assert merged.recall("scanner") == alone.recall("scanner") is not None


def test_a_frame_takes_the_usual_area_only_when_unsure_and_within_it() -> None:
    usual = replace(USUAL, method="consensus", confidence=0.95)
    unsure = replace(linear((150, 100, 400, 300)), confidence=0.6)
    assert settle(unsure, usual, 480, 640) == usual
    sure = replace(unsure, confidence=0.93)
    assert settle(sure, usual, 480, 640) == sure
    beyond = replace(linear((20, 10, 300, 300)), confidence=0.6)
    assert settle(beyond, usual, 480, 640) == beyond
    rather_wrong = replace(beyond, confidence=0.3)
    assert settle(rather_wrong, usual, 480, 640) == usual
    page = replace(USUAL, geometry="none", polygon=(), box=(0, 0, 0, 0), confidence=0.5)
    assert settle(page, usual, 480, 640) == page


def test_boxes_overlap_by_their_areas() -> None:
    assert box_overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert abs(box_overlap((0, 0, 10, 10), (0, 0, 10, 5)) - 0.5) < 1e-9
