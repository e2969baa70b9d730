"""What changes during a run, as pure functions of the step or the epoch.

Values agree with the authors' code to rounding. A cosine never quite reaches its end: step i of n stands at i / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Steps to epochs.

    Args:
        steps: length of the run in steps.
        epochs: length of the run in epochs, which need not be whole.
    """

    steps: int
    epochs: float

    @property
    def steps_per_epoch(self) -> float:
        """Steps of one epoch; a fraction where the recipe fixes both."""
        return self.steps / self.epochs

    def epoch(self, step: int) -> int:
        """0-based epoch that a step belongs to."""
        return min(math.floor((step + 1e-9) / self.steps_per_epoch), math.ceil(self.epochs) - 1)

    def steps_of(self, epochs: float) -> int:
        """Steps that this many epochs take."""
        return round(epochs * self.steps_per_epoch)


def cosine(step: int, *, start: float, end: float, steps: int) -> float:
    """From `start` at step 0 towards `end` at step `steps`, which is never taken."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))


def warmup_cosine(step: int, *, peak: float, end: float, warmup: int, steps: int) -> float:
    """Linear from 0 to `peak` over `warmup` steps, both ends taken, then `cosine` to `end` over the rest."""
    if step < warmup:
        return peak * step / (warmup - 1) if warmup > 1 else peak
    return cosine(step - warmup, start=peak, end=end, steps=steps - warmup)


def linear_warmup(epoch: int, *, start: float, end: float, epochs: float) -> float:
    """From `start` in epoch 0 to `end` in epoch `epochs` - 1, then `end`."""
    if epochs <= 1 or epoch >= epochs - 1:
        return end
    return start + (end - start) * epoch / (epochs - 1)


def over_run(
    epoch: int, *, start: float, end: float, epochs: float, shape: Literal["cosine", "linear", "constant"]
) -> float:
    """From `start` in epoch 0 towards `end` at the end of the run."""
    if shape == "constant":
        return start
    if shape == "linear":
        return start + (end - start) * epoch / epochs
    return start + (end - start) * (1 - math.cos(math.pi * epoch / epochs)) / 2
