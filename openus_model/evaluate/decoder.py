"""Decoders from a backbone's four maps to logits per pixel: the paper's Mamba decoder, and a light pyramid.

The Mamba decoder joins each map to the decoded one and refines it with selective-scan and convolution blocks; module
names are those of its published weights. The pyramid is UPerNet's idea (Xiao et al., 2018,
https://arxiv.org/abs/1807.10221) without its pooling module: lateral 1x1 convolutions, top-down sums, one fusion. Axes:
B batch, C channels, H W grid, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from openus_model.backbones.layers import DropPath, init_linears
from openus_model.backbones.ss2d import ORDERS, SS2D, cross_merge, cross_scan
from openus_model.errors import UsageError
from openus_model.scan import scan_groups

STATES: Final = 4
DROP_PATH: Final = 0.1


def build_decoder(kind: Literal["mamba", "pyramid"], dims: Sequence[int], classes: int, *, depth: int = 4) -> nn.Module:
    """A decoder for maps of these widths, finest first.

    Raises:
        UsageError: the Mamba decoder wants four maps, each twice as wide as the one before.
    """
    if kind == "pyramid":
        return PyramidDecoder(dims, classes)
    if list(dims) != [dims[0] * 2**i for i in range(4)]:
        raise UsageError(
            "the Mamba decoder fits no such maps", expected="widths d, 2d, 4d, 8d", got=str(tuple(dims)),
            next_step="use decoder=pyramid",
        )  # fmt: skip
    return MambaDecoder(dims[0], classes, depth=depth)


class MambaDecoder(nn.Module):
    """The paper's decoder (algorithm, section j): maps of widths d, 2d, 4d, 8d to logits at four times the finest grid.

    Args:
        dim: d.
        classes: K.
        depth: blocks per level; 4 in the paper.
    """

    def __init__(self, dim: int, classes: int, *, depth: int = 4) -> None:
        super().__init__()
        drops = torch.linspace(0, DROP_PATH, 4 * depth).tolist()
        self.layers_up = nn.ModuleList([_Expand(8 * dim)])
        for level in (2, 1, 0):
            part = drops[level * depth : (level + 1) * depth]
            self.layers_up.append(_Level(dim * 2**level, part, halve=level > 0))
        self.norm_up = nn.LayerNorm(dim)
        self.up = _FourTimes(dim)
        self.output = nn.Conv2d(dim, classes, 1, bias=False)
        self.apply(init_linears)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Four maps BCHW, finest first, to logits (B, K, 4 H, 4 W)."""
        x_BHWC: Tensor = self.layers_up[0](stages[3].permute(0, 2, 3, 1))
        for level, stage_BCHW in zip(self.layers_up[1:], (stages[2], stages[1], stages[0]), strict=True):
            joined_BHWC = stage_BCHW.permute(0, 2, 3, 1)
            x_BHWC = level(x_BHWC[:, : joined_BHWC.shape[1], : joined_BHWC.shape[2]] + joined_BHWC)
        x_BHWC = self.up(self.norm_up(x_BHWC))
        logits_BKHW: Tensor = self.output(x_BHWC.permute(0, 3, 1, 2))
        return logits_BKHW


class _Expand(nn.Module):
    """Twice the grid, half the channels, by a linear layer and depth to space."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.expand(x_BHWC)
        b, h, w, c = x_BHWC.shape
        blocks = x_BHWC.view(b, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
        out: Tensor = self.norm(blocks.reshape(b, 2 * h, 2 * w, c // 4))
        return out


class _Level(nn.Module):
    """Blocks at one width, then twice the grid at half the width, save at the finest."""

    def __init__(self, dim: int, drops: Sequence[float], *, halve: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, p) for p in drops)
        self.upsample: nn.Module = _Halve(dim) if halve else nn.Identity()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        for block in self.blocks:
            x_BHWC = block(x_BHWC)
        out: Tensor = self.upsample(x_BHWC)
        return out


class _Halve(nn.Module):
    """Linear to half the channels, bilinear to twice the grid, norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim // 2, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        out: Tensor = self.norm(_twice(self.linear(x_BHWC)))
        return out


class _FourTimes(nn.Module):
    """Linear and bilinear, twice, then a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        out: Tensor = self.norm(_twice(self.linear2(_twice(self.linear1(x_BHWC)))))
        return out


class _Block(nn.Module):
    """Selective scan, then convolutions with channel attention; both residual with a learned scale per channel."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.op = _DecoderScan(dim)
        self.conv_blk = _ConvolutionBlock(dim)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.scale1 * x_BHWC + self.drop_path(self.op(self.norm1(x_BHWC)))
        out: Tensor = self.conv_blk(self.norm2(x_BHWC)) + self.scale2 * x_BHWC
        return out


class _DecoderScan(SS2D):
    """As in the backbone, with four states, a bias on its convolution, and GELU where that has SiLU."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, states=STATES)
        self.conv2d = nn.Conv2d(self.inner, self.inner, 3, padding=1, groups=self.inner)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        z_BHWD = functional.gelu(self.conv2d(self.in_proj(x_BHWC).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        grid, channels_last = (z_BHWD.shape[1], z_BHWD.shape[2]), not z_BHWD.is_cuda
        u_BGDL = cross_scan(z_BHWD, channels_last=channels_last)
        delta_BGDL, B_BGNL, C_BGNL = self._project(u_BGDL, channels_last=channels_last)
        A_GDN = torch.unflatten(-torch.exp(self.A_logs.float()), 0, (ORDERS, self.inner))
        y_BGDL = scan_groups(
            u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, self.Ds.view(ORDERS, self.inner), self.dt_projs_bias,
            softplus=True, backend=self.backend,
        )  # fmt: skip
        out: Tensor = self.out_proj(self.out_norm(cross_merge(y_BGDL, grid)))
        return out


class _ConvolutionBlock(nn.Module):
    """Two 3x3 convolutions through a third of the channels, then channel attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        narrow = dim // 3
        self.cab = nn.Sequential(
            nn.Conv2d(dim, narrow, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow, dim, 3, padding=1),
            _ChannelAttention(dim),
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        out: Tensor = self.cab(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class _ChannelAttention(nn.Module):
    """x sigmoid(f(mean) + f(max)), f two 1x1 convolutions through a thirtieth of the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        narrow = max(1, dim // 30)
        self.fc = nn.Sequential(nn.Conv2d(dim, narrow, 1, bias=False), nn.SiLU(), nn.Conv2d(narrow, dim, 1, bias=False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean, most = x_BCHW.mean((2, 3), keepdim=True), x_BCHW.amax((2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self.fc(mean) + self.fc(most))


class PyramidDecoder(nn.Module):
    """Lateral convolutions to one width, top-down sums, a fusion at the finest grid.

    Args:
        dims: widths of the maps, finest first.
        classes: K.
        width: of the pyramid.
    """

    def __init__(self, dims: Sequence[int], classes: int, width: int = 64) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in dims)
        self.fuse = nn.Sequential(nn.Conv2d(width * len(dims), width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU())
        self.output = nn.Conv2d(width, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Maps BCHW, finest first, to logits (B, K, 4 H, 4 W)."""
        maps = [layer(stage) for layer, stage in zip(self.lateral, stages, strict=True)]
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + _resized(maps[i + 1], maps[i])
        joined = torch.cat([_resized(x, maps[0]) for x in maps], dim=1)
        logits_BKHW = self.output(self.fuse(joined))
        return functional.interpolate(logits_BKHW, scale_factor=4, mode="bilinear")


def _resized(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, like_BCHW.shape[2:], mode="bilinear")


def _twice(x_BHWC: Tensor) -> Tensor:
    x_BCHW = functional.interpolate(x_BHWC.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")
    return x_BCHW.permute(0, 2, 3, 1)


def widths(backbone: Any, size_px: int) -> list[int]:
    """Channels of a backbone's maps."""
    device = next(cast(nn.Module, backbone).parameters()).device
    with torch.inference_mode():
        return [s.shape[1] for s in backbone(torch.zeros(1, 3, size_px, size_px, device=device)).stages]
