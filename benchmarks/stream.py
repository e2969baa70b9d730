"""Images per CPU-second: decode a 512x512 grey JPEG and make 2x224 + 8x96 views, against the PIL RGB pipeline of iBOT.

python benchmarks/stream.py [images]
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from openus_model.stream import DEFAULT_GROUPS
from openus_model.views import ViewParams, draw_view, multi_crop


def speckle_jpeg(seed: int) -> bytes:
    """A 512x512 grey fan of speckle, JPEG quality 95."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((512, 512, 2)).astype(np.float32), (0, 0), 2.6)
    image = np.log1p(4 * np.hypot(field[..., 0], field[..., 1]))
    fan = np.zeros((512, 512), np.uint8)
    cv2.ellipse(fan, (256, -40), (540, 540), 90, -42, 42, 1, -1)
    pixels = (255 * image / image.max() * fan).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def ours(data: bytes, seed: int) -> None:
    """Our pipeline: one channel, uint8."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    multi_crop(image, np.zeros((0, 2), np.float32), DEFAULT_GROUPS, np.random.default_rng(seed))


def pil_rgb(data: bytes, seed: int) -> None:
    """iBOT's pipeline: PIL on RGB, then a normalised float tensor."""
    rng = np.random.default_rng(seed)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
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


def rate(run: Callable[[bytes, int], None], images: list[bytes]) -> float:
    """Images per CPU-second."""
    run(images[0], 0)
    start = time.process_time()
    for seed, data in enumerate(images):
        run(data, seed)
    return len(images) / (time.process_time() - start)


def main(count: int) -> None:
    """Print the table; the two pipelines take turns, so that a noisy machine is noisy for both."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = [speckle_jpeg(seed) for seed in range(count)]
    rounds = [(rate(ours, images), rate(pil_rgb, images)) for _ in range(3)]
    mine, theirs = (float(np.median([r[k] for r in rounds])) for k in (0, 1))
    print(f"{count} JPEGs of 512x512, mean {np.mean([len(d) for d in images]) / 1024:.0f} KB; 2x224 + 8x96 views")
    print(f"{'pipeline':<28}{'images/CPU-s':>14}{'ratio':>8}")
    print(f"{'PIL on RGB (iBOT)':<28}{theirs:>14.1f}{1:>8.2f}")
    print(f"{'openus_model.views':<28}{mine:>14.1f}{mine / theirs:>8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
