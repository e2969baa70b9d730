"""Burned-in text: find it in the picture, take it out of the picture, say whether any remains.

    boxes = find_text(pixels, inside)
    cleaned = remove_text(pixels, boxes)
    text_remains(cleaned, inside)

First `text_lines` proposes lines and `text_gate` says how likely each is text; what the gate holds for likely is then
completed to whole lines. The picture is looked at as it is, turned for words that run up or down, and at half its size
for large letters. With `ocr`, the detector of the `[ocr]` extra (`text_ocr`) looks closer at what the gate
proposes: it drops what only resembled text and completes what was found in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.deid.colour_flow import flow_patches, is_flow, on_patches
from openus_data.deid.text_boxes import completed, merged, without_repeats
from openus_data.deid.text_gate import Trees, chances
from openus_data.deid.text_lines import SMALLEST_PX, candidate_lines
from openus_data.deid.text_ocr import confirmed
from openus_data.deid.text_removal import filled
from openus_data.deid.text_strokes import Relief, Strokes, relief, stroke_families, turned
from openus_data.errors import MissingExtra
from openus_data.records import Box, Pixels, TextBox

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
_TURN: Final = cv2.ROTATE_90_COUNTERCLOCKWISE
_CROSSED: Final = 0.3
"""Part of the smaller of two lines that lies in the other, from which the likelier one stands."""
_LARGE_PX: Final = 20
"""Height from which a line is looked for at half the size, where widely set letters come closer."""
_NOISE: Final = 30.0
_CLEAR: Final = 0.99
"""Mean height of what stands out, and the probability that a line needs from there on: the height is up to 26 in real
ultrasound and from 35 on in white noise, for which no tree was trained."""
_COVERED: Final = 0.6
"""Part of a large line from which it is found already."""
CLIP_FRAMES: Final = 12
"""Frames of a clip, evenly spread, that text has to stand still on."""
Way = Literal["as it is", "turned", "halved"]
"""How a part of a picture is looked at; turned is a quarter against the clock."""
_LEAST: Final[Mapping[Way, float]] = {"as it is": LIKELY, "turned": _ALONE, "halved": SURE}
"""Probability from which a line counts as text: words that run up or down are rare, and their gate was not trained."""


class _Look(NamedTuple):
    """What the gate thinks of a part of a picture.

    Args:
        corner: (x, y) of the part.
        pixels: of the part as it is looked at, uint8 (h, w) or (h, w, 3).
        picture: what stands out of them.
        lines: boxes of the candidates in them, (N, 4).
        scores: their probabilities, (N,).
        way: how the part is looked at.
        others: in which other ways it is worth looking at.
        least: probability from which a line counts as text.
    """

    corner: tuple[int, int]
    pixels: Pixels
    picture: Relief
    lines: NDArray[np.int64]
    scores: NDArray[np.float64]
    way: Way
    others: tuple[Way, ...]
    least: float

    def back(self, box: Box) -> Box:
        """A box of what is looked at in pixels of the picture."""
        x0, y0, x1, y1 = box
        if self.way == "turned":
            width = self.pixels.shape[0]
            x0, y0, x1, y1 = width - y1, x0, width - y0, x1
        elif self.way == "halved":
            x0, y0, x1, y1 = 2 * x0, 2 * y0, 2 * x1, 2 * y1
        x, y = self.corner
        return x0 + x, y0 + y, x1 + x, y1 + y


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
    if ocr == "flagged":
        with suppress(MissingExtra):
            return _found(looks, ocr=any(_flagged(look, look.least) for look in looks))
    return _found(looks, ocr=ocr is True)


def _found(looks: list[_Look], *, ocr: bool) -> tuple[TextBox, ...]:
    """What the looks see, in pixels of the picture; the other ways only where they add to the first."""
    boxes: list[TextBox] = []
    for look in looks:
        if look.way == "halved":
            look = _without_found(look, boxes)
        mine = _flagged(look, POSSIBLE if ocr and look.way == "as it is" else look.least)
        if ocr and mine:
            likely = look.lines[look.scores >= _UNSEEN]
            mine = confirmed(look.pixels, mine, likely, likely=_UNSEEN, sure=_ALONE)
        boxes += [replace(one, box=look.back(one.box)) for one in mine]
    return tuple(sorted(boxes, key=lambda b: b.box))


def _looks(pixels: Pixels, inside: NDArray[np.bool_] | None, trees: Trees | None) -> list[_Look]:
    """A look at the picture as it is, and one at the white letters over its colour flow where it has any.

    Where strokes stand below each other like letters it is looked at turned (one real picture in six), where large ones
    stand beside each other at half its size (one in twenty).
    """
    corner, pixels, inside = _cut(pixels, inside)
    if not pixels.size:
        return []
    picture = relief(pixels, inside)
    patches = None if picture.chroma is None else flow_patches(picture.chroma)
    families = stroke_families(picture)
    looks = [_look(corner, pixels, families, trees)]
    if patches is not None:
        likely = np.flatnonzero(looks[0].scores >= POSSIBLE)
        looks[0].scores[likely[is_flow(pixels, picture.tophat, patches, looks[0].lines[likely])]] = 0.0
        looks += _white_over_flow(corner, picture, patches if inside is None else inside & patches, trees)
    for way in looks[0].others:
        look, its_patches = _other_way(way, corner, pixels, families, inside, patches, trees)
        if its_patches is not None:
            look.scores[on_patches(its_patches, look.lines)] = 0.0
        look.scores[_is_crossed(look, looks[0])] = 0.0
        looks.append(look)
    return looks


def _is_crossed(look: _Look, plain: _Look) -> NDArray[np.bool_]:
    """Which lines of another look are crossed by a likelier one: letters below each other are no word."""
    is_crossed = np.zeros(len(look.lines), bool)
    for k in np.flatnonzero(look.scores >= look.least).tolist():
        x0, y0, x1, y1 = look.back(_box(look.lines[k]))
        others = plain.lines[plain.scores > look.scores[k]] + np.tile(plain.corner, 2)
        width = np.minimum(others[:, 2], x1) - np.maximum(others[:, 0], x0)
        height = np.minimum(others[:, 3], y1) - np.maximum(others[:, 1], y0)
        shared = width.clip(0) * height.clip(0)
        areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
        is_crossed[k] = bool((shared > _CROSSED * np.minimum(areas, (x1 - x0) * (y1 - y0))).any())
    return is_crossed


def _look(
    corner: tuple[int, int], pixels: Pixels, families: list[Strokes], trees: Trees | None, way: Way = "as it is"
) -> _Look:
    picture = families[0].picture
    lines = candidate_lines(picture, _LARGE_PX // 2 if way == "halved" else SMALLEST_PX, families)
    least = max(_LEAST[way], _least_in_noise(picture))
    worth: dict[Way, bool] = {"turned": lines.may_run_down, "halved": lines.may_be_large}
    others = tuple(other for other, is_worth in worth.items() if is_worth)
    return _Look(corner, pixels, picture, lines.boxes, chances(lines.features, trees), way, others, least)


def _least_in_noise(picture: Relief) -> float:
    """Probability that a line needs where strokes stand out everywhere, as in noise without grain; 0 in tissue."""
    looked_at = None
    if picture.outside is not None:
        height, width = picture.usual.shape
        small = cv2.resize(picture.outside, (width, height), interpolation=cv2.INTER_NEAREST)
        looked_at = cv2.bitwise_not(small)
    return _CLEAR if cv2.mean(picture.usual, looked_at)[0] >= _NOISE else 0.0


def _white_over_flow(
    corner: tuple[int, int], picture: Relief, where: NDArray[np.bool_], trees: Trees | None
) -> Iterator[_Look]:
    """A look at what may be white letters over flow."""
    (left, top), pixels, inside = _cut(_whitest(picture), where)
    if pixels.size:
        strokes = stroke_families(relief(pixels, inside))
        yield _look((corner[0] + left, corner[1] + top), pixels, strokes, trees)


def _other_way(
    way: Way,
    corner: tuple[int, int],
    pixels: Pixels,
    families: list[Strokes],
    inside: NDArray[np.bool_] | None,
    patches: NDArray[np.bool_] | None,
    trees: Trees | None,
) -> tuple[_Look, NDArray[np.bool_] | None]:
    """The picture turned or at half its size, with its patches of flow."""
    if way == "turned":
        look = _look(corner, np.asarray(cv2.rotate(pixels, _TURN), np.uint8), turned(families), trees, way)
        return look, None if patches is None else np.rot90(patches)
    height, width = (side // 2 for side in pixels.shape[:2])
    small = np.asarray(cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))
    where = None if inside is None else _halved(inside[: 2 * height, : 2 * width])
    look = _look(corner, small, stroke_families(relief(small, where)), trees, way)
    return look, None if patches is None else patches[: 2 * height : 2, : 2 * width : 2]


def _halved(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where all four pixels are looked at: a dark one from outside would be half of a stroke."""
    rows = inside[::2] & inside[1::2]
    return np.ascontiguousarray(rows[:, ::2] & rows[:, 1::2])


def _box(row: NDArray[np.int64]) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return x0, y0, x1, y1


def _without_found(look: _Look, boxes: Sequence[TextBox]) -> _Look:
    """The look without the lines that lie in boxes of text that is found already."""
    likely = np.flatnonzero(look.scores >= look.least)
    left = [k for k in likely.tolist() if not _is_covered(look.back(_box(look.lines[k])), boxes)]
    return look._replace(lines=look.lines[left], scores=look.scores[left])


def _is_covered(box: Box, others: Sequence[TextBox]) -> bool:
    x0, y0, x1, y1 = box
    free = np.ones((y1 - y0, x1 - x0), bool)
    for other in others:
        left, top, right, bottom = other.box
        free[max(0, top - y0) : max(0, bottom - y0), max(0, left - x0) : max(0, right - x0)] = False
    return bool(free.mean() <= 1 - _COVERED)


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
    if look.way != "halved":  # there, what goes on beside a line is mostly tissue
        found = [(completed(look.picture, box), score) for box, score in found]
    return without_repeats([TextBox(box=box, score=score, detector="gate") for box, score in found])


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
