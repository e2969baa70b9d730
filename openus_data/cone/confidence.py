"""From the merit of a fit to the probability that its outline overlaps the truth at IoU >= 0.9.

One logistic curve, fitted to hand-drawn outlines of real images and to phantoms under up to four difficulties at once;
`docs/explain/scan-cone.md` has the reliability table, and what holding out one source at a time changes.
"""

from __future__ import annotations

import math
from typing import Final

_OFFSET: Final = -2.8
_SLOPE: Final = 4.1
_BEST_MERIT: Final = 1.6

REGION_ONLY: Final = 0.4
"""For a region's box taken as it is, since the picture says little."""


def confidence(merit: float) -> float:
    """Probability in (0, 1) that a shape of this merit (1.6 is the best) is right."""
    return 1 / (1 + math.exp(-(_OFFSET + _SLOPE * min(merit, _BEST_MERIT))))
