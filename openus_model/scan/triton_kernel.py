"""The selective scan on CUDA as one fused Triton kernel each way; triton comes with torch's CUDA wheels.

A program owns a few channels of one group of one image and walks time in chunks: step sizes, decays, an associative
scan inside the chunk, the state carried to the next, the output. Of the forward only the state at each chunk's start is
kept; the backward recomputes the rest. Sums over channels (for B and C) and over images (for A, D, bias) leave as
partial sums that torch adds up in a fixed order: no atomics, so a run repeats to the bit.

The kernel scans one state; N states are N launches that add up. Arithmetic is float32, or float64 where u is.
Under TRITON_INTERPRET=1 it also runs on the CPU, where tests/model/test_cuda_scans.py holds it to the reference.
Axes: B batch, G groups, D channels, N states, L time, K channel blocks, J chunks.
"""

# mypy: disallow-untyped-decorators=False, allow-untyped-defs, allow-incomplete-defs, disallow-untyped-calls=False
# (triton carries no types, and its kernels are not called as Python)

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from openus_model.errors import UsageError

MAX_CHUNK = 512
MAX_CHANNELS = 4
TILE = 1024
"""A program's tile is channels x time steps of a chunk; these sizes compile for sm_90 without spilled registers."""


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
        UsageError: the tensors are not on a CUDA device.
    """
    if not u_BGDL.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError("the scan backend triton runs on CUDA", got=str(u_BGDL.device), next_step="use backend auto")
    states = A_GDN.shape[2]
    y_BGDL: Tensor | None = None
    for n in range(states):
        skip_GD = D_GD if n == 0 else None
        part_BGDL: Tensor = _TritonScan.apply(
            u_BGDL, delta_BGDL, A_GDN[..., n], B_BGNL[:, :, n], C_BGNL[:, :, n], skip_GD, bias_GD, softplus, states > 1
        )
        y_BGDL = part_BGDL if y_BGDL is None else y_BGDL + part_BGDL
    if y_BGDL is None:
        raise UsageError("the scan needs at least one state", where="A", got=f"{tuple(A_GDN.shape)}")
    return y_BGDL.to(u_BGDL.dtype)


class _TritonScan(torch.autograd.Function):
    """The scan of one state and its adjoint."""

    @staticmethod
    def forward(
        ctx: Any,
        u_BGDL: Tensor,
        delta_BGDL: Tensor,
        A_GD: Tensor,
        B_BGL: Tensor,
        C_BGL: Tensor,
        D_GD: Tensor | None,
        bias_GD: Tensor | None,
        softplus: bool,
        keep_wide: bool,
    ) -> Tensor:
        u, delta, A, B, C = (x.contiguous() for x in (u_BGDL, delta_BGDL, A_GD, B_BGL, C_BGL))
        skip, bias = (None if x is None else x.contiguous() for x in (D_GD, bias_GD))
        batch, groups, channels, length = u.shape
        wide = torch.promote_types(u.dtype, torch.float32)
        chunk, tile_channels = _tile(channels, length)
        y = torch.empty_like(u, dtype=wide if keep_wide else u.dtype)
        starts_BGDJ = torch.empty(batch, groups, channels, triton.cdiv(length, chunk), dtype=wide, device=u.device)
        if batch:
            with torch.cuda.device_of(u):
                _forward_kernel[(triton.cdiv(channels, tile_channels) * groups * batch,)](
                    u, delta, A, B, C, skip, bias, y, starts_BGDJ, groups, channels, length,
                    HAS_SKIP=skip is not None, HAS_BIAS=bias is not None, SOFTPLUS=softplus,
                    DOUBLE=wide == torch.float64, CHANNELS=tile_channels, CHUNK=chunk,
                    num_warps=_warps(tile_channels, chunk),
                )  # fmt: skip
        ctx.save_for_backward(u, delta, A, B, C, skip, bias, starts_BGDJ)
        ctx.softplus = softplus
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BGDL: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, skip, bias, starts_BGDJ = ctx.saved_tensors
        dy = dy_BGDL.contiguous()
        batch, groups, channels, length = u.shape
        chunk, tile_channels = _tile(channels, length)
        blocks = triton.cdiv(channels, tile_channels)
        du, ddelta = torch.empty_like(u), torch.empty_like(delta)
        sums_3BGD = torch.empty(3, batch, groups, channels, dtype=starts_BGDJ.dtype, device=u.device)
        sums_2KBGL = torch.empty(2, blocks, batch, groups, length, dtype=starts_BGDJ.dtype, device=u.device)
        if batch:
            with torch.cuda.device_of(u):
                _backward_kernel[(blocks * groups * batch,)](
                    u, delta, A, B, C, skip, bias, starts_BGDJ, dy, du, ddelta,
                    *sums_3BGD, *sums_2KBGL, batch * groups, groups, channels, length,
                    HAS_SKIP=skip is not None, HAS_BIAS=bias is not None, SOFTPLUS=ctx.softplus,
                    DOUBLE=starts_BGDJ.dtype == torch.float64, CHANNELS=tile_channels, CHUNK=chunk,
                    num_warps=_warps(tile_channels, chunk),
                )  # fmt: skip
        dA, dD, dbias = sums_3BGD.sum(1)
        dB, dC = sums_2KBGL.sum(1)
        return (
            du,
            ddelta,
            dA.to(A.dtype),
            dB.to(B.dtype),
            dC.to(C.dtype),
            None if skip is None else dD.to(skip.dtype),
            None if bias is None else dbias.to(bias.dtype),
            None,
            None,
        )


def _tile(channels: int, length: int) -> tuple[int, int]:
    """(time steps of a chunk, channels of a program), both powers of two."""
    chunk = min(MAX_CHUNK, triton.next_power_of_2(length))
    return chunk, min(MAX_CHANNELS, max(1, TILE // chunk), triton.next_power_of_2(channels))


def _warps(channels: int, chunk: int) -> int:
    """Eight elements of the tile per thread, at least one warp."""
    return max(1, channels * chunk // 256)


@triton.jit
def _combine(a_first, b_first, a_second, b_second):
    """Two maps h -> a h + b, one after the other."""
    return a_first * a_second, b_first * a_second + b_second


@triton.jit
def _step_sizes(x, SOFTPLUS: tl.constexpr):
    """softplus(x), exact for small values too: log(1 + e) e / ((1 + e) - 1) undoes the rounding of 1 + e."""
    if SOFTPLUS:
        e = tl.exp(tl.minimum(x, 20.0))
        w = 1.0 + e
        small = tl.where(w == 1.0, e, tl.log(w) * (e / tl.where(w == 1.0, 1.0, w - 1.0)))
        x = tl.where(x > 20.0, x, small)
    return x


@triton.jit
def _place(channels, CHANNELS: tl.constexpr):
    """(channel block, group of an image) of this program. One grid axis: the others end at 65,535 programs."""
    program, blocks = tl.program_id(0), tl.cdiv(channels, CHANNELS)
    return program % blocks, (program // blocks).to(tl.int64)


@triton.jit
def _forward_kernel(
    u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, skip_ptr, bias_ptr, y_ptr, starts_ptr, groups, channels, length,
    HAS_SKIP: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, DOUBLE: tl.constexpr,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    wide = tl.float64 if DOUBLE else tl.float32
    block, row = _place(channels, CHANNELS)
    group = (row % groups).to(tl.int32)
    d = block * CHANNELS + tl.arange(0, CHANNELS)
    d_ok = d < channels
    at_GD = group * channels + d
    A = tl.load(A_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None]
    skip = tl.load(skip_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None] if HAS_SKIP else 0.0
    bias = tl.load(bias_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None] if HAS_BIAS else 0.0
    base = (row * channels + d)[:, None] * length
    chunks = tl.cdiv(length, CHUNK)
    t = tl.arange(0, CHUNK)
    state = tl.zeros((CHANNELS,), dtype=wide)
    for j in range(chunks):
        time = j * CHUNK + t
        time_ok = time < length
        ok = d_ok[:, None] & time_ok[None, :]
        at = base + time[None, :]
        tl.store(starts_ptr + (row * channels + d) * chunks + j, state, mask=d_ok)
        u = tl.load(u_ptr + at, mask=ok, other=0.0).to(wide)
        dt = _step_sizes(tl.load(delta_ptr + at, mask=ok, other=0.0).to(wide) + bias, SOFTPLUS)
        B = tl.load(B_ptr + row * length + time, mask=time_ok, other=0.0).to(wide)[None, :]
        C = tl.load(C_ptr + row * length + time, mask=time_ok, other=0.0).to(wide)[None, :]
        a = tl.where(ok, tl.exp(dt * A), 1.0)
        product, h = tl.associative_scan((a, dt * B * u), 1, _combine)
        h += product * state[:, None]
        tl.store(y_ptr + at, C * h + skip * u, mask=ok)
        state = tl.sum(tl.where(t[None, :] == CHUNK - 1, h, 0.0), axis=1)


@triton.jit
def _backward_kernel(
    u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, skip_ptr, bias_ptr, starts_ptr, dy_ptr, du_ptr, ddelta_ptr,
    dA_ptr, dskip_ptr, dbias_ptr, dB_ptr, dC_ptr, rows, groups, channels, length,
    HAS_SKIP: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, DOUBLE: tl.constexpr,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    wide = tl.float64 if DOUBLE else tl.float32
    block, row = _place(channels, CHANNELS)
    group = (row % groups).to(tl.int32)
    d = block * CHANNELS + tl.arange(0, CHANNELS)
    d_ok = d < channels
    at_GD = group * channels + d
    A = tl.load(A_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None]
    skip = tl.load(skip_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None] if HAS_SKIP else 0.0
    bias = tl.load(bias_ptr + at_GD, mask=d_ok, other=0.0).to(wide)[:, None] if HAS_BIAS else 0.0
    base = (row * channels + d)[:, None] * length
    partial = (block * rows + row) * length
    chunks = tl.cdiv(length, CHUNK)
    t = tl.arange(0, CHUNK)
    carry = tl.zeros((CHANNELS,), dtype=wide)  # the adjoint at the first step of the next chunk
    dA = tl.zeros((CHANNELS,), dtype=wide)
    dskip = tl.zeros((CHANNELS,), dtype=wide)
    dbias = tl.zeros((CHANNELS,), dtype=wide)
    for back in range(chunks):
        j = chunks - 1 - back
        time = j * CHUNK + t
        time_ok = time < length
        ok = d_ok[:, None] & time_ok[None, :]
        next_ok = d_ok[:, None] & (time + 1 < length)[None, :]
        at = base + time[None, :]
        u = tl.load(u_ptr + at, mask=ok, other=0.0).to(wide)
        dy = tl.load(dy_ptr + at, mask=ok, other=0.0).to(wide)
        x = tl.load(delta_ptr + at, mask=ok, other=0.0).to(wide) + bias
        dt = _step_sizes(x, SOFTPLUS)
        dt_next = _step_sizes(tl.load(delta_ptr + at + 1, mask=next_ok, other=0.0).to(wide) + bias, SOFTPLUS)
        B = tl.load(B_ptr + row * length + time, mask=time_ok, other=0.0).to(wide)[None, :]
        C = tl.load(C_ptr + row * length + time, mask=time_ok, other=0.0).to(wide)[None, :]
        a = tl.where(ok, tl.exp(dt * A), 1.0)
        b = dt * B * u
        start = tl.load(starts_ptr + (row * channels + d) * chunks + j, mask=d_ok, other=0.0)
        product, h = tl.associative_scan((a, b), 1, _combine)
        h += product * start[:, None]
        a_next = tl.where(next_ok, tl.exp(dt_next * A), 1.0)
        product, g = tl.associative_scan((a_next, dy * C), 1, _combine, reverse=True)
        g += product * carry[:, None]
        carry = tl.sum(tl.where(t[None, :] == 0, g, 0.0), axis=1)
        tl.store(dC_ptr + partial + time, tl.sum(dy * h, axis=0), mask=time_ok)
        tl.store(dB_ptr + partial + time, tl.sum(g * dt * u, axis=0), mask=time_ok)
        dlog = g * (h - b)  # h - b is a_t h_(t-1); the gradient of dt_t A
        ddelta = dlog * A + g * B * u
        if SOFTPLUS:
            ddelta = ddelta / (1.0 + tl.exp(-x))
        ddelta = tl.where(ok, ddelta, 0.0)
        tl.store(ddelta_ptr + at, ddelta, mask=ok)
        tl.store(du_ptr + at, g * B * dt + skip * dy, mask=ok)
        dA += tl.sum(tl.where(ok, dlog * dt, 0.0), axis=1)
        dskip += tl.sum(dy * u, axis=1)
        dbias += tl.sum(ddelta, axis=1)
    at_BGD = row * channels + d
    tl.store(dA_ptr + at_BGD, dA, mask=d_ok)
    tl.store(dskip_ptr + at_BGD, dskip, mask=d_ok)
    tl.store(dbias_ptr + at_BGD, dbias, mask=d_ok)
