"""The loop that `finetune` and `segment` share: AdamW with layer-wise decay, warm-up and cosine, early stop.

Deterministic on the CPU: order, augmentation and drop path come from the seed.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openus_model.evaluate.settings import EvaluateRecipe
from openus_model.optimizer import decays
from openus_model.progress import bar

_BLOCK = re.compile(r"^(.*?blocks\.\d+|layers\.\d+)\.")


def layer_groups(backbone: nn.Module, recipe: EvaluateRecipe) -> list[dict[str, Any]]:
    """The backbone's parameters by depth: what lies before the first block learns slowest, the last block fastest.

    Weight decay falls on what it falls on in pretraining: on matrices, not on norms, biases and the scan's own rates.
    """
    names = [name for name, _ in backbone.named_parameters()]
    blocks = list(dict.fromkeys(m[1] for name in names if (m := _BLOCK.match(name))))
    depth_of = {block: 1 + i for i, block in enumerate(blocks)}
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    depth, last = 0, len(blocks)
    for name, parameter in backbone.named_parameters():
        found = _BLOCK.match(name)
        if found:
            depth = depth_of[found[1]]
        elif name.startswith(("outnorm", "norm")):
            depth = last
        groups.setdefault((depth, decays(name, parameter, "matrices")), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr * recipe.layer_decay ** (last + 1 - depth),
            "weight_decay": recipe.weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def fit(
    model: nn.Module,
    groups: list[dict[str, Any]],
    loss_of: Callable[[NDArray[np.int64], torch.Generator], Tensor],
    rows: NDArray[np.int64],
    judge: Callable[[], float] | None,
    recipe: EvaluateRecipe,
    *,
    seed: int,
    quiet: bool,
) -> dict[str, Any]:
    """Train a model in place; it ends with its best weights, in eval mode.

    Args:
        model: what trains.
        groups: of parameters with their peak `lr`.
        loss_of: of a batch of rows, with the generator of the augmentation.
        rows: to train on.
        judge: score on validation images, higher is better; None where there are none.
        recipe: settings.
        seed: of order and augmentation.
        quiet: no progress bar.

    Returns:
        facts for the scores: epochs run, and the best with its validation score.
    """
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    peaks = [group["lr"] for group in optimizer.param_groups]
    per_epoch = math.ceil(len(rows) / recipe.batch_size)
    steps = recipe.epochs * per_epoch
    generator = torch.Generator().manual_seed(seed)
    best, best_epoch, best_state, epoch = -math.inf, 0, None, 0
    with torch.random.fork_rng(), bar("train", steps, quiet=quiet) as advance:
        torch.manual_seed(seed)
        for epoch in range(recipe.epochs):
            model.train()
            order = rows[torch.randperm(len(rows), generator=generator).numpy()]
            for k, batch in enumerate(np.array_split(order, per_epoch)):
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * _share(epoch * per_epoch + k, steps)
                optimizer.zero_grad(set_to_none=True)
                loss_of(batch, generator).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                advance(1)
            model.eval()
            score = judge() if judge is not None else None
            if score is not None and score > best:
                best, best_epoch, best_state = score, epoch, copy.deepcopy(model.state_dict())
            if score is not None and epoch - best_epoch >= recipe.patience:
                break
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    facts: dict[str, Any] = {"epochs": epoch + 1}
    if judge is not None:
        facts |= {"best_epoch": best_epoch + 1, "best_validation": round(best, 6)}
    return facts


def _share(step: int, steps: int) -> float:
    """Of the peak learning rate: up over the first twentieth, then a cosine to 0."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
