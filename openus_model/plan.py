"""Time, memory and I/O of a run before one pays for it.

    report = plan("openus_small", gpus=4, gpu="h100")
    report = plan("quickstart", gpu="here")        # times a few steps on this machine instead

Work is counted on the recipe's own networks (multiply-adds of every pass of a step) and memory on one image's own
graph. Speed comes either from steps timed here, or, for a named GPU, from the one published training speed of VMamba
(314 images per second, small, 224 pixels, A100) scaled by work and by memory bandwidth, since the scan is bound by it.
docs/explain/method.md says how the estimate was checked, and against what it was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from openus_model.assemble import build_engine, build_method, make_clock
from openus_model.contracts import Batch
from openus_model.distributed import World
from openus_model.engine import Stream
from openus_model.errors import UsageError
from openus_model.method import OpenUSMethod
from openus_model.recipe import CELL_PX, PretrainRecipe, load_recipe
from openus_model.schedules import Clock

GIB = 2**30
ANCHOR_IMAGES_PER_S = 314.0
"""Training speed of VMamba-S at 224 px on one A100 with mixed precision (VMamba README)."""
ANCHOR_MULTIPLY_ADDS = 8.7e9
"""Of one forward pass of VMamba-S at 224 px (same source)."""
ANCHOR_BANDWIDTH = 2.0
FP32_SLOWDOWN = 1.8
"""Guess for fp32 with TF32 matrices against bf16, from the bytes moved."""
SEVERAL_GPUS = 0.95
"""Guess for what communication leaves of the speed: 50 M gradients overlap with the backward pass."""
SAMPLE_BYTES = 86e3
VIEWS_PER_CORE_S = 212.0
"""Measured: images per second and core for 2 x 224 + 8 x 96 views from 512 px JPEGs (mean 86 kB), decoding included."""
PAPER_VIEW_PX = 2 * 224**2 + 8 * 96**2
TIMED_STEPS = 3
CHECK = (
    "on a CPU, the same scaling from a plain training step said 1.13 times the seconds and 1.01 times the GiB "
    "that a step of openus_small took; no GPU has confirmed it"
)
"""Measured: `python benchmarks/step.py --plan`, docs/explain/method.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A card, from its maker's data sheet.

    Args:
        bandwidth_tb_s: memory bandwidth in TB/s.
        memory_gib: memory in GiB.
    """

    bandwidth_tb_s: float
    memory_gib: float


GPUS: dict[str, Gpu] = {
    "a10g": Gpu(bandwidth_tb_s=0.6, memory_gib=24),
    "a100": Gpu(bandwidth_tb_s=2.0, memory_gib=80),
    "a100-40": Gpu(bandwidth_tb_s=1.55, memory_gib=40),
    "gh200": Gpu(bandwidth_tb_s=4.0, memory_gib=96),
    "h100": Gpu(bandwidth_tb_s=3.35, memory_gib=80),
    "h200": Gpu(bandwidth_tb_s=4.8, memory_gib=141),
    "l40s": Gpu(bandwidth_tb_s=0.86, memory_gib=48),
    "rtx4090": Gpu(bandwidth_tb_s=1.0, memory_gib=24),
    "v100": Gpu(bandwidth_tb_s=0.9, memory_gib=32),
}
HERE = "here"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """An estimate.

    Args:
        recipe, gpus, gpu, images: what was asked.
        basis: what the speed rests on.
        check: how that was checked; empty where steps were timed.
        steps, epochs: length of the run.
        multiply_adds_per_image: of all passes of a step, backward counted twice a forward.
        step_seconds, images_per_second, hours, gpu_hours: of the whole run; expect 30 % either way for a named GPU.
        memory_gib: per GPU, by part, and their total.
        memory_of_gpu_gib: of the card, None for this machine's CPU.
        corpus_gb, read_mb_per_s, reader_cores: I/O over all GPUs, at 86 kB an image.
        checkpoint_gb: size of one checkpoint.
    """

    recipe: str
    gpus: int
    gpu: str
    images: int
    basis: str
    check: str
    steps: int
    epochs: float
    multiply_adds_per_image: float
    step_seconds: float
    images_per_second: float
    hours: float
    gpu_hours: float
    memory_gib: dict[str, float]
    memory_of_gpu_gib: float | None
    corpus_gb: float
    read_mb_per_s: float
    reader_cores: float
    checkpoint_gb: float

    @property
    def fits(self) -> bool:
        """Whether a GPU's share of the batch fits into 90 % of its memory."""
        return self.memory_of_gpu_gib is None or self.memory_gib["total"] <= 0.9 * self.memory_of_gpu_gib

    @property
    def exit_code(self) -> int:
        """1 where the batch does not fit."""
        return 0 if self.fits else 1

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self) | {"fits": self.fits}

    def to_text(self) -> str:
        """A page for a person."""
        memory = ", ".join(f"{name} {value:.2g}" for name, value in self.memory_gib.items() if name != "total")
        room = "" if self.memory_of_gpu_gib is None else f" of {self.memory_of_gpu_gib:.0f}"
        gpu_hours = "" if self.gpu == HERE else f", {self.gpu_hours:.3g} GPU hours"
        lines = [
            f"{self.recipe} on {self.gpus} x {self.gpu}: {self.images} images x {self.epochs:g} epochs, "
            f"{self.steps} steps",
            f"work    {self.multiply_adds_per_image / 1e9:.1f} G multiply-adds an image, backward included",
            f"time    {self.step_seconds:.3f} s a step, {self.images_per_second:.0f} images/s, "
            f"{self.hours:.3g} h{gpu_hours}",
            f"memory  {self.memory_gib['total']:.1f}{room} GiB a process ({memory})",
            f"I/O     {self.corpus_gb:.2g} GB of shards, {self.read_mb_per_s:.2g} MB/s, "
            f"{self.reader_cores:.2g} reader cores, {self.checkpoint_gb:.2g} GB a checkpoint",
            f"basis   {self.basis}",
            *([f"checked {self.check}"] if self.check else []),
        ]
        if not self.fits:
            lines.append("the batch does not fit: lower engine.batch_size, raise engine.accumulate, or set "
                         "backbone.gradient_checkpointing=true")  # fmt: skip
        return "\n".join(lines)


def plan(
    recipe: str | Path, *, gpus: int = 1, gpu: str = "h100", images: int = 308_000, overrides: Sequence[str] = ()
) -> PlanReport:
    """Estimate a run.

    Args:
        recipe: name or YAML file.
        gpus: how many.
        gpu: a name of `GPUS`, or "here" to time steps on this machine.
        images: in the corpus.
        overrides: `section.key=value`.

    Raises:
        UsageError: no such GPU, or a batch that cannot be cut over the GPUs.
    """
    if gpu != HERE and gpu not in GPUS:
        raise UsageError("no such GPU", got=gpu, expected=f"{HERE}, {', '.join(GPUS)}")
    resolved = load_recipe(recipe, overrides)
    batch, accumulate = resolved.engine.batch_size, resolved.engine.accumulate
    if batch % (gpus * accumulate):
        raise UsageError(
            "the batch cannot be cut evenly", expected=f"a multiple of {gpus * accumulate}", got=str(batch)
        )
    clock = make_clock(resolved, max(1, images // batch))
    method = build_method(resolved, clock, images)
    work, activations = _one_image(method, resolved)
    if gpu == HERE:
        step_seconds = _time_here(resolved, clock, batch // gpus)
        basis = f"{TIMED_STEPS} steps of {batch // gpus} images timed on this machine"
    else:
        step_seconds = _step_on(GPUS[gpu], work, resolved) * batch / gpus
        step_seconds /= SEVERAL_GPUS if gpus > 1 else 1.0
        basis = (
            f"VMamba-S trains at {ANCHOR_IMAGES_PER_S:.0f} images/s on an A100 (its README), "
            "scaled by work and memory bandwidth; expect 30 % either way"
        )
    memory = _memory(method, activations * batch / gpus / accumulate, on_gpu=gpu != HERE or torch.cuda.is_available())
    speed = batch / step_seconds
    return PlanReport(
        recipe=resolved.name,
        gpus=gpus,
        gpu=gpu,
        images=images,
        basis=basis,
        check="" if gpu == HERE else CHECK,
        steps=clock.steps,
        epochs=resolved.schedule.epochs,
        multiply_adds_per_image=work,
        step_seconds=step_seconds,
        images_per_second=speed,
        hours=clock.steps * step_seconds / 3600,
        gpu_hours=gpus * clock.steps * step_seconds / 3600,
        memory_gib=memory,
        memory_of_gpu_gib=GPUS[gpu].memory_gib if gpu != HERE else None,
        corpus_gb=images * SAMPLE_BYTES / 1e9,
        read_mb_per_s=speed * SAMPLE_BYTES / 1e6,
        reader_cores=speed / VIEWS_PER_CORE_S * _view_pixels(resolved) / PAPER_VIEW_PX,
        checkpoint_gb=_checkpoint_bytes(method) / 1e9,
    )


def synthetic_batch(recipe: PretrainRecipe, images: int, device: torch.device | None = None) -> Batch:
    """A batch of noise in the recipe's shapes."""
    views = recipe.views
    generator = torch.Generator().manual_seed(0)

    def pixels(count: int, size: int) -> Tensor:
        return torch.randint(0, 256, (images, count, 1, size, size), dtype=torch.uint8, generator=generator)

    batch = Batch(
        global_BVCHW=pixels(views.global_count, views.global_size),
        local_BVCHW=pixels(views.local_count, views.local_size),
        global_valid_BVHW=torch.ones(images, views.global_count, *[views.global_size // CELL_PX] * 2),
        local_valid_BVHW=torch.ones(images, views.local_count, *[views.local_size // CELL_PX] * 2),
        sample_ids=tuple(f"noise-{k}" for k in range(images)),
        sample_index_B=torch.arange(images),
        global_box_BV4=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(images, views.global_count, 4).contiguous(),
    )
    return batch if device is None else batch.to(device)


def _one_image(method: OpenUSMethod, recipe: PretrainRecipe) -> tuple[float, float]:
    """(multiply-adds of a step, bytes kept for the backward pass), each for one image, on the CPU."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = synthetic_batch(recipe, 1)
    parameters = {p.untyped_storage().data_ptr() for p in method.parameters()}
    low = recipe.engine.precision == "bf16"
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16, enabled=low):
            losses = method.step(batch, recipe.schedule.steps or 10**9)
            with_gradient = counter.get_total_flops()
        activations = float(sum(size for place, size in kept.items() if place not in parameters))
        del losses
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.teacher(synthetic_batch(recipe, 1).global_BVCHW[0].expand(-1, 3, -1, -1).float(), patches=True)
        teacher = counter.get_total_flops()
    trials = 2 if recipe.masking.difficulty == "same_step" and recipe.masking.guide in ("both", "difficulty") else 0
    student = with_gradient - teacher * (1 + trials)
    return (3 * student + (1 + trials) * teacher) / 2, activations


def _step_on(gpu: Gpu, work: float, recipe: PretrainRecipe) -> float:
    """Seconds per image on one GPU."""
    anchor = 3 * ANCHOR_MULTIPLY_ADDS * ANCHOR_IMAGES_PER_S
    slowdown = FP32_SLOWDOWN if recipe.engine.precision == "fp32" else 1.0
    return work / anchor * ANCHOR_BANDWIDTH / gpu.bandwidth_tb_s * slowdown


class _Noise(Stream):
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def _time_here(recipe: PretrainRecipe, clock: Clock, images: int) -> float:
    """Seconds of a step on this machine, the best of a few after one to warm up; batches are ready at once."""
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.engine.device != "cpu" else "cpu")
    threads = torch.get_num_threads()
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    engine = build_engine(
        recipe,
        _Noise(synthetic_batch(recipe, images)),
        clock=clock,
        samples=images,
        world=World(rank=0, size=1, device=device),
        run=Path(),
    )
    seconds = [_timed(engine.one_step, device) for _ in range(1 + TIMED_STEPS)]
    torch.set_num_threads(threads)
    return min(seconds[1:])


def _timed(step: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _memory(method: OpenUSMethod, activations: float, *, on_gpu: bool) -> dict[str, float]:
    """GiB per process by part: fp32 weights, gradients, two moments, DDP's buckets are the gradients themselves."""
    trained = _bytes(method.student)
    parts = {
        "student": trained,
        "teacher": _bytes(method.teacher),
        "gradients": trained,
        "optimizer": 2 * trained,
        "difficulties": sum(buffer.nbytes for buffer in method.masks.buffers()),
        "activations": activations,
    }
    if on_gpu:
        parts["CUDA"] = 1.0 * GIB
    gib = {name: value / GIB for name, value in parts.items()}
    return gib | {"total": sum(gib.values())}


def _checkpoint_bytes(method: OpenUSMethod) -> float:
    tensors: dict[str, Tensor] = method.state_dict()
    return float(sum(tensor.nbytes for tensor in tensors.values())) + 2.0 * _bytes(method.student)


def _bytes(module: nn.Module) -> float:
    return float(sum(p.nbytes for p in module.parameters()))


def _view_pixels(recipe: PretrainRecipe) -> int:
    views = recipe.views
    return views.global_count * views.global_size**2 + views.local_count * views.local_size**2
