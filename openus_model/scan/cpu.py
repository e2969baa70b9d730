"""The selective scan on CPU: blocks of time steps that stay in the cache, with a backward of its own, in pure torch.

Time is cut into blocks. Within a block, step sizes, decays and inputs are computed into small scratch buffers, the
recurrence runs over them with one `addcmul` per step, and the outputs leave. The backward walks the blocks from the
end, recomputes each from the state at its start, and runs the adjoint recurrence

    g_t = C_t dy_t + a_(t+1) g_(t+1),   a_t = exp(dt_t A)

For it only inputs, step sizes and one state per block are kept. Exact for any step size: nothing is ever divided by a
decay. Any memory layout works; the fastest is (G, B, L, D), channels last, which SS2D uses.

Axes: B batch, G groups, D channels, N states, T time steps of a block, L all time steps. Inside, time comes first:
(T, G, B, D), and (T, N, G, B, D) with states. Measured in benchmarks/scan.py; docs/explain/scan.md has the table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = 131072
"""Elements of one scratch buffer (512 KiB in float32): enough to hide the cost of a call, few enough to stay cached."""
MIN_STEPS = 8
"""A block has at least so many steps, however large one is, so that layouts with time last are read by whole lines."""


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
    """The scan of every group; returns BGDL in the dtype of `u_BGDL`, channels last in memory."""
    y_BGDL: Tensor = _CpuScan.apply(  # type: ignore[no-untyped-call]
        u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, softplus
    )
    return y_BGDL


class _CpuScan(torch.autograd.Function):
    """The scan and its adjoint."""

    @staticmethod
    def forward(
        ctx: Any,
        u_BGDL: Tensor,
        delta_BGDL: Tensor,
        A_GDN: Tensor,
        B_BGNL: Tensor,
        C_BGNL: Tensor,
        D_GD: Tensor | None,
        bias_GD: Tensor | None,
        softplus: bool,
    ) -> Tensor:
        u_LGBD, delta_LGBD = _time_first(u_BGDL), _time_first(delta_BGDL)
        work = _Workspace(u_LGBD, A_GDN, buffers=2)
        B_LNGB, C_LNGB = (x.permute(3, 2, 1, 0).to(work.dtype) for x in (B_BGNL, C_BGNL))
        skip_GD = None if D_GD is None else D_GD.to(work.dtype)
        y_BGDL, y_LGBD = _empty_like_layout(u_BGDL)
        dt_LGBD = work.new(u_LGBD.shape)
        state_NGBD = work.new(work.step).zero_()
        starts = []
        for block in work.blocks:
            starts.append(state_NGBD)
            u, dt = u_LGBD[block].to(work.dtype), dt_LGBD[block]
            _step_sizes(delta_LGBD[block], bias_GD, softplus, out=dt)
            a, h = work.decays(dt), work.inputs(dt, u, B_LNGB[block], 1)
            state_NGBD = _recur(work.steps(0), work.steps(1), len(dt), state_NGBD)
            y = _sum_states(torch.mul(h, C_LNGB[block, ..., None], out=a))
            _add_skip(y, u, skip_GD, out=y_LGBD[block])
        ctx.save_for_backward(u_BGDL, dt_LGBD, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, torch.stack(starts))
        ctx.softplus, ctx.delta_dtype = softplus, delta_BGDL.dtype
        return y_BGDL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BGDL: Tensor) -> tuple[Tensor | None, ...]:
        u_BGDL, dt_LGBD, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, starts = ctx.saved_tensors
        u_LGBD, dy_LGBD = _time_first(u_BGDL), _time_first(dy_BGDL)
        work = _Workspace(u_LGBD, A_GDN, buffers=4)
        B_LNGB, C_LNGB = (x.permute(3, 2, 1, 0).to(work.dtype) for x in (B_BGNL, C_BGNL))
        skip_GD = None if D_GD is None else D_GD.to(work.dtype)
        du_BGDL, du_LGBD = _empty_like_layout(u_BGDL)
        ddelta_BGDL, ddelta_LGBD = _empty_like_layout(u_BGDL, ctx.delta_dtype)
        # Sums over time and batch gather in whole blocks, which is five times cheaper than to reduce each block.
        dA_TNGBD, dD_TGBD, dbias_TGBD = work.zeros(with_states=True), work.zeros(), work.zeros()
        dB_LNGB, dC_LNGB = (work.new(B_LNGB.shape) for _ in range(2))
        carry_NGBD = work.new(work.step).zero_()
        minus_A_NG1D = -work.A_NGD[:, :, None]
        for block, start_NGBD in zip(reversed(work.blocks), reversed(starts.unbind()), strict=True):
            u, dt, dy = u_LGBD[block].to(work.dtype), dt_LGBD[block], dy_LGBD[block].to(work.dtype)
            count = len(dt)
            a, h = work.decays(dt), work.inputs(dt, u, B_LNGB[block], 1)
            _recur(work.steps(0), work.steps(1), count, start_NGBD)
            torch.sum(torch.mul(h, dy[:, None], out=work.take(3, count)), -1, out=dC_LNGB[block])
            g = torch.mul(dy[:, None], C_LNGB[block, ..., None], out=work.take(2, count))
            carry_NGBD = _recur_back(work.steps(0), work.steps(2), count, carry_NGBD)
            # From here on `a` holds a_t h_(t-1) g_t, the gradient of dt_t A.
            a[1:].mul_(h[:-1])
            a[0].mul_(start_NGBD)
            a.mul_(g)
            dA_TNGBD[:count].addcmul_(a, dt[:, None])
            minus_ddt = a.mul_(minus_A_NG1D)
            torch.mul(dt, u, out=h[:, 0])
            torch.sum(torch.mul(g, h[:, :1], out=work.take(3, count)), -1, out=dB_LNGB[block])
            g.mul_(B_LNGB[block, ..., None])
            gB, minus_ddt = _sum_states(g), _sum_states(minus_ddt)
            minus_ddt.addcmul_(gB, u, value=-1)
            # The softplus's slope follows from its value: 1 - exp(-dt).
            ddelta = minus_ddt.mul_(torch.neg(dt, out=h[:, 0]).expm1_()) if ctx.softplus else minus_ddt.neg_()
            ddelta_LGBD[block] = ddelta
            _add_skip(gB.mul_(dt), dy, skip_GD, out=du_LGBD[block])
            if skip_GD is not None:
                dD_TGBD[:count].addcmul_(dy, u)
            if bias_GD is not None:
                dbias_TGBD[:count].add_(ddelta)
        return (
            du_BGDL,
            ddelta_BGDL,
            dA_TNGBD.sum((0, 3)).permute(1, 2, 0).to(A_GDN.dtype),
            dB_LNGB.permute(3, 2, 1, 0).to(B_BGNL.dtype),
            dC_LNGB.permute(3, 2, 1, 0).to(C_BGNL.dtype),
            None if D_GD is None else dD_TGBD.sum((0, 2)).to(D_GD.dtype),
            None if bias_GD is None else dbias_TGBD.sum((0, 2)).to(bias_GD.dtype),
            None,
        )


class _Workspace:
    """Scratch buffers of one call, each a block of time steps, and the blocks that time is cut into."""

    def __init__(self, u_LGBD: Tensor, A_GDN: Tensor, *, buffers: int) -> None:
        length, groups, batch, channels = u_LGBD.shape
        self.dtype = torch.promote_types(u_LGBD.dtype, torch.float32)
        self.device = u_LGBD.device
        self.A_NGD = A_GDN.permute(2, 0, 1).to(self.dtype).contiguous()
        self.states = A_GDN.shape[2]
        self.step = (self.states, groups, batch, channels)
        size = min(length, max(MIN_STEPS, BLOCK_ELEMENTS // (self.states * groups * batch * channels)))
        self.blocks = [slice(t, min(t + size, length)) for t in range(0, length, size)]
        self._buffers = [self.new((size, *self.step)) for _ in range(buffers)]
        self._steps = [buffer.unbind() for buffer in self._buffers]

    def new(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """An uninitialised tensor to compute in."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def zeros(self, *, with_states: bool = False) -> Tensor:
        """A zeroed block of time steps, (T, G, B, D) or (T, N, G, B, D)."""
        return torch.zeros_like(self._buffers[0] if with_states else self._buffers[0][:, 0])

    def take(self, index: int, count: int) -> Tensor:
        """The first `count` steps of a buffer (T, N, G, B, D)."""
        return self._buffers[index][:count]

    def steps(self, index: int) -> tuple[Tensor, ...]:
        """A buffer's steps, each (N, G, B, D)."""
        return self._steps[index]

    def decays(self, dt_TGBD: Tensor) -> Tensor:
        """exp(dt A) into buffer 0."""
        return torch.mul(dt_TGBD[:, None], self.A_NGD[:, :, None], out=self.take(0, len(dt_TGBD))).exp_()

    def inputs(self, dt_TGBD: Tensor, u_TGBD: Tensor, B_TNGB: Tensor, index: int) -> Tensor:
        """dt B u into a buffer."""
        out = self.take(index, len(dt_TGBD))
        if self.states == 1:
            torch.mul(dt_TGBD, u_TGBD, out=out[:, 0])
            return out.mul_(B_TNGB[..., None])
        return torch.mul((dt_TGBD * u_TGBD)[:, None], B_TNGB[..., None], out=out)


def _recur(a: tuple[Tensor, ...], h: tuple[Tensor, ...], count: int, state: Tensor) -> Tensor:
    """h_t += a_t h_(t-1) in place, from `state` before the first step; returns a copy of the last."""
    for t in range(count):
        state = h[t].addcmul_(a[t], state)
    return state.clone()


def _recur_back(a: tuple[Tensor, ...], g: tuple[Tensor, ...], count: int, carry: Tensor) -> Tensor:
    """g_t += a_(t+1) g_(t+1) in place, `carry` being that term behind the last step; returns a_0 g_0."""
    last = g[count - 1].add_(carry)
    for t in range(count - 2, -1, -1):
        last = g[t].addcmul_(a[t + 1], last)
    return a[0] * last


def _step_sizes(delta_TGBD: Tensor, bias_GD: Tensor | None, softplus: bool, *, out: Tensor) -> None:
    """The step sizes of a block into `out`."""
    if bias_GD is None:
        out.copy_(delta_TGBD)
    else:
        torch.add(delta_TGBD.to(out.dtype), bias_GD.to(out.dtype)[:, None], out=out)
    if softplus:
        torch._C._nn.softplus(out, out=out)  # type: ignore[call-arg]  # the functional form has no `out`


def _add_skip(x_TGBD: Tensor, skipped_TGBD: Tensor, skip_GD: Tensor | None, *, out: Tensor) -> None:
    """x + D skipped into `out`, in one pass over memory."""
    if skip_GD is None:
        out.copy_(x_TGBD)
    else:
        torch.addcmul(x_TGBD, skipped_TGBD, skip_GD[:, None], out=out)


def _sum_states(x_TNGBD: Tensor) -> Tensor:
    """TNGBD -> TGBD, in place where there is but one state."""
    return x_TNGBD[:, 0] if x_TNGBD.shape[1] == 1 else x_TNGBD.sum(1)


def _time_first(x_BGDL: Tensor) -> Tensor:
    """BGDL -> LGBD, a view."""
    return x_BGDL.permute(3, 1, 0, 2)


def _empty_like_layout(x_BGDL: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """An empty tensor of x's shape that lies as (G, B, L, D), seen as BGDL and as LGBD."""
    batch, groups, channels, length = x_BGDL.shape
    memory_GBLD = torch.empty((groups, batch, length, channels), dtype=dtype or x_BGDL.dtype, device=x_BGDL.device)
    return memory_GBLD.permute(1, 0, 3, 2), memory_GBLD.permute(2, 0, 1, 3)
