"""The CPU scan against its rivals, and VMamba-S's step against the reference scan: the tables of docs/explain/scan.md.

OMP_NUM_THREADS=1 python benchmarks/scan.py [scan|layouts|step ...]

`scan` and `step` are `openus-model bench`'s: there each scan gets its inputs in the layout that it likes best.
`layouts` gives all of them the same tensors, contiguous with time last, as mamba-ssm's users have them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from openus_model.bench import BenchReport, Row, bench
from openus_model.bench.loops import LoopScan
from openus_model.bench.report import cpu_seconds
from openus_model.bench.scan import BATCH, GROUPS, VMAMBA_SMALL, Layer
from openus_model.scan import selective_scan

WANTED = 1.4
REPEATS = 9
OURS = "selective_scan, backend cpu"
LOOPS = {"loop with its own backward": False, "loop that first brings time to the front": True}


def layouts() -> BenchReport:
    """Forward and backward over VMamba-S's scans on contiguous (B, D, L) inputs and gradients, in one thread."""
    torch.set_num_threads(1)
    totals = dict.fromkeys((OURS, *LOOPS), 0.0)
    facts: dict[str, float | int | str] = {"threads": 1, "torch": torch.__version__}
    for layer in VMAMBA_SMALL:
        for name, seconds in _time(layer).items():
            totals[name] += layer.count * seconds
            facts[f"L={layer.length} D={layer.channels}: {name}, ms"] = round(1000 * seconds, 2)
    rows = tuple(
        Row(name="all layers, time last", value=totals[OURS], unit="s", baseline=name, baseline_value=totals[name],
            wanted=WANTED)
        for name in LOOPS
    )  # fmt: skip
    return BenchReport(what="layouts", rows=rows, facts=facts)


def _time(layer: Layer) -> dict[str, float]:
    leaves, dy = _inputs(layer)
    u, delta, A, B, C, D, bias = leaves
    apart = [torch.unflatten(x, axis, (GROUPS, -1)) for x, axis in ((u, 1), (delta, 1), (A, 0), (D, 0), (bias, 0))]

    def loop(time_first: bool) -> Tensor:
        split = LoopScan.apply(apart[0], apart[1], apart[2], B, C, apart[3], apart[4], time_first)
        return split.flatten(1, 2)

    def differentiate(scan: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(scan(), leaves, dy, retain_graph=True)

    calls = {OURS: differentiate(lambda: selective_scan(*leaves, delta_softplus=True, backend="cpu"))}
    for name, time_first in LOOPS.items():
        calls[name] = differentiate(lambda flag=time_first: loop(flag))
    return cpu_seconds(calls, dict.fromkeys(calls, REPEATS))


def _inputs(layer: Layer) -> tuple[list[Tensor], Tensor]:
    """Arguments as an initialised VMamba makes them, and the gradient that comes in."""
    generator = torch.Generator().manual_seed(0)
    width = GROUPS * layer.channels

    def normal(*shape: int) -> Tensor:
        return torch.randn(BATCH, *shape, layer.length, generator=generator)

    leaves = [
        normal(width), normal(width), -torch.ones(width, 1), normal(GROUPS, 1), normal(GROUPS, 1),
        torch.ones(width), torch.full((width,), -3.0),
    ]  # fmt: skip
    return [leaf.requires_grad_() for leaf in leaves], normal(width)


if __name__ == "__main__":
    for what in sys.argv[1:] or ("scan", "layouts", "step"):
        print((layouts() if what == "layouts" else bench(what)).to_text(), end="\n\n")
