"""From the merit of a fit to the probability that its outline overlaps the truth at IoU >= 0.9.

A line between few points, each the share of good outlines at that merit among real frames, real frames changed in
sixteen ways, and phantoms; benchmarks/cone_calibration.py fits it, and `docs/explain/scan-cone.md` has the reliability
of curves that were fitted without the source they are judged on.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

CURVE: Final = (
    (-1.0, 0.02),
    (0.5, 0.19),
    (0.8, 0.755),
    (1.0, 0.77),
    (1.15, 0.813),
    (1.3, 0.92),
    (1.4, 0.951),
    (1.5, 0.99),
    (1.6, 0.995),
)
"""(merit, probability), both rising; 1.6 is about the best merit."""

REGION_ONLY: Final = 0.4
"""For a region's box taken as it is, since the picture says little."""


def confidence(merit: float) -> float:
    """Probability in (0, 1) that a shape of this merit (1.6 is the best) is right."""
    bounded = min(max(merit, CURVE[0][0]), CURVE[-1][0])
    above = min(bisect_right([at for at, _ in CURVE], bounded), len(CURVE) - 1)
    (low, start), (high, end) = CURVE[above - 1], CURVE[above]
    return start + (end - start) * (bounded - low) / (high - low)
