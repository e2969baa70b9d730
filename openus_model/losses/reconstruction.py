"""The loss on masked pixels, and the error per cell that says how difficult a place is.

    L = sum mask * (x_rec - x)^2 / (sum mask + 1e-5) / channels, over the pixels of masked cells

Source: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", 2021, https://arxiv.org/abs/2111.09886; as
OpenUS uses it, with a squared error and targets that are the normalised augmented view.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from openus_model import distributed

EPSILON_PX = 1e-5


def cell_errors(reconstruction_BCHW: Tensor, image_BCHW: Tensor, stride: int) -> Tensor:
    """Mean squared error of each cell of `stride` pixels, over its pixels and channels, (B, H / stride, W / stride)."""
    squared_BCHW = (reconstruction_BCHW.float() - image_BCHW.float()).square()
    return functional.avg_pool2d(squared_BCHW.mean(1, keepdim=True), stride)[:, 0]


def reconstruction_loss(errors_BHW: Tensor, mask_BHW: Tensor, stride: int) -> Tensor:
    """Mean error over masked pixels, over the joint batch of all processes.

    Args:
        errors_BHW: from `cell_errors`.
        mask_BHW: bool, masked cells.
        stride: pixels per cell.

    Returns:
        a scalar; 0 where nothing is masked.
    """
    pixels = float(stride * stride)
    weight_BHW = mask_BHW.float()
    masked_px = distributed.mean(weight_BHW.sum()) * pixels
    return pixels * (errors_BHW * weight_BHW).sum() / (masked_px + EPSILON_PX)
