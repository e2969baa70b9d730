"""SS2D, the two-dimensional selective scan of VMamba: a map is read in four orders, each by its own scan.

    z = SiLU(dwconv3x3(W_in x))
    u = rows, columns, rows reversed, columns reversed       (cross-scan)
    dt, B, C = projections of u;  y = selective_scan(u, dt, A, B, C, D)
    out = W_out LN(sum of the four y, each put back in its place)

On CPU the scan axis lies outside the channels in memory (G, B, L, D), on CUDA inside them (B, G, D, L), as its kernels
want it; both are the same tensor to the reader: `BGDL`. Axes: B batch, H W grid, C channels of the block, D inner
channels, G = 4 orders, L = H W, R rank of the step size, N states.

Source: Liu et al., "VMamba: Visual State Space Model", 2024, https://arxiv.org/abs/2401.10166, section 4 (the variant
without a gate branch, `v05_noz` in its code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from openus_model.backbones.layers import Norm
from openus_model.scan import Backend, scan_groups

ORDERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanState:
    """What a scan computed with, from which its attention map follows.

    Args:
        dt_BGDL: step sizes after bias and softplus.
        A_GDN: decay rates, negative.
        B_BGNL: input projections.
        C_BGNL: output projections.
        order_GL: raster index of the position that each order reads at each time.
    """

    dt_BGDL: Tensor
    A_GDN: Tensor
    B_BGNL: Tensor
    C_BGNL: Tensor
    order_GL: Tensor


class SS2D(nn.Module):
    """The scan block on maps BHWC.

    Args:
        dim: channels in and out.
        ratio: inner channels over `dim`.
        states: N, states per inner channel.
        backend: scan backend, see `openus_model.scan`.
    """

    def __init__(self, dim: int, *, ratio: float = 2.0, states: int = 1, backend: Backend = "auto") -> None:
        super().__init__()
        inner, rank = int(ratio * dim), math.ceil(dim / 16)
        self.inner, self.rank, self.states, self.backend = inner, rank, states, backend
        self.in_proj = nn.Linear(dim, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(ORDERS, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(ORDERS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(ORDERS, inner))
        self.A_logs = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(ORDERS * inner, 1))
        self.Ds = nn.Parameter(torch.ones(ORDERS * inner))
        self.out_norm = Norm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._init_scan()

    def _init_scan(self) -> None:
        nn.init.uniform_(self.x_proj_weight, -(self.inner**-0.5), self.inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.rank**-0.5), self.rank**-0.5)
        init_step_bias(self.dt_projs_bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.scan(x_BHWC)[0]

    def scan(self, x_BHWC: Tensor, *, want_state: bool = False) -> tuple[Tensor, ScanState | None]:
        """The block's output, and on request what its scan computed with."""
        z_BDHW = self.conv2d(self.in_proj(x_BHWC).permute(0, 3, 1, 2))
        z_BHWD = functional.silu(z_BDHW).permute(0, 2, 3, 1)
        grid = (z_BHWD.shape[1], z_BHWD.shape[2])
        channels_last = not z_BHWD.is_cuda
        u_BGDL = cross_scan(z_BHWD, channels_last=channels_last)
        delta_BGDL, B_BGNL, C_BGNL = self._project(u_BGDL, channels_last=channels_last)
        A_GDN = torch.unflatten(-torch.exp(self.A_logs.float()), 0, (ORDERS, self.inner))
        D_GD = self.Ds.view(ORDERS, self.inner)
        y_BGDL = scan_groups(
            u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, D_GD, self.dt_projs_bias, softplus=True, backend=self.backend
        )
        out_BHWC = self.out_proj(self.out_norm(cross_merge(y_BGDL, grid)))
        if not want_state:
            return out_BHWC, None
        dt_BGDL = functional.softplus(delta_BGDL.float() + self.dt_projs_bias[:, :, None])
        order_GL = cross_orders(grid, out_BHWC.device)
        state = ScanState(dt_BGDL=dt_BGDL, A_GDN=A_GDN, B_BGNL=B_BGNL.float(), C_BGNL=C_BGNL.float(), order_GL=order_GL)
        return out_BHWC, state

    def _project(self, u_BGDL: Tensor, *, channels_last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes (before bias and softplus), B and C of every position, by matrix products that copy nothing."""
        sizes = [self.rank, self.states, self.states]
        if channels_last:
            batch = u_BGDL.shape[0]
            u_GXD = u_BGDL.permute(1, 0, 3, 2).flatten(1, 2)
            dtr_GXR, B_GXN, C_GXN = torch.split(torch.bmm(u_GXD, self.x_proj_weight.mT), sizes, dim=2)
            delta_GXD = torch.bmm(dtr_GXR, self.dt_projs_weight.mT)
            delta, B, C = (torch.unflatten(x, 1, (batch, -1)).permute(1, 0, 3, 2) for x in (delta_GXD, B_GXN, C_GXN))
            return delta, B, C
        dtr_BGRL, B_BGNL, C_BGNL = torch.split(torch.matmul(self.x_proj_weight, u_BGDL), sizes, dim=2)
        return torch.matmul(self.dt_projs_weight, dtr_BGRL), B_BGNL, C_BGNL


def cross_scan(z_BHWD: Tensor, *, channels_last: bool) -> Tensor:
    """A map in four orders: rows, columns, both reversed (BGDL).

    Args:
        z_BHWD: the map.
        channels_last: whether the memory is to lie as (G, B, L, D) rather than (B, G, D, L).
    """
    if channels_last:
        seqs_GBLD = torch.stack((z_BHWD.flatten(1, 2), z_BHWD.transpose(1, 2).flatten(1, 2)))
        return torch.cat((seqs_GBLD, seqs_GBLD.flip(2))).permute(1, 0, 3, 2)
    z_BDHW = z_BHWD.permute(0, 3, 1, 2)
    seqs_BGDL = torch.stack((z_BDHW.flatten(2), z_BDHW.transpose(2, 3).flatten(2)), dim=1)
    return torch.cat((seqs_BGDL, seqs_BGDL.flip(3)), dim=1)


def cross_merge(y_BGDL: Tensor, grid: tuple[int, int]) -> Tensor:
    """The sum of four scanned orders, each put back in its place (BHWD); the adjoint of `cross_scan`."""
    forth_BLGD, back_BLGD = y_BGDL.permute(0, 3, 1, 2).chunk(2, dim=2)  # slices would fill gradients with zeros first
    rows_BLD, columns_BLD = (forth_BLGD + back_BLGD.flip(1)).unbind(2)
    columns_BWHD = torch.unflatten(columns_BLD, 1, (grid[1], grid[0]))
    return torch.unflatten(rows_BLD, 1, grid) + columns_BWHD.transpose(1, 2)


def cross_orders(grid: tuple[int, int], device: torch.device) -> Tensor:
    """The raster index that each order reads at each time (G, L)."""
    raster_HW = torch.arange(grid[0] * grid[1], device=device).view(grid)
    orders = torch.stack((raster_HW.flatten(), raster_HW.T.flatten()))
    return torch.cat((orders, orders.flip(1)))


def init_step_bias(bias: Tensor, low: float = 1e-3, high: float = 1e-1, floor: float = 1e-4) -> None:
    """Biases whose softplus, the step size, is log-uniform in [low, high]."""
    with torch.no_grad():
        step = torch.empty_like(bias).uniform_(math.log(low), math.log(high)).exp_().clamp_(min=floor)
        bias.copy_(step + torch.log(-torch.expm1(-step)))
