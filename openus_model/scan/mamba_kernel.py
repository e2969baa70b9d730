"""The selective scan on mamba-ssm's CUDA kernel, called through its extension module without its Python package.

`selective_scan_cuda` is a top-level module: importing it needs torch only, where `import mamba_ssm` loads transformers
and triton besides. The kernel takes (B, G D, L) with time contiguous, u, delta, B and C of one dtype and the parameters
in float32; this module brings any input to that. Its backward adds with atomics, so a run on it does not repeat to the
bit; the backend `triton` does.

Axes: B batch, G groups, D channels, N states, L time.
"""

from __future__ import annotations

from typing import Any

import selective_scan_cuda
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from openus_model.errors import UsageError

MAX_STATES = 256


def scan(
    u_BGDL: Tensor,
    delta_BGDL: Tensor,
    A_GDN: Tensor,
    B_BGNL: Tensor,
    C_BGNL: Tensor,
    D_GD: Tensor | None,
    bias_GD: Tensor | None,
    softplus: bool,
) -> Tensor:
    """The scan of every group; returns BGDL in the dtype of `u_BGDL`.

    Raises:
        UsageError: float64, or more than 256 states, which the kernel does not know.
    """
    if u_BGDL.dtype == torch.float64 or A_GDN.shape[2] > MAX_STATES:
        raise UsageError(
            "mamba-ssm's kernel cannot take this scan",
            expected=f"float32, float16 or bfloat16, at most {MAX_STATES} states",
            got=f"{u_BGDL.dtype}, {A_GDN.shape[2]} states",
            next_step="use the backend triton or reference",
        )
    dtype = u_BGDL.dtype
    y_BXL: Tensor = _MambaScan.apply(  # type: ignore[no-untyped-call]
        u_BGDL.flatten(1, 2).contiguous(),
        delta_BGDL.flatten(1, 2).to(dtype).contiguous(),
        A_GDN.flatten(0, 1).float().contiguous(),
        B_BGNL.to(dtype).contiguous(),
        C_BGNL.to(dtype).contiguous(),
        None if D_GD is None else D_GD.flatten().float().contiguous(),
        None if bias_GD is None else bias_GD.flatten().float().contiguous(),
        softplus,
    )
    return torch.unflatten(y_BXL, 1, u_BGDL.shape[1:3])


class _MambaScan(torch.autograd.Function):
    """The kernel's forward and backward; X is the merged axis (G D)."""

    @staticmethod
    def forward(
        ctx: Any,
        u_BXL: Tensor,
        delta_BXL: Tensor,
        A_XN: Tensor,
        B_BGNL: Tensor,
        C_BGNL: Tensor,
        D_X: Tensor | None,
        bias_X: Tensor | None,
        softplus: bool,
    ) -> Tensor:
        y_BXL, states, *_ = selective_scan_cuda.fwd(u_BXL, delta_BXL, A_XN, B_BGNL, C_BGNL, D_X, None, bias_X, softplus)
        ctx.save_for_backward(u_BXL, delta_BXL, A_XN, B_BGNL, C_BGNL, D_X, bias_X, states)
        ctx.softplus = softplus
        kept: Tensor = y_BXL
        return kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BXL: Tensor) -> tuple[Tensor | None, ...]:
        u_BXL, delta_BXL, A_XN, B_BGNL, C_BGNL, D_X, bias_X, states = ctx.saved_tensors
        du, ddelta, dA, dB, dC, dD, dbias, *_ = selective_scan_cuda.bwd(
            u_BXL, delta_BXL, A_XN, B_BGNL, C_BGNL, D_X, None, bias_X,
            dy_BXL.contiguous(), states, None, None, ctx.softplus, False,
        )  # fmt: skip
        dB, dC = dB.to(B_BGNL.dtype), dC.to(C_BGNL.dtype)
        return du, ddelta, dA, dB, dC, None if D_X is None else dD, None if bias_X is None else dbias, None
