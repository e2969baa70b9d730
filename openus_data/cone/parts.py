"""Connected parts of the echo at one level, and which of them make one scan area.

Shadow and fluid cut a scan area into parts above, below and beside each other; a second panel or a spectral strip is a
part as well. So several groups are proposed, each with a price for the parts that it leaves out, and the fit decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_LEAST_AREA, _LEAST_WIDTH = 0.08, 0.35
"""Of a part that counts, either, as parts of those of the main one."""
_LEAST_HEIGHT = 2
"""Cells; `_OPEN` leaves no column of a part lower."""
_BAND_WIDE, _BAND_FROM, BAND_PRICE = 2.0, 0.4, 0.6
"""Width over height of a band, its top over the height of the frame, and the price of a band below another part."""
_LEAST_ABOVE, _MOST_ABOVE = 0.012, 0.6
"""Of the main part above a band: area over that of the frame, and over that of all that stands there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A connected part of a mask: its label, its area in cells, and its box."""

    label: int
    area: int
    box: tuple[int, int, int, int]

    @property
    def width(self) -> int:
        """Cells."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """Cells."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts of a mask (h, w), the main one first.

    Args:
        labels: uint16 (h, w), 0 where there is nothing.
        order: labels of the parts, by weight.
        area: (N,) cells by label.
    """

    labels: NDArray[np.uint16]
    order: NDArray[np.intp]
    area: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Cells of all parts."""
        return int(self.area[1:].sum())

    def part(self, label: int) -> Part:
        """That of a label."""
        x, y, width, height = cv2.boundingRect((self.labels == label).view(np.uint8))
        return Part(label=label, area=int(self.area[label]), box=(x, y, x + width, y + height))

    def mask(self, chosen: Sequence[int]) -> Mask:
        """Cells of the chosen labels."""
        cells: Mask = self.labels == chosen[0]
        for label in chosen[1:]:
            cells |= self.labels == label
        return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parts taken together, and what it costs to leave out the others.

    Args:
        mask: their cells.
        price: of this group.
        left_out: price of a shape that leaves out some of them, since another group is the one without them.
        below: cells of a band below them, which is no part of their scan area unless that goes on into it; or None.
    """

    mask: Mask
    price: float
    left_out: float = 0.0
    below: Mask | None = None


def find_parts(evidence: Evidence, level: int, allowed: Mask | None = None) -> Parts | None:
    """Parts more than `level` above the background, thin ones left out; None where none is large enough."""
    echo = (evidence.level > level) & ~evidence.chrome
    if allowed is not None:
        echo &= allowed
    opened = cv2.morphologyEx(echo.view(np.uint8), cv2.MORPH_OPEN, _OPEN)
    count, found = cv2.connectedComponents(opened, connectivity=4, ltype=cv2.CV_16U)
    if count < 2:
        return None
    labels = np.asarray(found, np.uint16)
    area, rows = measure(opened, labels, count)
    weight = 1.3 * area - 0.6 / len(labels) * rows  # spectra and traces stand below
    if evidence.moving is not None:
        moves = np.bincount(labels.ravel(), weights=evidence.moving.ravel(), minlength=count)
        weight *= 0.2 + moves / np.maximum(area, 1)
    weight[0] = -1
    order = (-weight).argsort(kind="stable")[:-1]
    if area[order[0]] < _LEAST_CELLS:
        return None
    return Parts(labels=labels, order=order, area=area)


def measure(
    cells: NDArray[np.uint8], labels: NDArray[np.uint16], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Area (N,) and sum of rows (N,) by label, zero for the ground; OpenCV's statistics take several times this.

    Within a row cells that touch have one label, so runs are looked at rather than cells.
    """
    padded = cv2.copyMakeBorder(cells, 0, 0, 1, 1, cv2.BORDER_CONSTANT, value=(0,)).ravel()
    edge = (padded[1:] != padded[:-1]).nonzero()[0]
    start = edge[::2]
    length = edge[1::2] - start
    row = start // (cells.shape[1] + 2)
    label = labels.ravel()[start - 2 * row]
    area, rows = np.bincount(label, length, count), np.bincount(label, length * row, count)
    return area.astype(np.int64), rows.astype(np.int64)


def groups(parts: Parts) -> Iterator[Group]:
    """What may make one scan area: the main part with those above and below it, alone, and with those beside it.

    Where it is a band low in the frame, a spectral strip or an M-mode perhaps, also each part above it, alone.
    """
    main = parts.part(int(parts.order[0]))
    x0, y0, x1, y1 = main.box
    least = min(_LEAST_WIDTH * _LEAST_HEIGHT * main.width, _LEAST_AREA * main.area)
    others = [parts.part(label) for label in parts.order[1:][parts.area[parts.order[1:]] > least].tolist()]
    large = [o for o in others if o.width > _LEAST_WIDTH * main.width or o.area > _LEAST_AREA * main.area]
    stacked = [
        other
        for other in large
        if min(other.box[2], x1) - max(other.box[0], x0) > 0.7 * other.width
        and (other.height >= _WORD_TALL * len(parts.labels) or other.width >= _WORD_WIDE * main.width)
    ]
    above_and_below = [other.label for other in stacked]
    above = _above_band(parts, main)
    band = 0.0 if above is None else BAND_PRICE
    yield Group(
        mask=parts.mask([main.label, *above_and_below]),
        price=0.0 if stacked else band,
        left_out=band if stacked else 0.0,
    )
    if stacked:
        slack = 0.03 * main.width
        price = 0.0
        for other in stacked:
            aligned = other.box[0] >= x0 - slack and other.box[2] <= x1 + slack
            taller = max(other.box[3], y1) - min(other.box[1], y0)
            price = max(price, min(1.0, taller / main.height - 1) * (0.6 if aligned else 0.2))
        yield Group(mask=parts.mask([main.label]), price=price)
    if above is not None:
        yield Group(mask=parts.mask([above.label]), price=0.0, below=parts.mask([main.label]))
    beside = [
        other.label
        for other in large
        if min(other.box[3], y1) - max(other.box[1], y0) > 0.5 * other.height and other.area > _BESIDE_AREA * main.area
    ]
    if beside:
        yield Group(mask=parts.mask([main.label, *{*above_and_below, *beside}]), price=0.0)


def _above_band(parts: Parts, band: Part) -> Part | None:
    """What stands above a band that lies low in the frame, such as a spectral strip or an M-mode; in one piece."""
    x0, y0, x1, _ = band.box
    if band.width < _BAND_WIDE * band.height or y0 < _BAND_FROM * len(parts.labels):
        return None
    seen = [parts.part(label) for label in parts.order[1:][parts.area[parts.order[1:]] >= _LEAST_CELLS].tolist()]
    higher = [
        other
        for other in seen
        if other.box[3] <= y0 + 1 and min(other.box[2], x1) - max(other.box[0], x0) > 0.7 * other.width
    ]
    best = max(higher, key=lambda other: other.area, default=None)
    if best is None or best.area < max(
        _LEAST_ABOVE * parts.labels.size, _MOST_ABOVE * sum(other.area for other in higher)
    ):
        return None
    return best
