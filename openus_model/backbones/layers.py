"""Small layers that the backbones share. Maps are channels last (BHWC), so that linears and norms need no copies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from openus_model.errors import UsageError


class ToLast(nn.Module):
    """BCHW -> BHWC, a view; without tensors."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.permute(0, 2, 3, 1)


class ToFirst(nn.Module):
    """BHWC -> BCHW, a view; without tensors."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC.permute(0, 3, 1, 2)


class Norm(nn.LayerNorm):
    """A layer norm that computes and answers in float32 under autocast, as torch has it on CUDA but not on the CPU.

    The residual stream then stays in float32 on both, which a bf16 network needs to stay within a few percent.
    """

    def forward(self, x_BXD: Tensor) -> Tensor:
        mixed = not x_BXD.is_meta and torch.is_autocast_enabled(x_BXD.device.type)
        return super().forward(x_BXD.float() if mixed else x_BXD)


class DropPath(nn.Module):
    """Drops a residual branch per sample while training; kept ones are scaled by 1 / (1 - p).

    Args:
        p: probability in [0, 1).

    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BXX: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x_BXX
        keep = x_BXX.new_empty((x_BXX.shape[0],) + (1,) * (x_BXX.ndim - 1)).bernoulli_(1 - self.p)
        return x_BXX * keep.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:.3f}"


class Mlp(nn.Module):
    """Linear, GELU, linear over the last axis."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BXD: Tensor) -> Tensor:
        hidden: Tensor = functional.gelu(self.fc1(x_BXD))
        out: Tensor = self.fc2(hidden)
        return out


def init_linears(module: nn.Module) -> None:
    """Normal of deviation 0.02 cut at 2 for linear weights, 0 for their biases; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_inputs(name: str, image_BCHW: Tensor, mask_BHW: Tensor | None, *, channels: int, stride: int) -> None:
    """Stop where a backbone's images, or their mask, have a wrong shape.

    Raises:
        UsageError: what was expected and what came.
    """
    shape = tuple(image_BCHW.shape)
    if len(shape) != 4 or shape[1] != channels or not image_BCHW.numel():
        raise UsageError("the backbone takes images", where=name, expected=f"(B, {channels}, H, W)", got=f"{shape}")
    cells = (shape[0], -(-shape[2] // stride), -(-shape[3] // stride))
    if mask_BHW is not None and tuple(mask_BHW.shape) != cells:
        raise UsageError(
            "the mask does not fit the images", where=name, expected=f"{cells}", got=f"{tuple(mask_BHW.shape)}"
        )
