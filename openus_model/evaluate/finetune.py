"""Fine-tuning for classification: a linear layer on the pooled vector, and the backbone trained with it."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from openus_model.evaluate.frozen import Images
from openus_model.evaluate.metrics import Scores, macro_f1
from openus_model.evaluate.settings import EvaluateRecipe
from openus_model.evaluate.task import Fold, Task
from openus_model.evaluate.training import fit, layer_groups
from openus_model.pixels import normalise

CROP_SCALE: Final = (0.5, 1.0)
"""Share of the area that a training crop keeps: less would cut the lesion out."""


class Classifier(nn.Module):
    """A backbone with a linear layer, which starts at zero."""

    def __init__(self, backbone: Any, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.embed_dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits_BK: Tensor = self.head(self.backbone(image_BCHW).pooled_BD)
        return logits_BK


def finetune(
    task: Task, fold: Fold, backbone: Any, recipe: EvaluateRecipe, *, seed: int, quiet: bool
) -> tuple[Scores, dict[str, Any]]:
    """Chances of the test images, and how training went; the backbone that is passed in stays as it is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, classes = Images(task.corpus, recipe.size_px), len(task.classes)
    model = Classifier(copy.deepcopy(backbone), classes).to(device)
    truth = dict(zip(task.rows.tolist(), task.truth.tolist(), strict=True))
    weight = _class_weights(task.truth_of(fold.train), classes).to(device) if recipe.class_weights else None

    def loss_of(rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        batch = torch.stack([images[int(i)] for i in rows])
        shown = crop_and_flip(batch, generator) if recipe.augment else batch
        wanted = torch.tensor([truth[int(i)] for i in rows], device=device)
        return functional.cross_entropy(model(normalise(shown.to(device))), wanted, weight=weight)

    def chances(rows: NDArray[np.int64]) -> Scores:
        with torch.inference_mode():
            parts = [
                model(normalise(torch.stack([images[int(i)] for i in part]).to(device))).float().softmax(1).cpu()
                for part in np.array_split(rows, range(recipe.batch_size, len(rows), recipe.batch_size))
            ]
        return np.asarray(torch.cat(parts).numpy(), np.float64)

    def judge() -> float:
        return float(macro_f1(task.truth_of(fold.val), chances(fold.val), np.ones((1, len(fold.val))))[0])

    groups = [*layer_groups(model.backbone, recipe), {"params": list(model.head.parameters()), "lr": recipe.lr}]
    validated = judge if len(fold.val) else None
    facts = fit(model, groups, loss_of, fold.train, validated, recipe, seed=seed, quiet=quiet)
    return chances(fold.test), facts


def _class_weights(truth: NDArray[np.int64], classes: int) -> Tensor:
    """Inverse frequencies with mean 1 over images; 0 for a class that training lacks."""
    counts = np.bincount(truth, minlength=classes)
    weights = np.divide(len(truth), counts * (counts > 0).sum(), out=np.zeros(classes), where=counts > 0)
    return torch.tensor(weights, dtype=torch.float32)


def crop_and_flip(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """A random square part of each image at its old size, mirrored half of the time; uint8 in and out."""
    size, shown = images_BCHW.shape[-1], []
    for image_CHW in images_BCHW:
        scale, top, left, flip = torch.rand(4, generator=generator).tolist()
        side = round(size * (CROP_SCALE[0] + scale * (CROP_SCALE[1] - CROP_SCALE[0])) ** 0.5)
        y, x = round(top * (size - side)), round(left * (size - side))
        part = image_CHW[:, y : y + side, x : x + side]
        part = functional.interpolate(part[None], (size, size), mode="bilinear", antialias=True)[0]
        shown.append(part.flip(-1) if flip < 0.5 else part)
    return torch.stack(shown)
