"""Connected parts of the echo at one level, and which of them make one scan area.

Shadow and fluid cut a scan area into parts above, below and beside each other; a second panel or a spectral strip is a
part as well. So several groups are proposed, each with a price for the parts that it leaves out, and the fit decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Evidence
from openus_data.cone.profile import Mask

_OPEN = np.ones((3, 3), np.uint8)
_LEAST_CELLS = 60
_BESIDE_AREA = 0.2
_WORD_TALL, _WORD_WIDE = 0.07, 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts of a mask (h, w), the main one first.

    Args:
        labels: int32 (h, w), 0 where there is nothing.
        order: labels of the parts, by weight.
        box: (N, 4) of x0, y0, x1, y1 by label.
        area: (N,) cells by label.
    """

    labels: NDArray[np.int32]
    order: NDArray[np.intp]
    box: NDArray[np.int64]
    area: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Cells of all parts."""
        return int(self.area[1:].sum())

    def mask(self, chosen: NDArray[np.intp]) -> Mask:
        """Cells of the chosen labels."""
        cells: Mask
        if len(chosen) == 1:  # which is several times as fast
            cells = self.labels == chosen[0]
            return cells
        keep = np.zeros(len(self.area), np.bool_)
        keep[chosen] = True
        cells = keep[self.labels]
        return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parts taken together, and what it costs to leave out the others."""

    mask: Mask
    price: float


def find_parts(evidence: Evidence, level: int, allowed: Mask | None = None) -> Parts | None:
    """Parts more than `level` above the background, thin ones left out; None where none is large enough."""
    echo = (evidence.level > level) & ~evidence.chrome
    if allowed is not None:
        echo &= allowed
    opened = cv2.morphologyEx(echo.view(np.uint8), cv2.MORPH_OPEN, _OPEN)
    count, labels = cv2.connectedComponents(opened, connectivity=4)
    if count < 2:
        return None
    area, box, middle = measure(opened, labels, count)
    weight = area * (1.3 - 0.6 * middle / echo.shape[0])  # spectra and traces stand below
    if evidence.moving is not None:
        moves = np.bincount(labels.ravel(), weights=evidence.moving.ravel(), minlength=count)
        weight *= 0.2 + moves / np.maximum(area, 1)
    order = 1 + np.argsort(-weight[1:], kind="stable")
    if area[order[0]] < _LEAST_CELLS:
        return None
    return Parts(labels=np.asarray(labels, np.int32), order=order, box=box, area=area)


def measure(
    cells: NDArray[np.uint8], labels: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Area (N,), box (N, 4) and mean row (N,) by label, zero for the ground; OpenCV's statistics take three times this.

    Within a row cells that touch have one label, so runs are looked at rather than cells.
    """
    h, w = cells.shape
    padded = np.zeros((h, w + 2), np.uint8)
    padded[:, 1:-1] = cells
    flat = padded.ravel()
    edge = np.flatnonzero(flat[1:] != flat[:-1])
    row, left = np.divmod(edge[::2], w + 2)
    right = edge[1::2] - row * (w + 2)
    label = labels[row, left]
    length = right - left
    area = np.bincount(label, length, minlength=count)
    middle = np.bincount(label, length * row, minlength=count) / np.maximum(area, 1)
    order = np.argsort(label, kind="stable")
    label, row = label[order], row[order]
    first = np.searchsorted(label, np.arange(1, count + 1))
    box = np.zeros((count, 4), np.int64)
    box[1:, 0], box[1:, 1] = np.minimum.reduceat(left[order], first[:-1]), row[first[:-1]]
    box[1:, 2], box[1:, 3] = np.maximum.reduceat(right[order], first[:-1]), row[first[1:] - 1] + 1
    return area.astype(np.int64), box, middle


def groups(parts: Parts) -> Iterator[Group]:
    """What may make one scan area: the main part with those above and below it, alone, and with those beside it."""
    main, others = parts.order[0], parts.order[1:]
    box, area = parts.box, parts.area
    x0, y0, x1, y1 = box[main]
    overlap = np.minimum(box[others, 2], x1) - np.maximum(box[others, 0], x0)
    width = box[others, 2] - box[others, 0]
    large = (width > 0.35 * (x1 - x0)) | (area[others] > 0.08 * area[main])
    words = (box[others, 3] - box[others, 1] < _WORD_TALL * len(parts.labels)) & (width < _WORD_WIDE * (x1 - x0))
    stacked = others[(overlap > 0.7 * width) & large & ~words]
    yield Group(mask=parts.mask(np.append(stacked, main)), price=0.0)
    if len(stacked):
        slack = 0.03 * (x1 - x0)
        aligned = (box[stacked, 0] >= x0 - slack) & (box[stacked, 2] <= x1 + slack)
        taller = np.maximum(box[stacked, 3], y1) - np.minimum(box[stacked, 1], y0)
        growth = np.minimum(1.0, taller / (y1 - y0) - 1)
        price = float((growth * np.where(aligned, 0.6, 0.2)).max())
        yield Group(mask=parts.mask(np.array([main])), price=price)
    rows = np.minimum(box[others, 3], y1) - np.maximum(box[others, 1], y0)
    beside = others[(rows > 0.5 * (box[others, 3] - box[others, 1])) & (area[others] > _BESIDE_AREA * area[main])]
    if len(beside):
        yield Group(mask=parts.mask(np.concatenate([beside, stacked, [main]])), price=0.0)
