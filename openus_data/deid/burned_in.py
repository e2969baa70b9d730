"""Burned-in text: find it in the picture, take it out of the picture, say whether any remains.

    boxes = find_text(pixels, inside)
    cleaned = remove_text(pixels, boxes)
    text_remains(cleaned, inside)

First `text_lines` proposes lines and `text_gate` says how likely each is text; what the gate holds for likely is then
completed to whole lines. With `ocr`, the detector of the `[ocr]` extra (`text_ocr`) looks closer at what the gate
proposes: it drops what only resembled text and completes what was found in part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.colour_flow import flow_patches, is_flow
from openus_data.deid.text_boxes import completed, merged, without_repeats
from openus_data.deid.text_gate import Trees, chances
from openus_data.deid.text_lines import candidate_lines
from openus_data.deid.text_ocr import confirmed
from openus_data.deid.text_removal import filled
from openus_data.deid.text_strokes import Relief, relief
from openus_data.errors import MissingExtra
from openus_data.records import Pixels, TextBox

Finder = Callable[..., tuple[TextBox, ...]]
"""`find_text` and what is called like it."""

LIKELY: Final = 0.1
"""Probability from which a line counts as text: where `benchmarks/train_text.py` has most of the words over speckle and
fewer than one text-free picture in ten."""
POSSIBLE: Final = 0.03
"""Probability from which a line is a part of the text beside it, and worth a look by the OCR detector."""
SURE: Final = 0.8
"""Probability from which a cleaned picture is not clean."""
_ALONE: Final = 0.95
"""Probability from which a line is text although the OCR detector does not see it: tissue goes before a name stays."""
_UNSEEN: Final = 0.5
"""Probability from which a line is text that the OCR detector had no time for, or lies in or beside what it saw."""
_WHITE: Final = 150
"""Darkest channel from which a pixel over colour flow may be a white letter's."""
_CONTEXT_PX: Final = 32
"""Room around what is looked at: ground that a line is held against, and what the OCR detector is shown."""
_CHANGED_PX: Final = 96
"""Room above and below a fill: more than the tallest line and the ground that it is held against."""
_RIM: Final = np.ones((3, 3), np.uint8)
CLIP_FRAMES: Final = 12
"""Frames of a clip, evenly spread, that text has to stand still on."""


class _Look(NamedTuple):
    """What the gate thinks of a part of a picture.

    Args:
        corner: (x, y) of the part.
        pixels: of the part, uint8 (h, w) or (h, w, 3).
        picture: what stands out of it.
        lines: boxes of the candidates in the part, (N, 4).
        scores: their probabilities, (N,).
    """

    corner: tuple[int, int]
    pixels: Pixels
    picture: Relief
    lines: NDArray[np.int64]
    scores: NDArray[np.float64]


def find_text(
    pixels: Pixels,
    inside: NDArray[np.bool_] | None = None,
    *,
    ocr: bool | Literal["flagged"] = False,
    trees: Trees | None = None,
) -> tuple[TextBox, ...]:
    """Boxes of text and calliper labels, from left to right.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        inside: where to look, bool (H, W); None looks everywhere.
        ocr: let the detector of the `[ocr]` extra look too; "flagged" only where the gate sees text at all, and where
            the extra is installed.
        trees: another gate than the packaged one.

    Returns:
        Boxes whose `score` is the gate's probability, or 1 where the OCR detector agrees.

    Raises:
        MissingExtra: `ocr=True` without the extra.
    """
    looks = _looks(pixels, None if inside is None else _without_rim(inside), trees)
    found = [_flagged(look, LIKELY) for look in looks]
    if ocr is True:
        found = [_confirmed(look) for look in looks]
    elif ocr and any(found):
        with suppress(MissingExtra):
            found = [_confirmed(look) for look in looks]
    boxes = [box for look, mine in zip(looks, found, strict=True) for box in _in_picture(look, mine)]
    return tuple(sorted(boxes, key=lambda b: b.box))


def _looks(pixels: Pixels, inside: NDArray[np.bool_] | None, trees: Trees | None) -> list[_Look]:
    """A look at the picture, and one at the white letters over its colour flow where it has any."""
    (left, top), pixels, inside = _cut(pixels, inside)
    if not pixels.size:
        return []
    picture = relief(pixels, inside)
    patches = None if picture.chroma is None else flow_patches(picture.chroma)
    lines = candidate_lines(picture)
    scores = chances(lines.features, trees)
    looks = [_Look((left, top), pixels, picture, lines.boxes, scores)]
    if patches is None:
        return looks
    likely = np.flatnonzero(scores >= POSSIBLE)
    scores[likely[is_flow(pixels, picture.tophat, patches, lines.boxes[likely])]] = 0.0
    for look in _looks(_whitest(picture), patches if inside is None else inside & patches, trees):
        looks.append(look._replace(corner=(left + look.corner[0], top + look.corner[1])))
    return looks


def _without_rim(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is looked at, but for its outermost pixel: an outline keeps a dark one beside the echo, which would make a
    stroke of every corner of the echo."""
    within = cv2.erode(inside.view(np.uint8), _RIM, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(within.view(np.bool_))


def _cut(pixels: Pixels, inside: NDArray[np.bool_] | None) -> tuple[tuple[int, int], Pixels, NDArray[np.bool_] | None]:
    """Upper left corner (x, y) of the part of a picture that is looked at, and the part: less of it is faster."""
    if inside is None:
        return (0, 0), pixels, None
    x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
    if not width:
        return (0, 0), pixels[:0], None
    left, top = max(0, x - _CONTEXT_PX), max(0, y - _CONTEXT_PX)
    part = np.s_[top : y + height + _CONTEXT_PX, left : x + width + _CONTEXT_PX]
    return (left, top), pixels[part], inside[part]


def _whitest(picture: Relief) -> Pixels:
    """What may be white letters over flow, all else black, (h, w).

    They do not stand out in the brightest channel, but they do in the darkest: there neither flow nor most tissue is
    left.
    """
    darkest = cv2.subtract(picture.level, picture.chroma)
    return np.asarray(cv2.threshold(darkest, _WHITE, 0, cv2.THRESH_TOZERO)[1], np.uint8)


def _flagged(look: _Look, least: float) -> list[TextBox]:
    """What the gate sees in the part, in pixels of the part."""
    found = merged(look.lines, look.scores, least=least, part=POSSIBLE)
    return without_repeats([TextBox(box=completed(look.picture, b), score=s, detector="gate") for b, s in found])


def _confirmed(look: _Look) -> list[TextBox]:
    """What the OCR detector leaves of it."""
    boxes = _flagged(look, POSSIBLE)
    if not boxes:
        return []
    likely = look.lines[look.scores >= _UNSEEN]
    return confirmed(look.pixels, boxes, likely, likely=_UNSEEN, sure=_ALONE)


def _in_picture(look: _Look, boxes: list[TextBox]) -> list[TextBox]:
    """Boxes of the part in pixels of the picture."""
    (x, y) = look.corner
    return [replace(b, box=(b.box[0] + x, b.box[1] + y, b.box[2] + x, b.box[3] + y)) for b in boxes]


def find_text_in_clip(
    frames: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None, *, ocr: bool | Literal["flagged"] = False
) -> tuple[TextBox, ...]:
    """Boxes of text in a clip, uint8 (T, H, W) or (T, H, W, 3): text stands still while tissue moves.

    The darkest value of each pixel over time keeps what is always bright.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, CLIP_FRAMES).round().astype(int))
    darkest = frames[shown[0]]
    for index in shown[1:]:
        darkest = np.minimum(darkest, frames[index])
    return find_text(darkest, inside, ocr=ocr)


def remove_text(pixels: Pixels, boxes: Sequence[TextBox], inside: NDArray[np.bool_] | None = None) -> Pixels:
    """The picture with the text in the boxes filled from its neighbourhood; a copy, or the same without boxes.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
        boxes: what `find_text` found.
        inside: what is filled and may be filled from, bool (H, W); None for all of the picture.
    """
    return filled(pixels, [found.box for found in boxes], inside) if boxes else pixels


def rows_around(
    boxes: Sequence[TextBox], inside: NDArray[np.bool_] | None, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Where filling the boxes can change what is found: their rows and some more of what is looked at, bool (H, W).

    Whole rows, since a line of text goes on to the left and right.

    Args:
        boxes: what was filled.
        inside: where the picture is looked at, bool (H, W); None looks everywhere.
        shape: of the picture.
    """
    where = np.zeros(shape[:2], bool)
    for found in boxes:
        rows = slice(max(0, found.box[1] - _CHANGED_PX), found.box[3] + _CHANGED_PX)
        where[rows] = True if inside is None else inside[rows]
    return where


def text_remains(pixels: Pixels, inside: NDArray[np.bool_] | None = None, *, ocr: bool = False) -> bool:
    """Whether a cleaned picture still holds something that is surely text.

    Args:
        pixels: after `remove_text`, uint8 (H, W) or (H, W, 3).
        inside: where to look, bool (H, W); None looks everywhere.
        ocr: let the detector of the `[ocr]` extra look too.

    Raises:
        MissingExtra: `ocr` without the extra.
    """
    return any(found.score >= SURE for found in find_text(pixels, inside, ocr=ocr))


__all__ = [
    "SURE",
    "Finder",
    "find_text",
    "find_text_in_clip",
    "remove_text",
    "rows_around",
    "text_remains",
]
