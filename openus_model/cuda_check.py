"""`make cuda-check`: does the fast path work on this machine's GPU, and how fast is it?

    python -m openus_model.cuda_check [--backbone vmamba_small] [--batch 64] [--json]

For each scan backend that is installed: its largest error against the reference in float64 (output and every gradient),
whether it repeats to the bit, and a backbone's images per second at bf16, forward alone and with the backward, with the
peak memory. Exit code 0: every backend agrees; 1: one does not; 2: no CUDA device. `--device cpu` runs the same checks
on the CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from openus_model.backbones import build_backbone
from openus_model.commands import answer, run
from openus_model.contracts import Features
from openus_model.errors import UsageError
from openus_model.scan import Backend, available_backends, scan_groups

SHAPES = ((2, 4, 24, 1, 49), (2, 4, 10, 1, 196), (1, 2, 8, 1, 1100), (2, 1, 16, 4, 61))
"""(B, G, D, N, L): VMamba's last two stages, more than one chunk of every kernel, and several states."""
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
WARM_UP, TIMED = 3, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCheck:
    """What one scan backend showed.

    Args:
        backend: its name.
        error_float32: largest error of output and gradients against float64, relative to each tensor's largest value.
        error_bfloat16: likewise with inputs in bf16.
        repeats_to_the_bit: whether two backward passes gave the same bits.
        forward_images_per_s: at bf16, without gradients.
        train_images_per_s: at bf16, forward and backward.
        peak_memory_gb: of the device over forward and backward; 0 on the CPU.
    """

    backend: str
    error_float32: float
    error_bfloat16: float
    repeats_to_the_bit: bool
    forward_images_per_s: float
    train_images_per_s: float
    peak_memory_gb: float

    @property
    def agrees(self) -> bool:
        """Whether both errors are within the tolerance."""
        return self.error_float32 < TOLERANCE[torch.float32] and self.error_bfloat16 < TOLERANCE[torch.bfloat16]

    def to_row(self) -> str:
        """A row of the report's table."""
        cells = (
            self.backend,
            f"{self.error_float32:.1e}",
            f"{self.error_bfloat16:.1e}",
            "yes" if self.repeats_to_the_bit else "no",
            f"{self.forward_images_per_s:.1f}",
            f"{self.train_images_per_s:.1f}",
            f"{self.peak_memory_gb:.1f}",
        )
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaReport:
    """The machine, and a row per backend."""

    device: str
    torch_version: str
    backbone: str
    image_px: int
    batch: int
    checks: tuple[BackendCheck, ...]

    @property
    def exit_code(self) -> int:
        """0 where every backend agrees with the reference, else 1."""
        return 0 if all(check.agrees for check in self.checks) else 1

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {**dataclasses.asdict(self), "agrees": {check.backend: check.agrees for check in self.checks}}

    def to_text(self) -> str:
        """A Markdown table, to be pasted into docs/explain/scan.md."""
        lines = [
            f"{self.device}, torch {self.torch_version}; {self.backbone}, {self.batch} x {self.image_px} px, bf16",
            "",
            "| scan | error float32 | error bf16 | repeats to the bit | forward, images/s | with backward | peak GB |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [check.to_row() for check in self.checks]
        wrong = ", ".join(check.backend for check in self.checks if not check.agrees)
        return "\n".join([*lines, "", f"WRONG: {wrong}" if wrong else "every backend agrees with the reference"])


def cuda_check(
    *, device: str = "cuda", backbone: str = "vmamba_small", image_px: int = 224, batch: int = 64
) -> CudaReport:
    """Check every fast scan backend of a device.

    Args:
        device: `cuda` or `cpu`.
        backbone: one of `BACKBONE_NAMES`.
        image_px: side of the images.
        batch: images of a pass.

    Raises:
        UsageError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "no CUDA device that this torch can use", got=f"torch {torch.__version__}",
            next_step="run it on a GPU machine with a CUDA build of torch; see docs/how-to/install-cuda.md",
        )  # fmt: skip
    checks = [
        _check(cast(Backend, name), device, backbone, image_px, batch)
        for name in available_backends(device)
        if name != "reference"
    ]
    return CudaReport(
        device=torch.cuda.get_device_name() if device == "cuda" else "CPU",
        torch_version=torch.__version__,
        backbone=backbone,
        image_px=image_px,
        batch=batch,
        checks=tuple(checks),
    )


def _check(backend: Backend, device: str, backbone: str, image_px: int, batch: int) -> BackendCheck:
    forward, train, peak_gb = _throughput(backend, device, backbone, image_px, batch)
    first, second = (_scan(backend, device, SHAPES[0], torch.float32)[0] for _ in range(2))
    return BackendCheck(
        backend=backend,
        error_float32=_error(backend, device, torch.float32),
        error_bfloat16=_error(backend, device, torch.bfloat16),
        repeats_to_the_bit=all(torch.equal(a, b) for a, b in zip(first, second, strict=True)),
        forward_images_per_s=forward,
        train_images_per_s=train,
        peak_memory_gb=peak_gb,
    )


def _error(backend: Backend, device: str, dtype: torch.dtype) -> float:
    """The largest error over all shapes and tensors."""
    errors = []
    for shape in SHAPES:
        got, inputs = _scan(backend, device, shape, dtype)
        expected, _ = _scan("reference", device, shape, torch.float64, inputs)
        for a, b in zip(got, expected, strict=True):
            errors.append(float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-6)))
    return max(errors)


def _scan(
    backend: Backend,
    device: str,
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype,
    inputs: list[Tensor] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """(output and gradients of a scan, its inputs); parameters stay in float32 where the sequences are bf16."""
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    dtypes = (dtype, dtype, parameters, dtype, dtype, parameters, parameters)
    inputs = inputs or _inputs(shape)
    leaves = [x.to(device, kind).requires_grad_() for x, kind in zip(inputs, dtypes, strict=True)]
    y = scan_groups(*leaves[:5], leaves[5], leaves[6], True, backend)  # type: ignore[call-arg, arg-type]
    probe = torch.sin(torch.arange(y.numel(), device=device, dtype=torch.float32)).view(y.shape)
    gradients = torch.autograd.grad((y * probe).sum(), leaves)
    return [y.detach(), *gradients], [leaf.detach() for leaf in leaves]


def _inputs(shape: tuple[int, int, int, int, int]) -> list[Tensor]:
    batch, groups, channels, states, length = shape
    generator = torch.Generator().manual_seed(length)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return [
        normal(batch, groups, channels, length), normal(batch, groups, channels, length),
        -torch.exp(0.5 * normal(groups, channels, states)),
        normal(batch, groups, states, length), normal(batch, groups, states, length),
        normal(groups, channels), normal(groups, channels) - 2,
    ]  # fmt: skip


def _throughput(backend: Backend, device: str, name: str, image_px: int, batch: int) -> tuple[float, float, float]:
    """(images per second forward, with backward, peak memory in GB)."""
    torch.manual_seed(0)
    network = build_backbone(name, scan_backend=backend).to(device)
    image_BCHW = torch.randn(batch, 3, image_px, image_px, device=device)

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            network(image_BCHW)

    def train() -> None:
        with torch.autocast(device, torch.bfloat16):
            features: Features = network(image_BCHW)
        features.tokens_BND.float().square().mean().backward()  # type: ignore[no-untyped-call]

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates = [batch / _seconds(call, device) for call in (forward, train)]
    peak_gb = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    return rates[0], rates[1], peak_gb


def _seconds(call: Callable[[], None], device: str) -> float:
    """Wall time of a call after warming up; on the CPU of a single one."""
    cuda = device == "cuda"
    for _ in range(WARM_UP if cuda else 0):
        call()
    count = TIMED if cuda else 1
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m openus_model.cuda_check", description="Check the scans on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="vmamba_small")
    parser.add_argument("--image", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)

    def command() -> int:
        report = cuda_check(device=chosen.device, backbone=chosen.backbone, image_px=chosen.image, batch=chosen.batch)
        return answer(report, as_json=chosen.json)

    return run(command)


if __name__ == "__main__":
    sys.exit(main())
