"""The CPU scan over VMamba-S's layers against three rivals, in one thread: CPU seconds of forward and backward.

The rivals: autograd through the reference loop (what VMamba's code does without its kernel), a loop over time with a
backward of its own, and the same with time first in memory. Each gets its inputs in the layout that it likes best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openus_model.bench.loops import LoopScan
from openus_model.bench.report import BenchReport, Row, cpu_seconds
from openus_model.scan import Backend, scan_groups

GROUPS = 4
BATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A scan's size and how often the network has it."""

    length: int
    channels: int
    count: int


VMAMBA_SMALL = (
    Layer(length=3136, channels=192, count=2),
    Layer(length=784, channels=384, count=2),
    Layer(length=196, channels=768, count=15),
    Layer(length=49, channels=1536, count=2),
)
RIVALS = {
    "autograd through the reference loop": 50.0,
    "loop with its own backward": 1.4,
    "time-first loop with its own backward": None,
}
"""The rivals, and how many times faster the CPU backend has to be."""


def run(layers: Sequence[Layer] = VMAMBA_SMALL, *, repeats: int = 5) -> BenchReport:
    """Measure; with the layers of VMamba-S it takes about a minute, most of it the reference's backward.

    Args:
        layers: the scans to time.
        repeats: calls per figure, of which the fastest counts; the reference gets one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        totals = dict.fromkeys(("cpu", *RIVALS), 0.0)
        facts: dict[str, float | int | str] = {"threads": 1, "torch": torch.__version__}
        for layer in layers:
            for name, seconds in _time(layer, repeats).items():
                totals[name] += layer.count * seconds
                facts[f"L={layer.length} D={layer.channels}: {name}, ms"] = round(1000 * seconds, 2)
    finally:
        torch.set_num_threads(threads)
    rows = tuple(
        Row(name="scan backend cpu, all layers", value=totals["cpu"], unit="s", baseline=name,
            baseline_value=totals[name], wanted=wanted)
        for name, wanted in RIVALS.items()
    )  # fmt: skip
    return BenchReport(what="scan", rows=rows, facts=facts)


def _time(layer: Layer, repeats: int) -> dict[str, float]:
    """CPU seconds of forward and backward of the CPU backend and each rival."""
    last, first = (_inputs(layer, channels_last=flag) for flag in (True, False))
    reference, loop, time_first_loop = RIVALS
    calls: dict[str, Callable[[], object]] = {
        "cpu": lambda: _differentiate(_scan(last, "cpu"), last),
        reference: lambda: _differentiate(_scan(first, "reference"), first),
        loop: lambda: _differentiate(LoopScan.apply(*first, False), first),  # type: ignore[no-untyped-call]
        time_first_loop: lambda: _differentiate(LoopScan.apply(*last, True), last),  # type: ignore[no-untyped-call]
    }
    return cpu_seconds(calls, {name: 1 if name == reference else repeats for name in calls})


def _scan(tensors: list[Tensor], backend: Backend) -> Tensor:
    u, delta, A, B, C, D, bias = tensors
    return scan_groups(u, delta, A, B, C, D, bias, softplus=True, backend=backend)


def _differentiate(y: Tensor, tensors: list[Tensor]) -> None:
    torch.autograd.grad(y, tensors, torch.ones_like(y))


def _inputs(layer: Layer, *, channels_last: bool) -> list[Tensor]:
    """Arguments as an initialised VMamba makes them: step sizes around exp(-3), A = -1."""
    generator = torch.Generator().manual_seed(0)

    def normal(channels: int) -> Tensor:
        if channels_last:
            return torch.randn(GROUPS, BATCH, layer.length, channels, generator=generator).permute(1, 0, 3, 2)
        return torch.randn(BATCH, GROUPS, channels, layer.length, generator=generator)

    shape = (GROUPS, layer.channels)
    tensors = [
        normal(layer.channels), normal(layer.channels), -torch.ones(*shape, 1), normal(1), normal(1),
        torch.ones(shape), torch.full(shape, -3.0),
    ]  # fmt: skip
    return [tensor.requires_grad_() for tensor in tensors]
