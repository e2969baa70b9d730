"""Where echo fades out: how far its last scattered pixels reach beyond a border that was put where most of it ends.

Attenuation and lost contact leave a pixel here and there, one or two levels above a background that is exactly flat. A
median calls that nothing; seen along a whole border it is plain: these pixels lie across all of the border's length and
stop at one depth, while words lie on a part of it, and the noise of lossy coding does not stop.
"""

from __future__ import annotations

import math

import numpy as np

from openus_data.cone.evidence import Grey
from openus_data.cone.outline import Polygon
from openus_data.cone.sample import levels_along

_FAINT = 12
_SAMPLES, _STRETCHES = 128, 8
_WITHIN_PX = np.array([-16, -14, -12, -6, -5, -4, -3, -2], np.float32)
_DEEP = 3
"""So many of these are deep within."""
_DARK_MEAN, _FALL = 6.0, 0.6
_BLOCKS, _LEAST_BLOCK, _NEARBY = 40, 3, 5
_LEAST_SHARE, _LEAST_SPREAD = 0.01, 0.5


def reach(start: Polygon, way: Polygon, distance: Grey) -> float:
    """How much of the way from a border outward is crossed by faint echo, 0 to 1.

    Args:
        start: (128, 2) on the border, px.
        way: (128, 2) from there as far out as echo may lie, px; all about as long.
        distance: uint8 (H, W), 0 on the background.

    Returns:
        0 where echo is neither dark at the border nor falls towards it, or faint pixels go on as far as one looks.
    """
    length = math.hypot(*way[_SAMPLES // 2].tolist())
    count = int(length)
    if count < 2 * _LEAST_BLOCK:
        return 0.0
    within = levels_along(distance, start, way, _WITHIN_PX / np.float32(length)).sum(axis=0).tolist()
    close, deep = sum(within[_DEEP:]) / (len(within) - _DEEP), sum(within[:_DEEP]) / _DEEP
    if close > max(_DARK_MEAN * _SAMPLES, _FALL * deep):
        return 0.0
    block = max(_LEAST_BLOCK, count // _BLOCKS)
    count -= count % block
    for looked in (max(1, count // block // _NEARBY) * block, count):  # echo mostly ends nearby
        outward = ((np.arange(looked) + 0.5) / length).astype(np.float32)
        levels = levels_along(distance, start, way, outward)
        faint = (levels > 0) & (levels <= _FAINT)
        share = faint.mean(axis=0)
        seen = faint.reshape(_STRETCHES, _SAMPLES // _STRETCHES, -1, block).any(axis=(1, 3)).mean(axis=0)
        full = (share.reshape(-1, block).mean(axis=1) >= _LEAST_SHARE) & (seen >= _LEAST_SPREAD)
        empty = np.flatnonzero(~(full | np.append(full[1:], looked < count)))  # one empty block is a gap
        if len(empty):
            last = np.flatnonzero(share[: int(empty[0]) * block])
            return float(outward[last[-1]] + 0.5 / length) if len(last) else 0.0
    return 0.0
