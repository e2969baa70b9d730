"""The selective scan as its definition reads, one time step after the other: the oracle of every other backend.

    dt_t = softplus(delta_t + bias)
    h_t  = exp(dt_t A) h_(t-1) + dt_t B_t u_t,   h_0 = 0 before the first step
    y_t  = sum_n C_t[n] h_t[n] + D u_t

Plain torch with autograd; runs in float64 where its input is float64, else in float32. Slow on purpose: its backward
costs O(L^2). Axes: B batch, G groups, D channels of a group, N states, L time.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023,
https://arxiv.org/abs/2312.00752, algorithm 2. As in its code, B is discretised as dt B (not by zero-order hold).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    """The scan of every group; returns BGDL in the dtype of `u_BGDL`."""
    dtype = torch.promote_types(u_BGDL.dtype, torch.float32)
    u, dt, A, B, C = (x.to(dtype) for x in (u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL))
    if bias_GD is not None:
        dt = dt + bias_GD.to(dtype)[:, :, None]
    if softplus:
        dt = functional.softplus(dt)
    h_BGDN = u.new_zeros(*u.shape[:3], A.shape[-1])
    ys = []
    for t in range(u.shape[-1]):
        decay = torch.exp(dt[..., t, None] * A)
        h_BGDN = decay * h_BGDN + (dt[..., t] * u[..., t])[..., None] * B[:, :, None, :, t]
        ys.append((h_BGDN * C[:, :, None, :, t]).sum(-1))
    y = torch.stack(ys, dim=-1)
    if D_GD is not None:
        y = y + D_GD.to(dtype)[:, :, None] * u
    return y.to(u_BGDL.dtype)
