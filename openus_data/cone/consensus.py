"""One scan area remembered per scanner: what many images of one device and frame size agree on.

    memory = Consensus()
    for key, cone in detections: memory.add(key, cone)
    detect(frames, prior=memory.recall(key))

A scanner paints its echo in the same place until someone turns a knob, so the images with much echo speak for those
with little.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from openus_data.records import Box, Cone

_AGREE = 0.9


class Consensus:
    """Scan areas by key, for example (manufacturer, model, height, width).

    Args:
        least: images that must agree.
        share: part of the images of a key that must agree, 0 to 1.
    """

    def __init__(self, *, least: int = 5, share: float = 0.6) -> None:
        self._least, self._share = least, share
        self._seen: dict[Hashable, list[Cone]] = {}

    def add(self, key: Hashable, cone: Cone) -> None:
        """Remember one detection; those without echo say nothing."""
        if cone.geometry != "none":
            self._seen.setdefault(key, []).append(cone)

    def recall(self, key: Hashable) -> Cone | None:
        """What the images of a key agree on, independent of their order; None where they are few or do not agree.

        Of those that agree the upper quartile by area is taken, since shadow makes areas smaller and nothing makes
        them larger. Its confidence is the part that agrees.
        """
        cones = sorted(self._seen.get(key, ()), key=lambda cone: (_area(cone.box), cone.box, cone.polygon))
        if len(cones) < self._least:
            return None
        agreeing = max((_agreeing(cone, cones) for cone in cones), key=len)
        share = len(agreeing) / len(cones)
        if len(agreeing) < self._least or share < self._share:
            return None
        chosen = agreeing[min(len(agreeing) - 1, 3 * len(agreeing) // 4)]
        return replace(chosen, method="consensus", confidence=round(share, 4))


def box_overlap(one: Box, other: Box) -> float:
    """Intersection over union of two half-open boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    return both / max(1, _area(one) + _area(other) - both)


def _agreeing(cone: Cone, cones: list[Cone]) -> list[Cone]:
    return [c for c in cones if c.geometry == cone.geometry and box_overlap(c.box, cone.box) >= _AGREE]


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
