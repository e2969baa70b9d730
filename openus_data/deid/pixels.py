"""Frames without text: black outside the scan area, text inside it found, filled and looked for again.

result = clean_frames(frames, inside)
if result.is_doubtful: ...            # text is still found after it was filled
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data.deid.burned_in import find_text, find_text_in_clip, remove_text, rows_around, text_remains
from openus_data.records import Pixels, TextBox

ROUNDS: Final = 6
"""How often a frame is looked at and filled before it counts as doubtful. A fill from the neighbourhood can leave edges
that read as strokes, and changes what stands out around it; from the fourth round on boxes are filled by their mean."""
_STILL: Final = 0.5
"""Probability from which what is found after a fill is filled again: the first round took whatever could be text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanFrames:
    """Frames after cleaning.

    Args:
        frames: uint8, the array given.
        boxes: per frame, what was filled.
        is_doubtful: whether surely text was still found in a frame at the end.
    """

    frames: NDArray[np.uint8] = field(repr=False)
    boxes: tuple[tuple[TextBox, ...], ...]
    is_doubtful: bool


def clean_frames(frames: NDArray[np.uint8], inside: NDArray[np.bool_] | None, *, ocr: bool = False) -> CleanFrames:
    """Black out what lies outside, and remove text from the rest.

    Text that stands still in a clip is found once for all its frames; each frame is then looked at by itself, since a
    name may be shown for a moment only.

    Args:
        frames: uint8, (T, H, W) or (T, H, W, 3); changed in place, since a clip may fill the memory.
        inside: the scan area, bool (H, W); None where it is the whole frame.
        ocr: let the detector of the `[ocr]` extra look too.

    Raises:
        MissingExtra: `ocr` without the extra.
    """
    outside = None if inside is None else ~inside
    if outside is not None:
        for pixels in frames:
            pixels[outside] = 0
    standing = find_text_in_clip(frames, inside, ocr=ocr) if len(frames) > 1 else ()
    removed: list[tuple[TextBox, ...]] = []
    doubtful = False
    for pixels in frames:
        picture, boxes, rest = _clean_one(pixels, inside, standing, ocr=ocr and len(frames) == 1)
        pixels[...] = picture
        if outside is not None:
            pixels[outside] = 0  # `_flatten` may spill over the outline
        removed.append(boxes)
        doubtful |= rest
    return CleanFrames(frames=frames, boxes=tuple(removed), is_doubtful=doubtful)


def _clean_one(
    pixels: Pixels, inside: NDArray[np.bool_] | None, standing: tuple[TextBox, ...], *, ocr: bool
) -> tuple[Pixels, tuple[TextBox, ...], bool]:
    """The picture, what was filled, and whether text is still found."""
    picture, filled = remove_text(pixels, standing, inside), standing
    where = inside
    for attempt in range(ROUNDS):
        found = tuple(b for b in find_text(picture, where, ocr=ocr) if not attempt or b.score >= _STILL)
        if not found:
            return picture, filled, False
        picture = remove_text(picture, found, inside) if attempt < 3 else _flatten(picture, found)
        filled = (*filled, *found)
        where = rows_around(found, inside, pixels.shape)  # the rest has been looked at
    return picture, filled, text_remains(picture, inside, ocr=ocr)


def _flatten(pixels: Pixels, boxes: tuple[TextBox, ...]) -> Pixels:
    """The picture with each box filled by its own mean: what a fill from the neighbourhood could not calm."""
    flat = pixels.copy()
    for found in boxes:
        x0, y0, x1, y1 = found.box
        flat[y0:y1, x0:x1] = flat[y0:y1, x0:x1].mean(axis=(0, 1)).astype(np.uint8)
    return flat
