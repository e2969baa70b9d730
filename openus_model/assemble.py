"""Recipe to objects: the one place that reads both.

world -> stream of batches, method, optimizer -> Engine
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openus_model import __version__, load_backbone
from openus_model.backbones import build_backbone
from openus_model.distributed import World
from openus_model.engine import Engine, Stream
from openus_model.errors import UsageError, WeightsError
from openus_model.hub import locate
from openus_model.method import OpenUSMethod
from openus_model.optimizer import Rates, build_adamw
from openus_model.recipe import BackboneRecipe, PretrainRecipe, ViewsRecipe
from openus_model.schedules import Clock, cosine, warmup_cosine
from openus_model.stream import ShardStream
from openus_model.views import CropGroup, UltrasoundChanges

REFERENCE_BATCH = 128
"""Batch that the paper's learning rate belongs to."""


def crop_groups(views: ViewsRecipe) -> tuple[CropGroup, ...]:
    """The large and the small views of a recipe, for the stream."""
    changes = UltrasoundChanges(
        gain_db=views.gain_db,
        tgc_db=views.tgc_db,
        attenuation_db=views.attenuation_db,
        lateral_blur_px=views.lateral_blur_px,
        prob=views.change_prob,
    )
    common: dict[str, Any] = {
        "ratio": views.ratio,
        "flip_prob": views.flip_prob,
        "jitter_prob": views.jitter_prob,
        "brightness": views.brightness,
        "contrast": views.contrast,
        "saturation": views.saturation,
        "hue": views.hue,
        "grey_prob": views.grey_prob,
        "blur_radius_px": views.blur_radius_px,
        "inside_share": views.inside_share,
        "ultrasound": changes,
    }
    large = CropGroup(
        count=views.global_count,
        size=views.global_size,
        scale=views.global_scale,
        blur_prob=views.global_blur_prob,
        solarize_prob=views.global_solarize_prob,
        **common,
    )
    if views.local_count == 0:
        return (large,)
    small = CropGroup(
        count=views.local_count,
        size=views.local_size,
        scale=views.local_scale,
        blur_prob=(views.local_blur_prob,),
        **common,
    )
    return large, small


def build_stream(recipe: PretrainRecipe, data: str | Path, world: World) -> ShardStream:
    """This process's stream of batches.

    Raises:
        UsageError: the batch cannot be cut over processes and parts.
        DataError: the shards are missing, or too few samples are left.
    """
    parts = world.size * recipe.engine.accumulate
    if recipe.engine.batch_size % parts:
        raise UsageError(
            "the batch cannot be cut evenly",
            where="engine.batch_size",
            expected=f"a multiple of {parts} (processes * accumulate)",
            got=str(recipe.engine.batch_size),
        )
    return ShardStream(
        data,
        recipe.data.split,
        batch_size=recipe.engine.batch_size // world.size,
        seed=recipe.engine.seed,
        groups=crop_groups(recipe.views),
        workers=recipe.data.workers,
        rank=world.rank,
        world_size=world.size,
        where=recipe.data.where,
        balance=recipe.data.balance,
        balance_temperature=recipe.data.balance_power,
        max_bad_share=recipe.data.max_bad_share,
        allow_missing=recipe.data.allow_missing,
    )


def make_clock(recipe: PretrainRecipe, steps_per_epoch: int) -> Clock:
    """Length of the run: the recipe's steps, or its epochs of the corpus."""
    steps = recipe.schedule.steps or max(1, round(recipe.schedule.epochs * steps_per_epoch))
    return Clock(steps=steps, epochs=recipe.schedule.epochs)


def build_method(recipe: PretrainRecipe, clock: Clock, samples: int) -> OpenUSMethod:
    """The method with weights drawn from the recipe's seed, or started from the recipe's weights; on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.engine.seed)
        backbone = _backbone(recipe.backbone)
        return OpenUSMethod(backbone, recipe, clock=clock, samples=samples)


def _backbone(recipe: BackboneRecipe) -> nn.Module:
    overrides: dict[str, Any] = {
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "scan_backend": recipe.scan_backend,
    }
    if recipe.drop_path is not None:
        overrides["drop_path"] = recipe.drop_path
    backbone: nn.Module = build_backbone(recipe.name, **overrides)
    if recipe.weights is not None:
        _start_from(backbone, recipe)
    return backbone


def _start_from(backbone: nn.Module, recipe: BackboneRecipe) -> None:
    """Copy saved weights in: never silently in part."""
    saved: Any = load_backbone(locate(str(recipe.weights)))
    if saved.name != recipe.name:
        raise WeightsError(
            "weights of another backbone", where=str(recipe.weights), expected=recipe.name, got=saved.name
        )
    backbone.load_state_dict(saved.state_dict())


def rates_of(recipe: PretrainRecipe, clock: Clock, step: int) -> Rates:
    """Learning rate and weight decay of a step."""
    optimizer = recipe.optimizer
    share = recipe.engine.batch_size / REFERENCE_BATCH
    scale = {"none": 1.0, "linear": share, "sqrt": share**0.5}[optimizer.lr_scaling]
    return Rates(
        lr=warmup_cosine(
            step,
            peak=optimizer.lr * scale,
            end=optimizer.lr_end,
            warmup=clock.steps_of(recipe.schedule.warmup_epochs),
            steps=clock.steps,
        ),
        weight_decay=cosine(step, start=optimizer.weight_decay, end=optimizer.weight_decay_end, steps=clock.steps),
    )


def build_engine(
    recipe: PretrainRecipe,
    stream: Stream,
    *,
    clock: Clock,
    samples: int,
    world: World,
    run: Path,
) -> Engine:
    """Everything of one process, ready to run.

    Args:
        recipe: resolved.
        stream: batches of this process.
        clock: length of the run.
        samples: images in the corpus.
        world: where this process stands.
        run: the run's folder.
    """
    method = build_method(recipe, clock, samples).to(world.device)
    if recipe.engine.channels_last and world.device.type == "cuda":
        method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.engine.compile:
        method.student.backbone.compile()
    optimizer = build_adamw(
        method.trainable(), rule=recipe.optimizer.decay, betas=recipe.optimizer.betas, eps=recipe.optimizer.eps
    )
    return Engine(
        method=method,
        stream=stream,
        optimizer=optimizer,
        rates=lambda step: rates_of(recipe, clock, step),
        world=world,
        recipe=recipe.engine,
        clipping=recipe.optimizer,
        run=run,
        total=clock.steps,
        about=about_run(recipe),
    )


def about_run(recipe: PretrainRecipe) -> dict[str, Any]:
    """What every checkpoint says of its run."""
    tree = recipe.to_dict()
    return {
        "recipe": tree,
        "recipe_sha256": hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest(),
        "versions": {"openus": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


MAY_CHANGE = (
    "name", "data.workers", "data.max_bad_share", "engine.device", "engine.threads", "engine.log_every",
    "engine.figure_every", "engine.checkpoint_every", "engine.keep", "engine.keep_every", "engine.max_nonfinite",
    "engine.tensorboard", "engine.wandb", "engine.compile", "backbone.gradient_checkpointing", "backbone.scan_backend",
    "backbone.weights",
)  # fmt: skip
"""Keys that a resumed run may change: they decide how it runs, not what it computes."""


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two recipes, apart from those that may."""
    found: list[str] = []
    for key in sorted({*before, *after}):
        old, new, name = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed_keys(old, new, f"{name}.")
        elif old != new and name not in MAY_CHANGE:
            found.append(name)
    return found
