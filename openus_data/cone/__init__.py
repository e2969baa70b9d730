"""The scan area (cone) of an ultrasound picture: its shape, outline and box, in milliseconds.

cone = detect(frames, regions=media.regions)
inside = raster(cone, height, width)
"""

from __future__ import annotations

from openus_data.cone.consensus import Consensus, settle
from openus_data.cone.detector import detect
from openus_data.cone.outline import raster

__all__ = ["Consensus", "detect", "raster", "settle"]
