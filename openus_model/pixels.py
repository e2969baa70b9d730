"""Stored pixels to what a backbone takes: resize, three channels, normalise.

One place, so that pretraining, evaluation and embedding agree. The statistics are those of the public weights that runs
start from (ImageNet), as in the paper.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(pixels_BCHW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images of one or three channels to normalised B3HW; grey is repeated.

    Args:
        pixels_BCHW: uint8, any device.
        dtype: of the answer.
    """
    if pixels_BCHW.shape[1] == 1:
        pixels_BCHW = pixels_BCHW.expand(-1, 3, -1, -1)
    mean = torch.tensor(MEAN, device=pixels_BCHW.device).view(3, 1, 1) * 255
    std = torch.tensor(STD, device=pixels_BCHW.device).view(3, 1, 1) * 255
    return ((pixels_BCHW.float() - mean) / std).to(dtype)


def pixels_of(normalised_BCHW: Tensor) -> Tensor:
    """The way back, as uint8, for pictures."""
    mean = torch.tensor(MEAN, device=normalised_BCHW.device).view(3, 1, 1)
    std = torch.tensor(STD, device=normalised_BCHW.device).view(3, 1, 1)
    return ((normalised_BCHW * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def resize(image: NDArray[np.uint8], size: int) -> Tensor:
    """A stored image, (H, W) or (H, W, 3), as uint8 CHW of size x size: antialiased bicubic, aspect ratio not kept.

    The aspect ratio gives way as in the paper's evaluation (algorithm, section j): Resize(224, 224).
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    image_BCHW = (tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1)).unsqueeze(0)
    return torch.nn.functional.interpolate(image_BCHW, (size, size), mode="bicubic", antialias=True)[0]
