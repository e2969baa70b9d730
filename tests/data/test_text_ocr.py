"""The OCR detector drops what is no text and cuts boxes to it, but leaves nothing out that the gate is sure of."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.deid import text_ocr
from openus_data.deid.text_ocr import confirmed
from openus_data.records import Box, TextBox

NO_LINES = np.zeros((0, 4), np.int64)


def detector(shown: NDArray[np.uint8]) -> tuple[list[list[list[int]]] | None, float]:
    """Sees every bright rectangle."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((shown[..., 0] > 128).astype(np.uint8))
    quads = [[[x, y], [x + w, y], [x + w, y + h], [x, y + h]] for x, y, w, h, _ in stats[1:].tolist()]
    return quads or None, 0.0


def judged(
    drawn: Sequence[Box],
    proposed: Sequence[tuple[Box, float]],
    lines: NDArray[np.int64] = NO_LINES,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> list[TextBox]:
    monkeypatch.setattr(text_ocr, "_detector", lambda: detector)
    pixels = np.zeros((200, 400), np.uint8)
    for x0, y0, x1, y1 in drawn:
        pixels[y0:y1, x0:x1] = 255
    boxes = [TextBox(box=box, score=score, detector="gate") for box, score in proposed]
    return confirmed(pixels, boxes, lines, likely=0.5, sure=0.8)


def test_a_box_is_cut_to_what_is_seen_and_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = judged([(100, 50, 160, 62)], [((20, 40, 300, 80), 0.3)], monkeypatch=monkeypatch)
    x0, y0, x1, y1 = found.box
    assert found.detector == "ocr" and found.score == 1.0
    assert 90 <= x0 < 100 and 160 < x1 <= 170 and 40 <= y0 < 50 and 62 < y1 <= 72


def test_what_is_seen_beyond_a_box_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = judged([(100, 50, 160, 62)], [((90, 48, 140, 64), 0.3)], monkeypatch=monkeypatch)
    assert found.box[2] >= 160 and found.box[:2] >= (90, 48)


def test_likely_lines_of_a_box_are_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = np.array([(200, 50, 250, 62), (20, 120, 80, 130)])
    (found,) = judged([(100, 50, 160, 62)], [((20, 48, 300, 66), 0.6)], lines, monkeypatch=monkeypatch)
    assert found.box[2] == 250 and 90 <= found.box[0] < 100 and found.box[3] <= 66


def test_unseen_boxes_stay_only_where_the_gate_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    proposed = [((20, 20, 80, 34), 0.9), ((20, 100, 80, 114), 0.7)]
    assert [b.box for b in judged([], proposed, monkeypatch=monkeypatch)] == [(20, 20, 80, 34)]


def test_a_likely_box_in_the_row_of_a_seen_one_stays_with_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = np.array([(230, 50, 260, 64)])
    proposed = [((90, 46, 220, 66), 0.9), ((200, 46, 390, 66), 0.6), ((200, 120, 390, 136), 0.6)]
    seen, beside = judged([(100, 50, 190, 62)], proposed, lines, monkeypatch=monkeypatch)
    assert seen.detector == "ocr" and beside.detector == "gate" and beside.box == (230, 50, 260, 64)


@pytest.mark.parametrize("shape", [(200, 400), (200, 400, 3)])
def test_what_the_first_look_misses_is_looked_at_closer(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sees_large(shown: NDArray[np.uint8]) -> tuple[list[list[list[int]]] | None, float]:
        quads, seconds = detector(shown)
        return [quad for quad in quads or [] if quad[2][1] - quad[0][1] > 36] or None, seconds

    monkeypatch.setattr(text_ocr, "_detector", lambda: sees_large)
    pixels = np.full(shape, 40, np.uint8)
    pixels[50:60, 100:160] = pixels[150:160, 100:160] = 110  # faint, too: as dark as this detector's ground
    boxes = [TextBox(box=(98, y, 170, y + 14), score=s, detector="gate") for y, s in ((48, 0.3), (148, 0.05))]
    (found,) = confirmed(pixels, boxes, NO_LINES, likely=0.5, sure=0.8)
    assert found.detector == "ocr" and found.box[0] <= 100 and found.box[2] >= 160 and found.box[1] < 100


def test_closer_looks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_px = []
    monkeypatch.setattr(
        text_ocr, "_detector", lambda: lambda shown: (shown_px.append(shown[..., 0].size), (None, 0.0))[1]
    )
    boxes = [TextBox(box=(20, y, 200, y + 16), score=0.4, detector="gate") for y in range(20, 160, 20)]
    assert confirmed(np.zeros((200, 400), np.uint8), boxes, NO_LINES, likely=0.5, sure=0.8) == []
    first, closer = shown_px[: len(boxes)], shown_px[len(boxes) :]
    assert len(first) == len(boxes) and closer and sum(closer) <= text_ocr._CLOSER_PX


def test_what_there_is_no_time_for_keeps_the_gates_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_ocr, "_MOST_CROPS", 1)
    proposed = [((20, 20, 80, 34), 0.6), ((20, 60, 80, 74), 0.6), ((20, 100, 80, 114), 0.4)]
    assert [b.box for b in judged([], proposed, monkeypatch=monkeypatch)] == [(20, 60, 80, 74)]
