"""Which frames of a clip or volume are looked at, and which are kept.

indices = planned_frames("every 10", frame_count=95)
novelty = Novelty(0.98); kept = [i for i, thumb in ... if novelty.is_new(thumb)]
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from openus_data.duplicates import structure
from openus_data.errors import UsageError
from openus_data.records import Pixels


def planned_frames(policy: str, frame_count: int, *, most: int = 0, annotated: Collection[int] = ()) -> list[int]:
    """Frames to read under a policy, rising.

    Args:
        policy: `all`, `novel` (which reads all), `every N`, `max N` or `annotated`.
        frame_count: frames of the file.
        most: bound on their number, evenly spaced; 0 sets none.
        annotated: frames that an annotation belongs to.

    Raises:
        UsageError: another policy.
    """
    word, _, number = policy.partition(" ")
    if policy in ("all", "novel"):
        indices = list(range(frame_count))
    elif policy == "annotated":
        indices = sorted(i for i in set(annotated) if 0 <= i < frame_count)
    elif word == "every" and number.isdecimal() and int(number):
        indices = list(range(0, frame_count, int(number)))
    elif word == "max" and number.isdecimal() and int(number):
        indices = evenly_spaced(list(range(frame_count)), int(number))
    else:
        raise UsageError("unknown frame policy", got=policy)
    return evenly_spaced(indices, most) if most and policy != "novel" else indices


def evenly_spaced(indices: list[int], most: int) -> list[int]:
    """At most `most` of the indices, at the middle of as many equal stretches."""
    if len(indices) <= most:
        return indices
    return [indices[(2 * i + 1) * len(indices) // (2 * most)] for i in range(most)]


class Novelty:
    """Keeps a frame when it correlates less than a bound with every frame kept before.

    Args:
        least_correlation: from this correlation of the thumbnails on, a frame is not new.
        most: frames kept at most; 0 sets no bound.
    """

    def __init__(self, least_correlation: float, most: int = 0) -> None:
        self._bound, self._most = least_correlation, most
        self._kept = np.empty((0, 0))

    def is_new(self, thumb: Pixels) -> bool:
        """Whether a frame with this thumbnail, uint8 (32, 32), is new; if so it counts as kept."""
        shape = structure(thumb)
        if not self._kept.size:
            self._kept = shape[None]
            return True
        if (self._most and len(self._kept) >= self._most) or float((self._kept @ shape).max()) >= self._bound:
            return False
        self._kept = np.concatenate([self._kept, shape[None]])
        return True
