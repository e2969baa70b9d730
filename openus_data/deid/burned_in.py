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
from typing import Final

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
"""Probability from which a line is text although the OCR detector does not see it."""
_UNSEEN: Final = 0.5
"""Probability from which what the OCR detector had no time for is text."""
_WHITE: Final = 150
"""Darkest channel from which a pixel over colour flow may be a white letter's."""
CLIP_FRAMES: Final = 12
"""Frames of a clip, evenly spread, that text has to stand still on."""


def find_text(
    pixels: Pixels, inside: NDArray[np.bool_] | None = None, *, ocr: bool = False, trees: Trees | None = None
) -> tuple[TextBox, ...]:
    """Boxes of text and calliper labels, from left to right.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        inside: where to look, bool (H, W); None looks everywhere.
        ocr: let the detector of the `[ocr]` extra look too.
        trees: another gate than the packaged one.

    Returns:
        Boxes whose `score` is the gate's probability, or 1 where the OCR detector agrees.

    Raises:
        MissingExtra: `ocr` without the extra.
    """
    picture = relief(pixels, inside)
    patches = None if picture.chroma is None else flow_patches(picture.chroma)
    boxes = _find(pixels, picture, inside, patches, trees, ocr=ocr)
    if patches is not None:
        boxes += _find_white(picture, patches if inside is None else inside & patches, trees, ocr=ocr)
    return tuple(sorted(boxes, key=lambda b: b.box))


def find_text_closely(
    pixels: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None, *, finder: Finder = find_text
) -> tuple[TextBox, ...]:
    """What `finder` (`find_text`, `find_text_in_clip`) sees, judged by the OCR detector where the extra is installed.

    Without the extra, what the fast detector flags counts as text.
    """
    boxes = finder(pixels, inside, ocr=False)
    if not boxes:
        return boxes
    try:
        return finder(pixels, inside, ocr=True)
    except MissingExtra:
        return boxes


def _find(
    pixels: Pixels,
    picture: Relief,
    inside: NDArray[np.bool_] | None,
    patches: NDArray[np.bool_] | None,
    trees: Trees | None,
    *,
    ocr: bool,
) -> list[TextBox]:
    lines = candidate_lines(picture, inside)
    scores = chances(lines.features, trees)
    if patches is not None:
        likely = np.flatnonzero(scores >= POSSIBLE)
        scores[likely[is_flow(pixels, picture.tophat, patches, lines.boxes[likely])]] = 0.0
    found = merged(lines.boxes, scores, least=POSSIBLE if ocr else LIKELY, part=POSSIBLE)
    if not found:
        return []
    boxes = without_repeats([TextBox(box=completed(picture, b), score=s, detector="gate") for b, s in found])
    return confirmed(pixels, boxes, likely=_UNSEEN, sure=_ALONE) if ocr else boxes


def _find_white(picture: Relief, on_flow: NDArray[np.bool_], trees: Trees | None, *, ocr: bool) -> list[TextBox]:
    """White letters over flow: they do not stand out in the brightest channel, but they do in the darkest.

    There neither flow nor most tissue is left.
    """
    darkest = cv2.subtract(picture.level, picture.chroma)
    white = np.where(darkest > _WHITE, darkest, np.uint8(0))
    if not np.any(white[on_flow]):
        return []
    return _find(white, relief(white, on_flow), on_flow, None, trees, ocr=ocr)


def find_text_in_clip(
    frames: NDArray[np.uint8], inside: NDArray[np.bool_] | None = None, *, ocr: bool = False
) -> tuple[TextBox, ...]:
    """Boxes of text in a clip, uint8 (T, H, W) or (T, H, W, 3): text stands still while tissue moves.

    The darkest value of each pixel over time keeps what is always bright.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, CLIP_FRAMES).round().astype(int))
    darkest = frames[shown[0]]
    for index in shown[1:]:
        darkest = np.minimum(darkest, frames[index])
    return find_text(darkest, inside, ocr=ocr)


def remove_text(pixels: Pixels, boxes: Sequence[TextBox]) -> Pixels:
    """The picture with the text in the boxes filled from its neighbourhood; a copy, or the same without boxes."""
    if not boxes:
        return pixels
    return filled(pixels, [found.box for found in boxes])


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


__all__ = ["SURE", "Finder", "find_text", "find_text_closely", "find_text_in_clip", "remove_text", "text_remains"]
