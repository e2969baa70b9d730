"""The views' rival: the pipeline of iBOT and of the authors, Pillow on RGB. Imported only where Pillow is installed.

It draws the same crops, jitter, blur and solarisation from the same parameters as ours, so that both do the same work.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from openus_model.stream import DEFAULT_GROUPS
from openus_model.views import ViewParams, draw_view


def pil_views(files: Sequence[bytes]) -> None:
    """Decode JPEGs and make the views of each, every view a normalised float tensor.

    Args:
        files: the JPEGs; the place of each is the seed of its views' parameters.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for seed, data in enumerate(files):
        rng = np.random.default_rng(seed)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        for group in DEFAULT_GROUPS:
            for k in range(group.count):
                view = _pil_view(image, draw_view(rng, group, k, image.height, image.width, None))
                pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1).contiguous().float().div(255)
                pixels.sub_(mean).div_(std)


def _pil_view(image: Image.Image, params: ViewParams) -> Image.Image:
    x, y, w, h = params.box
    view = image.crop((x, y, x + w, y + h)).resize((params.size, params.size), Image.Resampling.BICUBIC)
    if params.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, factor in params.jitter:
        if name == "hue":
            hue, saturation, value = view.convert("HSV").split()
            shifted = Image.fromarray((np.asarray(hue) + np.uint8(round(factor * 255) % 256)).astype(np.uint8))
            view = Image.merge("HSV", (shifted, saturation, value)).convert("RGB")
        else:
            enhance = {"saturation": ImageEnhance.Color}.get(name) or getattr(ImageEnhance, name.capitalize())
            view = enhance(view).enhance(factor)
    if params.grey:
        view = view.convert("L").convert("RGB")
    if params.blur_px > 0:
        view = view.filter(ImageFilter.GaussianBlur(params.blur_px))
    return ImageOps.solarize(view, 128) if params.solarize else view
