"""How samples of any type become uint8, by one rule:

1. 8-bit unsigned samples stay as they are.
2. Samples that are all whole numbers in 0..255, in whatever type, stay as they are.
3. Everything else is mapped linearly, the smallest finite sample of the file (all frames) to 0, the largest to 255.
4. NaN and infinities become 0. A file with no finite sample is refused.

The note of a mapped file says its type and range, for example "float32 0..1 to 0..255".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openus_data.errors import DecodeError, UnsupportedFormat
from openus_data.records import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """A linear map to uint8, for all frames of one file.

    Args:
        low, high: the samples that become 0 and 255; None keeps samples as they are.
        holes: whether some samples are not finite.
        note: what the manifest says.
    """

    low: float | None = None
    high: float | None = None
    holes: bool = False
    note: str = ""

    def apply(self, samples: NDArray[Any]) -> Pixels:
        """Map samples of any shape to uint8."""
        if samples.dtype == np.uint8 and self.low is None:
            return samples
        if samples.dtype == np.bool_:
            return samples.astype(np.uint8) * np.uint8(255)
        if self.holes:
            samples = np.where(np.isfinite(samples), samples, 0 if self.low is None else self.low)
        if self.low is None or self.high is None:
            return samples.astype(np.uint8)
        span = self.high - self.low
        if span <= 0:
            return np.zeros(samples.shape, np.uint8)
        scaled = (samples.astype(np.float64) - self.low) * (255.0 / span)
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


KEEP = Tone()


def find_tone(frames: Iterable[NDArray[Any]]) -> Tone:
    """Look at every frame once and decide the map.

    Args:
        frames: arrays of one real type, any shapes.

    Raises:
        UnsupportedFormat: complex or non-numeric samples.
        DecodeError: no finite sample.
    """
    low, high, whole, holes, name = np.inf, -np.inf, True, False, ""
    for frame in frames:
        name = frame.dtype.name
        if frame.dtype == np.uint8 or frame.dtype == np.bool_:
            continue
        if frame.dtype.kind not in "iuf":
            raise UnsupportedFormat("samples are not real numbers", expected="integers or floats", got=frame.dtype.name)
        finite = frame
        if frame.dtype.kind == "f":
            mask = np.isfinite(frame)
            if not mask.all():
                holes, finite = True, frame[mask]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            whole = whole and low >= 0 and high <= 255 and _is_whole(finite)
    return _tone(name, low, high, whole, holes)


def _is_whole(samples: NDArray[Any]) -> bool:
    return samples.dtype.kind in "iu" or bool((np.rint(samples) == samples).all())


def _tone(name: str, low: float, high: float, whole: bool, holes: bool) -> Tone:
    if name in ("uint8", "bool"):
        return KEEP if name == "uint8" else Tone(note="1 bit")
    if low > high:
        raise DecodeError(
            "no finite sample", expected="numbers", got="NaN or infinity", next_step="the file is left out"
        )
    gaps = ", gaps to 0" if holes else ""
    if whole:
        return Tone(holes=holes, note=f"{name} kept{gaps}")
    return Tone(low=low, high=high, holes=holes, note=f"{name} {low:.6g}..{high:.6g} to 0..255{gaps}")
