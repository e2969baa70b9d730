"""Burned-in text of what a build stores: found, filled, and looked for again until the stored picture is clean.

text = TextCleaner(terms, recipe.text).look(picture, crop)
text.cleaned(picture), text.boxes, text.remains
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from openus_data.deid.burned_in import SURE, Finder, find_text, find_text_in_clip, remove_text, rows_around
from openus_data.first_stage.crop import Crop
from openus_data.first_stage.records import DatasetTerms
from openus_data.recipe import TextRecipe
from openus_data.records import Pixels, TextBox

_CLEANING_PASSES: Final = 3
_OCR: Final[dict[str, bool | Literal["flagged"]]] = {"never": False, "flagged": "flagged", "always": True}
"""The recipe's words as `find_text` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedText:
    """Text found in one crop, looking again after each filling.

    Args:
        passes: what each look found, in pixels of the crop; filling them one by one gives the picture that was judged.
        remains: whether text is still seen after the last.
        judged: the picture after all of them, where it is a single one.
        inside: the scan area, bool (h, w); None where it fills the crop.
    """

    passes: tuple[tuple[TextBox, ...], ...] = ()
    remains: bool = False
    judged: Pixels | None = None
    inside: NDArray[np.bool_] | None = None

    @property
    def boxes(self) -> tuple[TextBox, ...]:
        """All of them, each once."""
        return tuple(sorted({b for boxes in self.passes for b in boxes}, key=lambda b: b.box))

    def cleaned(self, picture: Pixels) -> Pixels:
        """The picture (h, w[, 3]) without the text: the one that was judged, or this frame of a clip."""
        if self.judged is not None:
            return self.judged
        for found in self.passes:
            picture = remove_text(picture, found, self.inside)
        return picture


class TextCleaner:
    """Finds and fills text as the terms of a dataset and the recipe say.

    Args:
        terms: of the dataset.
        recipe: which detectors look, and what is done with doubt.
    """

    def __init__(self, terms: DatasetTerms, recipe: TextRecipe) -> None:
        self._is_masked = terms.policy == "mask"
        self._must_be_clean = terms.is_private and recipe.quarantine_doubtful
        self._ocr = _OCR[recipe.ocr]

    def look(self, shown: NDArray[np.uint8], crop: Crop) -> CleanedText:
        """Text in a cropped picture (h, w[, 3]) or, where it stands still, in the frames of a clip (T, h, w[, 3]).

        What is still seen after the boxes are filled is filled too, a few times over; private data are only kept when
        nothing is seen any more.
        """
        is_clip = shown.ndim - (shown.shape[-1] == 3) == 3
        finder: Finder = find_text_in_clip if is_clip else find_text
        inside = crop.inside_bool
        passes = [finder(shown, inside, ocr=self._ocr)]
        if not self._is_masked:
            return CleanedText(passes=tuple(passes))
        if not self._must_be_clean:
            judged = None if is_clip else remove_text(shown, passes[0], inside)
            return CleanedText(passes=tuple(passes), judged=judged, inside=inside)
        while passes[-1] and len(passes) <= _CLEANING_PASSES:
            new = passes[-1]
            shown = (
                np.stack([remove_text(f, new, inside) for f in shown]) if is_clip else remove_text(shown, new, inside)
            )
            changed = rows_around(new, inside, shown.shape[1:] if is_clip else shown.shape)
            passes.append(finder(shown, changed, ocr=self._ocr))  # the rest has been looked at
        *earlier, last = passes
        remains = any(b.score >= SURE for b in last)
        judged = None if is_clip else shown
        return CleanedText(passes=tuple(earlier), remains=remains, judged=judged, inside=inside)

    def look_again(self, standing: CleanedText, picture: Pixels, crop: Crop) -> CleanedText:
        """A clip's text, and what only this frame shows: a name may be there for a moment."""
        passing = self.look(standing.cleaned(picture), crop)
        return replace(passing, passes=standing.passes + passing.passes, remains=standing.remains or passing.remains)
