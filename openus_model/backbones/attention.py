"""The attention map that a selective scan implies: how much each position reads from each other one.

Unrolled, the scan's output at time i is a weighted sum of its inputs at times j <= i, with the weights

    M[i, j] = mean over d of sum over n of  C_i[n] exp(S_i - S_j) B_j[n],   S_t = sum over s <= t of A dt_s

without the step size before B and without the skip, as OpenUS defines it. Every order gives one such matrix; they are
put back into raster order, added, and scaled to [0, 1] per image. exp(S_i - S_j) is taken as written, chunk by chunk,
where each factor is at most 1: nothing overflows and no clamp is needed. (OpenUS's code divides exp(S_i) by
max(exp(S_j), 1e-20), which is the same until the decay passes 1e-20, and scales over the whole batch.)

Axes: B batch, G orders, D channels, N states, L positions, T queries of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openus_model.backbones.ss2d import ScanState

CHUNK = 16


def attention_map(state: ScanState) -> Tensor:
    """The map of a scan in [0, 1] per image (B, L, L): rows query, columns key, both in raster order."""
    return scale_to_unit(raw_attention(state))


@torch.no_grad()
def raw_attention(state: ScanState) -> Tensor:
    """The sum over orders before scaling (B, L, L)."""
    batch, orders, _, length = state.dt_BGDL.shape
    total_BLL = state.dt_BGDL.new_zeros(batch, length, length)
    for g in range(orders):
        order_L = state.order_GL[g]
        scanned_BLL = torch.zeros_like(total_BLL)
        for n in range(state.A_GDN.shape[-1]):
            decay_BLD = (state.dt_BGDL[:, g] * state.A_GDN[g, :, n, None]).mT.cumsum(1)
            scanned_BLL += _mean_decay(decay_BLD) * (state.C_BGNL[:, g, n, :, None] * state.B_BGNL[:, g, n, None, :])
        place_L = torch.argsort(order_L)
        total_BLL += scanned_BLL[:, place_L][:, :, place_L]
    return total_BLL


def _mean_decay(S_BLD: Tensor) -> Tensor:
    """mean over d of exp(S_i - S_j) for j <= i, else 0 (B, L, L)."""
    batch, length, channels = S_BLD.shape
    out_BLL = S_BLD.new_zeros(batch, length, length)
    for start in range(0, length, CHUNK):
        S_BTD = S_BLD[:, start : start + CHUNK]
        stop = start + S_BTD.shape[1]
        within_BTTD = (S_BTD[:, :, None] - S_BTD[:, None, :]).clamp_(max=0.0).exp_()
        out_BLL[:, start:stop, start:stop] = within_BTTD.mean(-1).tril_()
        if start:
            from_start_BTD = (S_BTD - S_BTD[:, :1]).exp_()
            to_start_BJD = (S_BTD[:, :1] - S_BLD[:, :start]).exp_()
            out_BLL[:, start:stop, :start] = from_start_BTD @ to_start_BJD.mT / channels
    return out_BLL


def scale_to_unit(map_BLL: Tensor) -> Tensor:
    """Each image's map to [0, 1] by its own least and greatest value; a constant map becomes 0."""
    low_B, high_B = map_BLL.flatten(1).aminmax(dim=1)
    span_B = (high_B - low_B).clamp(min=torch.finfo(map_BLL.dtype).tiny)
    return (map_BLL - low_B[:, None, None]) / span_B[:, None, None]
