"""Several scan areas side by side in one frame: dual screens, biplane."""

from __future__ import annotations

import itertools

import numpy as np

from openus_data.cone.evidence import Evidence
from openus_data.cone.parts import Parts, find_parts
from openus_data.cone.profile import Mask
from openus_data.cone.search import Found, prior, search_mask

_LEAST_AREA = 0.3
_LEAST_OVERLAP = 0.6
_LEAST_MERIT = 0.9
_GAIN = 0.08
_LEFT_OUT = 0.2
_MOST_PANELS = 4


def find_panels(evidence: Evidence, single: Found, allowed: Mask | None = None) -> list[Found]:
    """The panels, left to right, if they explain the frame better than one scan area does; else an empty list."""
    parts = find_parts(evidence, single.level, allowed)
    if parts is None:
        return []
    for masks in (_separate(parts), _halves(single.mask) if single.merit < 1.3 else []):
        found = [panel for panel in map(search_mask, masks) if panel is not None and prior(panel.shape) >= 0]
        if len(found) >= 2 and len(found) == len(masks) and _better(found, single):
            return found
    return []


def _better(panels: list[Found], single: Found) -> bool:
    """Whether panels fit well, and better than the single shape unless that leaves much of them out."""
    merits = [panel.merit for panel in panels]
    left_out = sum(int((panel.mask & ~single.mask).sum()) for panel in panels)
    total = sum(int(panel.mask.sum()) for panel in panels)
    if min(merits) < _LEAST_MERIT:
        return False
    return left_out > _LEFT_OUT * total or float(np.mean(merits)) > single.merit + _GAIN


def _separate(parts: Parts) -> list[Mask]:
    """Parts of like size beside each other."""
    large = parts.order[parts.area[parts.order] > _LEAST_AREA * parts.area[parts.order].max()]
    large = large[np.argsort(parts.box[large, 0], kind="stable")]
    if not 2 <= len(large) <= _MOST_PANELS:
        return []
    for one, other in itertools.pairwise(large):
        a, b = parts.box[one], parts.box[other]
        shared = min(a[3], b[3]) - max(a[1], b[1])
        if b[0] < a[2] - 2 or shared < _LEAST_OVERLAP * min(a[3] - a[1], b[3] - b[1]):
            return []
    return [parts.mask(np.array([label])) for label in large]


def _halves(mask: Mask) -> list[Mask]:
    """A mask cut at the emptiest column near its middle."""
    columns = np.flatnonzero(mask.any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    middle, reach = (left + right) // 2, max(2, (right - left) // 10)
    filled = mask[:, middle - reach : middle + reach + 1].sum(axis=0) + 0.5 * np.abs(np.arange(-reach, reach + 1))
    seam = middle - reach + int(filled.argmin())
    one, other = mask.copy(), mask.copy()
    one[:, seam:], other[:, :seam] = False, False
    smaller = min(int(one.sum()), int(other.sum()))
    return [one, other] if smaller > 0.35 * int(mask.sum()) else []
