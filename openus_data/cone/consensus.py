"""One scan area remembered per scanner: what many images of one device and frame size agree on.

    memory = Consensus()
    for key, cone in detections: memory.add(key, cone)
    usual = memory.recall(key)
    cone = cone if usual is None else settle(cone, usual, height, width)    # what detect(frames, prior=usual) does

A scanner paints its echo in the same place until someone turns a knob, so the images with much echo speak for those
with little. Detections are counted in buckets of alike boxes, so a memory stays small however many images it has seen,
and what it recalls depends neither on their order nor on how they were shared out and merged.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openus_data.cone.outline import raster
from openus_data.records import Box, Cone

_AGREE = 0.9
_BUCKET_PX = 4
_MOST_CANDIDATES = 64
SURE = 0.9
"""From this confidence on a frame's own outline stands, whatever the others say."""
_WITHIN = 0.97
_RATHER_WRONG = 0.5
_Bucket = tuple[str, int, int, int, int]


@dataclass(slots=True)
class _Alike:
    """Cones of one geometry whose boxes are within a few pixels: how many, and the one that was surest."""

    count: int
    cone: Cone

    def take_in(self, count: int, cone: Cone) -> None:
        """Count more of the same kind."""
        self.count += count
        if cone.confidence >= self.cone.confidence:  # else it is not the surest, whatever the rest
            self.cone = max(self.cone, cone, key=_rank)


class Consensus:
    """Scan areas by key, for example (manufacturer, model, height, width).

    Args:
        least: images that must agree.
        share: part of the images of a key that must agree, 0 to 1.
    """

    def __init__(self, *, least: int = 5, share: float = 0.6) -> None:
        self._least, self._share = least, share
        self._seen: dict[Hashable, dict[_Bucket, _Alike]] = {}

    def add(self, key: Hashable, cone: Cone) -> None:
        """Remember one detection; those without echo, and those that only repeat a memory, say nothing."""
        if cone.geometry != "none" and cone.method != "consensus":
            self._count(key, 1, cone)

    def merge(self, other: Consensus) -> None:
        """Remember all that another memory has seen, for example that of another worker."""
        for key, buckets in other._seen.items():
            for alike in buckets.values():
                self._count(key, alike.count, alike.cone)

    def recall(self, key: Hashable) -> Cone | None:
        """What the images of a key agree on; None where they are few or do not agree.

        Of those that agree the upper quartile by area is taken, since shadow makes areas smaller and nothing makes
        them larger. Its confidence is the part that agrees.
        """
        alike = sorted(self._seen.get(key, {}).values(), key=lambda a: (_area(a.cone.box), a.cone.box, a.cone.polygon))
        counts = np.array([a.count for a in alike], np.int64)
        if counts.sum() < self._least:
            return None
        agree = _largest_agreement([a.cone for a in alike], counts)
        agreeing = counts * agree
        share = float(agreeing.sum() / counts.sum())
        if agreeing.sum() < self._least or share < self._share:
            return None
        chosen = alike[int(np.searchsorted(agreeing.cumsum(), 0.75 * agreeing.sum(), side="right"))].cone
        return replace(chosen, method="consensus", confidence=round(share, 4))

    def _count(self, key: Hashable, count: int, cone: Cone) -> None:
        x0, y0, x1, y1 = (side // _BUCKET_PX for side in cone.box)
        bucket = (cone.geometry, x0, y0, x1, y1)
        buckets = self._seen.setdefault(key, {})
        if bucket in buckets:
            buckets[bucket].take_in(count, cone)
        else:
            buckets[bucket] = _Alike(count, cone)


def _rank(cone: Cone) -> tuple[object, ...]:
    """A total order, so that which of several equally sure ones is kept depends on no order of arrival."""
    return cone.confidence, cone.box, cone.polygon, repr((sorted(cone.parameters.items()), cone.method, cone.panels))


def settle(cone: Cone, prior: Cone, height: int, width: int) -> Cone:
    """The scanner's usual scan area, where a frame is less sure of its own and shows nothing outside the usual one.

    An outline that is more likely wrong than right is no evidence of what it shows outside.

    Args:
        cone: what the frame itself shows; `none` stays `none`, since a report page of a scanner has no scan area.
        prior: what `Consensus.recall` gave for its device and frame size.
        height, width: of the frame, px.
    """
    if cone.geometry == "none" or cone.confidence >= min(SURE, prior.confidence):
        return cone
    if cone.confidence < _RATHER_WRONG:
        return prior
    found, usual = raster(cone, height, width), raster(prior, height, width)
    return prior if (found & usual).sum() >= _WITHIN * found.sum() else cone


def box_overlap(one: Box, other: Box) -> float:
    """Intersection over union of two half-open boxes."""
    return float(_overlaps(np.array([one]), np.array(other))[0])


def _largest_agreement(cones: list[Cone], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the cones (N,) agree with the one, of the most frequent ones, that most images agree with."""
    boxes = np.array([cone.box for cone in cones], np.int64)
    names = np.array([cone.geometry for cone in cones])
    candidates = np.argsort(-counts, kind="stable")[:_MOST_CANDIDATES]
    agree = [(names == names[c]) & (_overlaps(boxes, boxes[c]) >= _AGREE) for c in candidates]
    return max(agree, key=lambda mask: int(counts[mask].sum()))


def _overlaps(boxes: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) with one (4,)."""
    width = np.minimum(boxes[:, 2], other[2]) - np.maximum(boxes[:, 0], other[0])
    height = np.minimum(boxes[:, 3], other[3]) - np.maximum(boxes[:, 1], other[1])
    both = np.maximum(0, width) * np.maximum(0, height)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = area + (other[2] - other[0]) * (other[3] - other[1]) - both
    share: NDArray[np.float64] = both / np.maximum(1, union)
    return share


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
