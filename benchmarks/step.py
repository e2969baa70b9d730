"""Where a pretraining step's time goes, and how it compares with the same step written naively.

    python benchmarks/step.py --recipe quickstart
    python benchmarks/step.py --recipe openus_small --batch 32      # on a GPU
    python benchmarks/step.py --recipe quickstart --wait 0 1        # share of a step spent waiting for data
    python benchmarks/step.py --recipe quickstart --plan            # the rule behind `openus-model plan`, checked here

Naive means what the method's description suggests at first: one backbone call per view, a loop over view pairs in the
loss, a loop over images with host syncs for the masks, one clip, update and average per tensor, and images that arrive
as float RGB. Weights, scan kernel and arithmetic are the same. Batches are ready at once. With `--wait`, whole runs
read 512 x 512 JPEGs from shards instead, with so many reader processes each. With `--plan`, a plain training step of
the backbone alone is timed on large views; its time per multiply-add times the plan's multiply-adds is what `plan`
would say, as it does from a published speed for a named card, and stands beside a real step. Memory likewise:
gradients, moments and activations against what a first step adds.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from stream import write_shards
from torch import Tensor, nn
from torch.nn import functional

from openus_model.assemble import build_engine, make_clock
from openus_model.backbones import build_backbone
from openus_model.contracts import Backbone, Batch
from openus_model.describe import describe
from openus_model.distributed import World
from openus_model.engine import Engine
from openus_model.method import OpenUSMethod
from openus_model.plan import plan, synthetic_batch
from openus_model.pretrain import pretrain
from openus_model.recipe import PretrainRecipe, load_recipe

TOLD = ("data_wait_share", "step_seconds", "images_per_second")


class Ready:
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def clock_now(device: torch.device) -> float:
    """Seconds; on a CPU those of this process alone, which other processes do not disturb."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


@contextmanager
def timed(spent: dict[str, float], name: str, owner: Any, attribute: str, device: torch.device) -> Iterator[None]:
    """Add the time of every call of `owner.attribute` to `spent[name]`."""
    real: Callable[..., Any] = getattr(owner, attribute)

    def call(*arguments: Any, **options: Any) -> Any:
        started = clock_now(device)
        answer = real(*arguments, **options)
        spent[name] += clock_now(device) - started
        return answer

    setattr(owner, attribute, call)
    try:
        yield
    finally:
        delattr(owner, attribute)


def naive_step(method: OpenUSMethod, batch: Batch, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """The same arithmetic, one thing at a time."""
    large = [_float_rgb(batch.global_BVCHW[:, v]).to(device) for v in range(batch.global_BVCHW.shape[1])]
    small = [_float_rgb(batch.local_BVCHW[:, v]).to(device) for v in range(batch.local_BVCHW.shape[1])]
    with torch.no_grad():
        looks = [cast(Backbone, method.teacher.backbone).attend(view) for view in large]
        said = [method.teacher.head(f.pooled_BD, f.tokens_BND) for f, _ in looks]
    masks = [_naive_mask(attention.mean(1), method.recipe.masking.ratio, f.grid) for f, attention in looks]
    shown = [method.student(view, mask, patches=True, pixels=True) for view, mask in zip(large, masks, strict=True)]
    shown_small = [method.student(view) for view in small]
    loss = torch.zeros((), device=device)
    targets = [((cls - getattr(method.centre_cls, "centre_K", 0.0)) / 0.04).softmax(-1) for cls, _ in said]
    for g, target in enumerate(targets):
        for v, view in enumerate((*shown, *shown_small)):
            if v != g:
                loss = loss - (target * functional.log_softmax(view.cls_NK / 0.1, -1)).sum(-1).mean()
    for view, image, mask, (_, patch) in zip(shown, large, masks, said, strict=True):
        target = ((patch - getattr(method.centre_patch, "centre_K", 0.0)) / 0.04).softmax(-1)
        entropy = -(target * functional.log_softmax(view.patch_NLK / 0.1, -1)).sum(-1)
        loss = loss + (entropy * mask.flatten(1)).sum() / mask.sum()
        pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
        loss = loss + ((view.pixels_NCHW - image).square() * pixels).sum() / pixels.sum() / 3
    for image in small:
        hidden = torch.zeros(len(image), image.shape[2] // 32, image.shape[3] // 32, dtype=torch.bool, device=device)
        hidden[:, 0, 0] = True
        loss = loss + (method.student(image, hidden, pixels=True).pixels_NCHW - image)[:, :, :32, :32].square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in method.student.parameters():
        if parameter.grad is not None:
            norm = parameter.grad.norm().item()
            if norm > 3:
                parameter.grad.mul_(3 / norm)
    optimizer.step()
    optimizer.zero_grad()
    of_student = dict(method.student.named_parameters())
    for name, parameter in method.teacher.named_parameters():
        parameter.data.mul_(0.996).add_(0.004 * of_student[name].data)


def _float_rgb(pixels: Tensor) -> Tensor:
    """What torchvision's ToTensor and Normalize hand over, here done in the trainer."""
    return (pixels.float().expand(-1, 3, -1, -1) / 255 - 0.45) / 0.225


def _naive_mask(score_BN: Tensor, ratio: float, grid: tuple[int, int]) -> Tensor:
    rows = []
    for score in score_BN:
        count, mask = len(score), torch.zeros(len(score), dtype=torch.bool, device=score.device)
        for cell in score.argsort(descending=True)[: count // 10]:
            mask[cell.item()] = True
        for cell in torch.randperm(count):
            if mask.sum().item() >= ratio * count:
                break
            mask[cell.item()] = True
        rows.append(mask.view(*grid))
    return torch.stack(rows)


def build(recipe: PretrainRecipe, batch: Batch, device: torch.device) -> Engine:
    """An engine whose stream is ready at once."""
    images = len(batch.sample_ids)
    return build_engine(
        recipe, Ready(batch), clock=make_clock(recipe, 100), samples=images,
        world=World(rank=0, size=1, device=device), run=Path(),
    )  # fmt: skip


def per_step(step: Callable[[], None], steps: int, device: torch.device) -> tuple[float, float]:
    """(median seconds, peak GiB on a GPU or 0) of a step, after one to warm up."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    marks = []
    for _ in range(steps):
        started = clock_now(device)
        step()
        marks.append(clock_now(device) - started)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return sorted(marks)[len(marks) // 2], peak


def shares(engine: Engine, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of each part of a step."""
    method: Any = engine.method
    spent: dict[str, float] = defaultdict(float)
    parts: list[tuple[str, nn.Module | Engine, str]] = [
        ("teacher", method, "_ask_teacher"), ("masks", method, "_mask_large"),
        ("student, small views", method, "_show_small"), ("view and patch losses", method, "_view_term"),
        ("teacher follows, centres, table", method, "after_update"), ("forward and backward", engine, "_backward"),
        ("whole step", engine, "_step_on"),
    ]  # fmt: skip
    open_parts = [timed(spent, name, owner, what, device) for name, owner, what in parts]
    for part in open_parts:
        part.__enter__()
    for _ in range(steps):
        engine.one_step()
    for part in open_parts:
        part.__exit__(None, None, None)
    told = {name: seconds / steps for name, seconds in spent.items()}
    inner = ("teacher", "masks", "student, small views", "view and patch losses")
    told["student, large views; backward"] = told.pop("forward and backward") - sum(told[name] for name in inner)
    whole = told.pop("whole step")
    told["clip and AdamW"] = whole - sum(told.values())
    return told | {"whole step": whole}


def measure(recipe_name: str, *, batch: int | None, steps: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Everything the table shows."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = load_recipe(recipe_name, (*overrides, *([f"engine.batch_size={batch}"] if batch else [])))
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    data = synthetic_batch(recipe, recipe.engine.batch_size)
    engine = build(recipe, data, device)
    ours, our_peak = per_step(engine.one_step, steps, device)
    parts = shares(engine, steps, device)
    other: Any = copy.deepcopy(engine.method)
    optimizer = torch.optim.AdamW(other.student.parameters(), lr=1e-4, foreach=False, fused=False)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.engine.precision == "bf16")

    def naive() -> None:
        with autocast:
            naive_step(other, data, optimizer, device)

    theirs, their_peak = per_step(naive, steps, device)
    return {
        "recipe": recipe.name, "device": str(device), "images": recipe.engine.batch_size, "step_seconds": ours,
        "naive_step_seconds": theirs, "ratio": theirs / ours, "peak_gib": our_peak, "naive_peak_gib": their_peak,
        "parts": parts,
    }  # fmt: skip


def waits(recipe: str, workers: Sequence[int], *, steps: int, overrides: Sequence[str]) -> list[dict[str, float]]:
    """A row for each number of reader processes: the log's wait share, seconds of a step and images per second.

    The first step's wait, while readers start, is in it: give it steps enough.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "out", 256)
        for count in workers:
            settings = (
                *overrides, f"data.workers={count}", f"schedule.steps={steps + 1}", f"engine.log_every={steps}",
                "engine.figure_every=0", "engine.checkpoint_every=1000000", "engine.tensorboard=false",
            )  # fmt: skip
            run = Path(folder) / f"run-{count}"
            pretrain(recipe, Path(folder) / "out", run, settings, quiet=True)
            row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
            rows.append({"workers": float(count)} | {name: row[name] for name in TOLD})
    return rows


def plain_step(recipe: PretrainRecipe, images: int, device: torch.device) -> Callable[[], None]:
    """Forward, backward and update of the backbone alone on large views, as when it is trained to classify."""
    backbone: Any = build_backbone(recipe.backbone.name, drop_path=0.0).to(device)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-4)
    side = recipe.views.global_size
    image_BCHW = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.engine.precision == "bf16"):
            loss = backbone(image_BCHW).pooled_BD.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def resident(device: torch.device) -> float:
    """GiB that the process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**30
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def check_plan(recipe_name: str, *, batch: int | None, steps: int, overrides: Sequence[str] = ()) -> dict[str, float]:
    """The plan's forecast of a step's seconds and memory, and what a step takes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = (*overrides, *([f"engine.batch_size={batch}"] if batch else []))
    recipe = load_recipe(recipe_name, settings)
    images = recipe.engine.batch_size
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    engine = build(recipe, synthetic_batch(recipe, images), device)
    before = resident(device)
    engine.one_step()
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else _most_resident()
    seconds, _ = per_step(engine.one_step, steps, device)
    plain, _ = per_step(plain_step(recipe, images, device), steps, device)
    told = plan(recipe_name, overrides=settings)
    work = describe(recipe.backbone.name, image_px=recipe.views.global_size).backbones[0].multiply_adds
    forecast = plain / (3 * work) * told.multiply_adds_per_image
    gib = sum(told.memory_gib[part] for part in ("gradients", "optimizer", "activations"))
    return {
        "images": images, "plain_seconds": plain, "forecast_seconds": forecast, "step_seconds": seconds,
        "forecast_gib": gib, "step_gib": peak - before,
    }  # fmt: skip


def _most_resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def tell_plan(name: str, told: dict[str, float]) -> None:
    """Print the comparison."""
    print(f"{name}, {told['images']:.0f} images; a plain step of the backbone takes {told['plain_seconds']:.3f} s")
    print("| a step's | the plan's rule says | measured | measured / said |\n|---|---|---|---|")
    for what, said, got in (("seconds", "forecast_seconds", "step_seconds"), ("GiB", "forecast_gib", "step_gib")):
        print(f"| {what} | {told[said]:.3f} | {told[got]:.3f} | {told[got] / told[said]:.2f} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--wait", type=int, nargs="+", metavar="WORKERS", help="time whole runs from shards")
    parser.add_argument("--plan", action="store_true", help="hold the plan's rule against a step")
    arguments = parser.parse_args(argv)
    if arguments.plan:
        tell_plan(
            arguments.recipe,
            check_plan(arguments.recipe, batch=arguments.batch, steps=arguments.steps, overrides=arguments.set),
        )
        return
    if arguments.wait:
        print("| reader processes | wait share | step, s | images/s |\n|---|---|---|---|")
        for row in waits(arguments.recipe, arguments.wait, steps=arguments.steps, overrides=arguments.set):
            print(f"| {row['workers']:.0f} | {' | '.join(f'{row[name]:.3g}' for name in TOLD)} |")
        return
    told = measure(arguments.recipe, batch=arguments.batch, steps=arguments.steps, overrides=arguments.set)
    print(f"{told['recipe']}, {told['images']} images, {told['device']}")
    print("| step | seconds | images/s | peak GiB |\n|---|---|---|---|")
    for name, seconds, peak in (
        ("ours", told["step_seconds"], told["peak_gib"]), ("naive", told["naive_step_seconds"], told["naive_peak_gib"]),
    ):  # fmt: skip
        print(f"| {name} | {seconds:.3f} | {told['images'] / seconds:.1f} | {peak:.2f} |")
    print(f"naive / ours: {told['ratio']:.2f}\n\n| part of a step | seconds | share |\n|---|---|---|")
    for name, seconds in told["parts"].items():
        print(f"| {name} | {seconds:.4f} | {seconds / told['parts']['whole step']:.1%} |")


if __name__ == "__main__":
    main()
