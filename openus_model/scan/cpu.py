"""The selective scan on CPU: blocks of time steps that stay in the cache, with a backward of its own, in pure torch.

Time is cut into blocks. Within a block, step sizes, decays and inputs are computed into small scratch buffers, the
recurrence runs over them with one multiply-add per step, and the outputs leave. The backward walks the blocks from the
end, recomputes each from the state at its start, and runs the adjoint recurrence

    g_t = C_t dy_t + a_(t+1) g_(t+1),   a_t = exp(dt_t A)

For it only inputs, step sizes and one state per block are kept. Exact for any step size: nothing is ever divided by a
decay. Any memory layout works: channels last, as SS2D has it, is read as it lies, and anything else is transposed once.

Axes: B batch, G groups, D channels, N states, T time steps of a block, L all time steps. Inside, time comes first:
(T, B, G, D), and (T, N, B, G, D) with states. Measured in benchmarks/scan.py; docs/explain/scan.md has the table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = 131072
"""Elements of one scratch buffer (512 KiB in float32): enough to hide the cost of a call, few enough to stay cached."""
MIN_STEPS = 8
"""A block has at least so many steps, however large one is."""


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
    if not torch.is_grad_enabled():
        return _forward(u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, softplus, keep=False)[0]
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
        y_BGDL, dt_LBGD, starts = _forward(
            u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, softplus, keep=True
        )
        ctx.save_for_backward(u_BGDL, dt_LBGD, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, torch.stack(starts))
        ctx.softplus, ctx.delta_dtype = softplus, delta_BGDL.dtype
        return y_BGDL

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BGDL: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, starts = ctx.saved_tensors
        adjoint = _Adjoint(dy_BGDL, *inputs, softplus=ctx.softplus, delta_dtype=ctx.delta_dtype)
        for block, start_NBGD in zip(reversed(adjoint.work.blocks), reversed(starts.unbind()), strict=True):
            adjoint.step_back(block, start_NBGD)
        return (*adjoint.gradients(), None)


def _forward(
    u_BGDL: Tensor,
    delta_BGDL: Tensor,
    A_GDN: Tensor,
    B_BGNL: Tensor,
    C_BGNL: Tensor,
    D_GD: Tensor | None,
    bias_GD: Tensor | None,
    softplus: bool,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(the output, the step sizes of all time where they are to be kept, the state at the start of every block)."""
    u_LBGD, delta_LBGD = _time_first(u_BGDL), _time_first(delta_BGDL)
    work = _Workspace(u_LBGD, A_GDN, B_BGNL, C_BGNL, D_GD, buffers=2)
    y_BGDL, y_LBGD = _empty_map(u_BGDL)
    dt_LBGD = work.new(u_LBGD.shape) if keep else work.new((work.size, *u_LBGD.shape[1:]))
    state_NBGD = work.new(work.step).zero_()
    starts = []
    for block in work.blocks:
        starts.append(state_NBGD)
        u = u_LBGD[block].to(work.dtype)
        dt = dt_LBGD[block] if keep else dt_LBGD[: len(u)]
        _step_sizes(delta_LBGD[block], bias_GD, softplus, out=dt)
        a, h = work.states(dt, u, block, state_NBGD)
        state_NBGD = h[-1].clone()
        y = _sum_states(torch.mul(h, work.C_LNBG1[block], out=a))
        work.add_skip(y, u, out=y_LBGD[block])
    return y_BGDL, dt_LBGD, starts


class _Workspace:
    """Scratch buffers of one call, each a block of time steps, the blocks that time is cut into, and the parameters."""

    def __init__(
        self, u_LBGD: Tensor, A_GDN: Tensor, B_BGNL: Tensor, C_BGNL: Tensor, D_GD: Tensor | None, *, buffers: int
    ) -> None:
        length = u_LBGD.shape[0]
        self.dtype = torch.promote_types(u_LBGD.dtype, torch.float32)
        self.device = u_LBGD.device
        self.A_N1GD = A_GDN.permute(2, 0, 1)[:, None].to(self.dtype).contiguous()
        self.B_LNBG1, self.C_LNBG1 = (x.permute(3, 2, 0, 1)[..., None].to(self.dtype) for x in (B_BGNL, C_BGNL))
        self.skip_GD = None if D_GD is None else D_GD.to(self.dtype)
        self.step = (A_GDN.shape[2], *u_LBGD.shape[1:])
        self.size = min(length, max(MIN_STEPS, BLOCK_ELEMENTS // max(1, self.new(self.step).numel())))
        self.blocks = [slice(t, min(t + self.size, length)) for t in range(0, length, self.size)]
        self._buffers = [self.new((self.size, *self.step)) for _ in range(buffers)]
        self._steps = [buffer.unbind() for buffer in self._buffers]

    def new(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """An uninitialised tensor to compute in."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def zeros(self, *, with_states: bool = False) -> Tensor:
        """A zeroed block of time steps, (T, B, G, D) or (T, N, B, G, D)."""
        return torch.zeros_like(self._buffers[0] if with_states else self._buffers[0][:, 0])

    def take(self, index: int, count: int) -> Tensor:
        """The first `count` steps of a buffer (T, N, B, G, D)."""
        return self._buffers[index][:count]

    def states(self, dt: Tensor, u: Tensor, block: slice, start_NBGD: Tensor) -> tuple[Tensor, Tensor]:
        """Decays and states of a block, in buffers 0 and 1: h_t = a_t h_(t-1) + dt_t B_t u_t."""
        count = len(dt)
        a = torch.mul(dt[:, None], self.A_N1GD, out=self.take(0, count)).exp_()
        h, B = self.take(1, count), self.B_LNBG1[block]
        if h.shape[1] == 1:
            torch.mul(dt, u, out=h[:, 0])
            h.mul_(B)
        else:
            torch.mul((dt * u)[:, None], B, out=h)
        h[0].addcmul_(a[0], start_NBGD)
        a_steps, h_steps = self._steps[0][:count], self._steps[1][:count]
        _add_products(h_steps[1:], a_steps[1:], h_steps[:-1])
        return a, h

    def adjoint_states(self, index: int, count: int, carry_NBGD: Tensor) -> Tensor:
        """g_t += a_(t+1) g_(t+1) in a buffer, `carry` being that term behind the last step; returns a_0 g_0."""
        a_steps, g_steps = self._steps[0][:count], self._steps[index][:count]
        g_steps[-1].add_(carry_NBGD)
        _add_products(g_steps[-2::-1], a_steps[:0:-1], g_steps[:0:-1])
        return a_steps[0] * g_steps[0]

    def add_skip(self, x: Tensor, skipped: Tensor, *, out: Tensor) -> None:
        """x + D skipped into `out`, in one pass over memory."""
        if self.skip_GD is None:
            out.copy_(x)
        else:
            torch.addcmul(x, skipped, self.skip_GD, out=out)


class _Adjoint:
    """The backward of one call, block by block from the end.

    Sums over time and batch gather in whole blocks, which is five times cheaper than to reduce each block.
    """

    def __init__(
        self,
        dy_BGDL: Tensor,
        u_BGDL: Tensor,
        dt_LBGD: Tensor,
        A_GDN: Tensor,
        B_BGNL: Tensor,
        C_BGNL: Tensor,
        D_GD: Tensor | None,
        bias_GD: Tensor | None,
        *,
        softplus: bool,
        delta_dtype: torch.dtype,
    ) -> None:
        self.inputs = (A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD)
        self.softplus = softplus
        self.u_LBGD, self.dt_LBGD, self.dy_LBGD = _time_first(u_BGDL), dt_LBGD, _time_first(dy_BGDL)
        self.work = work = _Workspace(self.u_LBGD, A_GDN, B_BGNL, C_BGNL, D_GD, buffers=4)
        self.minus_A_N1GD = -work.A_N1GD
        self.du_BGDL, self.du_LBGD = _empty_map(u_BGDL)
        self.ddelta_BGDL, self.ddelta_LBGD = _empty_map(u_BGDL, delta_dtype)
        self.dA_TNBGD, self.dD_TBGD, self.dbias_TBGD = work.zeros(with_states=True), work.zeros(), work.zeros()
        self.dB_LNBG, self.dC_LNBG = (work.new(work.B_LNBG1.shape[:-1]) for _ in range(2))
        self.carry_NBGD = work.new(work.step).zero_()

    def step_back(self, block: slice, start_NBGD: Tensor) -> None:
        """Take a block, whose successors are done, from the state at its start."""
        work = self.work
        u, dt, dy = (x[block].to(work.dtype) for x in (self.u_LBGD, self.dt_LBGD, self.dy_LBGD))
        count = len(dt)
        a, h = work.states(dt, u, block, start_NBGD)
        torch.sum(torch.mul(h, dy[:, None], out=work.take(3, count)), -1, out=self.dC_LNBG[block])
        g = torch.mul(dy[:, None], work.C_LNBG1[block], out=work.take(2, count))
        self.carry_NBGD = work.adjoint_states(2, count, self.carry_NBGD)
        # From here on `a` holds a_t h_(t-1) g_t, the gradient of dt_t A.
        a[1:].mul_(h[:-1])
        a[0].mul_(start_NBGD)
        a.mul_(g)
        self.dA_TNBGD[:count].addcmul_(a, dt[:, None])
        torch.mul(dt, u, out=h[:, 0])
        torch.sum(torch.mul(g, h[:, :1], out=work.take(3, count)), -1, out=self.dB_LNBG[block])
        gB = _sum_states(g.mul_(work.B_LNBG1[block]))
        minus_ddt = _sum_states(a.mul_(self.minus_A_N1GD)).addcmul_(gB, u, value=-1)
        self._put_ddelta(block, minus_ddt, dt, out=h[:, 0])
        work.add_skip(gB.mul_(dt), dy, out=self.du_LBGD[block])
        if work.skip_GD is not None:
            self.dD_TBGD[:count].addcmul_(dy, u)

    def _put_ddelta(self, block: slice, minus_ddt: Tensor, dt: Tensor, *, out: Tensor) -> None:
        """The gradient of delta, and its share in the bias's; `out` is scratch for the slope."""
        # The softplus's slope follows from its value: 1 - exp(-dt).
        minus_slope = torch.neg(dt, out=out).expm1_() if self.softplus else out.fill_(-1)
        torch.mul(minus_ddt, minus_slope, out=self.ddelta_LBGD[block])
        self.dbias_TBGD[: len(dt)].addcmul_(minus_ddt, minus_slope)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """The gradients of u, delta, A, B, C, D and the bias."""
        A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD = self.inputs
        return (
            self.du_BGDL,
            self.ddelta_BGDL,
            self.dA_TNBGD.sum((0, 2)).permute(1, 2, 0).to(A_GDN.dtype),
            self.dB_LNBG.permute(2, 3, 1, 0).to(B_BGNL.dtype),
            self.dC_LNBG.permute(2, 3, 1, 0).to(C_BGNL.dtype),
            None if D_GD is None else self.dD_TBGD.sum((0, 1)).to(D_GD.dtype),
            None if bias_GD is None else self.dbias_TBGD.sum((0, 1)).to(bias_GD.dtype),
        )


def _add_products(x: tuple[Tensor, ...], a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    """x[i] += a[i] b[i], one i after the other; b may hold the x before.

    One call for all: on the CPU torch goes through such lists in order, at half the cost of a call from Python each.
    """
    if x:
        torch._foreach_addcmul_(x, a, b)


def _step_sizes(delta: Tensor, bias_GD: Tensor | None, softplus: bool, *, out: Tensor) -> None:
    """The step sizes of a block into `out`."""
    if bias_GD is None:
        out.copy_(delta)
    else:
        torch.add(delta.to(out.dtype), bias_GD.to(out.dtype), out=out)
    if softplus:
        torch._C._nn.softplus(out, out=out)  # type: ignore[call-arg]  # the functional form has no `out`


def _sum_states(x_TNBGD: Tensor) -> Tensor:
    """TNBGD -> TBGD, in place where there is but one state."""
    return x_TNBGD[:, 0] if x_TNBGD.shape[1] == 1 else x_TNBGD.sum(1)


def _time_first(x_BGDL: Tensor) -> Tensor:
    """BGDL -> LBGD, a view where channels lie side by side, else a copy.

    The copy is of a whole matrix, which torch transposes in tiles: several times faster than block by block.
    """
    batch, groups, channels, length = x_BGDL.shape
    if x_BGDL.stride(2) in (0, 1):
        return x_BGDL.permute(3, 0, 1, 2)
    width = batch * groups * channels
    x_LX = x_BGDL.new_empty(length, width).copy_(x_BGDL.reshape(width, length).mT)
    return x_LX.view(length, batch, groups, channels)


def _empty_map(x_BGDL: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """An empty tensor of x's shape with channels last in memory, seen as BGDL and as LBGD.

    It lies as x does where x has channels last, which spares the caller's next product a copy, else as (B, L, G, D).
    """
    if x_BGDL.stride(2) == 1:
        empty_BGDL = torch.empty_like(x_BGDL, dtype=dtype)
    else:
        batch, groups, channels, length = x_BGDL.shape
        memory_BLGD = torch.empty((batch, length, groups, channels), dtype=dtype or x_BGDL.dtype, device=x_BGDL.device)
        empty_BGDL = memory_BLGD.permute(0, 2, 3, 1)
    return empty_BGDL, empty_BGDL.permute(3, 0, 1, 2)
