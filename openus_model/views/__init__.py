"""Multi-crop views of one ultrasound image: first draw the parameters, then apply them.

`params` holds what may happen and draws it, `apply` does it on uint8 pixels. Everything runs on one CPU core without
torchvision: PIL's antialiased bicubic by torch's uint8 kernel, one 256-entry table for all grey-level changes, OpenCV's
blur.
Geometry is carried along: each view comes with the share of every mask cell that lies inside the scan area.

Source of the recipe: iBOT (Zhou et al. 2022, arXiv 2111.07832) as OpenUS uses it; the ultrasound-aware changes are ours
and are off by default.
"""

from openus_model.views.apply import View, multi_crop
from openus_model.views.params import CropGroup, UltrasoundChanges, ViewParams, draw_view

__all__ = ["CropGroup", "UltrasoundChanges", "View", "ViewParams", "draw_view", "multi_crop"]
