"""A backbone's forward and backward pass on the CPU, in one thread.

VMamba-S on two images of 224 pixels, against the same network on the reference scan, which is what the released OpenUS
code runs there. On a GPU machine `make cuda-check` (openus_model/cuda_check.py) measures every backend.
"""

from __future__ import annotations

import resource

import torch
from torch import nn

from openus_model.backbones import build_backbone
from openus_model.bench.report import BenchReport, Row, cpu_seconds
from openus_model.contracts import Features

RELEASED_CPU_SECONDS = 65.2
RELEASED_PEAK_GB = 3.72
"""The released code's training step on a 2 vCPU EPYC, measured on 2026-11-23; for comparison, not timed here."""
WANTED = 15.0


def run(name: str = "vmamba_small", *, image_px: int = 224, batch: int = 2, repeats: int = 3) -> BenchReport:
    """Measure; VMamba-S takes about two minutes on a CPU, most of it the reference's backward.

    Args:
        name: the backbone.
        image_px: side of the images.
        batch: images of a step.
        repeats: steps per figure, of which the fastest counts; the reference gets one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        image_BCHW = torch.randn(batch, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))
        ours = _seconds(build_backbone(name, scan_backend="cpu"), image_BCHW, repeats)
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        reference = _seconds(build_backbone(name, scan_backend="reference"), image_BCHW, 1)
    finally:
        torch.set_num_threads(threads)
    what = f"{name} forward and backward, {batch} x {image_px} px"
    row = Row(
        name=what,
        value=ours,
        unit="s",
        baseline="same network, reference scan",
        baseline_value=reference,
        wanted=WANTED,
    )
    facts: dict[str, float | int | str] = {
        "threads": 1,
        "torch": torch.__version__,
        "images per CPU second": round(batch / ours, 3),
        "peak memory, GB": round(peak_gb, 2),
        "released code on a 2 vCPU EPYC, VMamba-S 2 x 224 px": f"{RELEASED_CPU_SECONDS} s, {RELEASED_PEAK_GB} GB",
    }
    return BenchReport(what="step", rows=(row,), facts=facts)


def _seconds(backbone: nn.Module, image_BCHW: torch.Tensor, repeats: int) -> float:
    def step() -> None:
        features: Features = backbone(image_BCHW)
        sum((stage.square().mean() for stage in features.stages), torch.zeros(())).backward()  # type: ignore[no-untyped-call]

    return cpu_seconds({"step": step}, {"step": repeats})["step"]
