"""Ranks and reductions under torchrun; on one process everything here does nothing.

`torchrun` sets RANK, LOCAL_RANK and WORLD_SIZE. gloo serves CPUs, nccl GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from openus_model.errors import UsageError

TIMEOUT = timedelta(minutes=10)
"""A rank that waits longer for the others gives up with a message, so that a dead rank never hangs the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where this process stands.

    Args:
        rank: index among all processes.
        size: number of processes.
        device: what this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the terminal."""
        return self.rank == 0


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: "cpu", "cuda" or "auto", which takes this rank's GPU if there is one.

    Raises:
        UsageError: "cuda" was asked for and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device", where="engine.device", next_step="use engine.device=auto")
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if size == 1:
        yield World(rank=0, size=1, device=place)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank=rank, size=size, device=place)
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def total(value: Tensor) -> Tensor:
    """Sum over processes, without a gradient; a new tensor."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """Mean over processes, without a gradient; a new tensor."""
    return total(value) / world_size()


def largest(value: Tensor) -> Tensor:
    """Element-wise maximum over processes, without a gradient; a new tensor."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any process."""
    if world_size() == 1:
        return flag
    return bool(largest(torch.tensor(float(flag), device=device)).item())


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of every process, in rank order, without a gradient; each process must bring equally many."""
    if world_size() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """As `gather_rows`; the gradient that other processes have for my rows comes back to me."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = rows.shape[0]
        return gather_rows(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = total(gradients[0])
        return summed[rank() * ctx.count : (rank() + 1) * ctx.count]


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        dist.barrier()
