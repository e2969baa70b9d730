"""The scan's rivals in pure torch: a loop over time with its own backward, in two memory layouts.

The plain loop is what one writes first: slices of tensors whose last axis is time. The other first brings time to the
front, so that each step is contiguous. Both keep decays and states of every step for the backward. One state only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LoopScan(torch.autograd.Function):
    """The scan of (B, G, D, L) inputs with A (G, D, 1), B and C (B, G, 1, L), D and bias (G, D)."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, time_first: bool
    ) -> Tensor:
        dt = functional.softplus(delta + bias[..., None])
        a, h = torch.exp(dt * A), dt * u * B
        a_steps, h_steps, h = _steps(a, h, time_first)
        for t in range(1, len(h_steps)):
            h_steps[t].addcmul_(a_steps[t], h_steps[t - 1])
        ctx.save_for_backward(u, dt, A, B, C, D, a, h)
        ctx.time_first = time_first
        return h * C + D[..., None] * u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, A, B, C, D, a, h = ctx.saved_tensors
        a_steps, g_steps, g = _steps(a, dy * C, ctx.time_first)
        for t in range(len(g_steps) - 2, -1, -1):
            g_steps[t].addcmul_(a_steps[t + 1], g_steps[t + 1])
        before = functional.pad(h[..., :-1], (1, 0))
        dlog = g * a * before
        gB = g * B
        ddelta = (dlog * A + gB * u) * -torch.expm1(-dt)
        return (
            gB * dt + dy * D[..., None],
            ddelta,
            (dlog * dt).sum((0, 3))[..., None],
            (g * dt * u).sum(2, keepdim=True),
            (dy * h).sum(2, keepdim=True),
            (dy * u).sum((0, 3)),
            ddelta.sum((0, 3)),
            None,
        )


def _steps(a: Tensor, x: Tensor, time_first: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """Views of every step of a and x, and x itself, whose memory the views share."""
    if not time_first:
        return a.unbind(-1), x.unbind(-1), x
    a_first, x_first = (tensor.permute(3, 0, 1, 2).contiguous() for tensor in (a, x))
    return a_first.unbind(), x_first.unbind(), x_first.permute(1, 2, 3, 0)
