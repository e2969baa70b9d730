"""Segmentation: a decoder on the four maps of a frozen or fine-tuned backbone, scored per image at its own size.

Differs from the released code (algorithm, V3 to V5): every label of a mask counts, not the value 255 alone; scores are
per image, then averaged, at the image's stored size instead of 224 pixels; folds are the dataset's or by subject.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from openus_model.corpus import Corpus
from openus_model.errors import DataError
from openus_model.evaluate.decoder import build_decoder, widths
from openus_model.evaluate.metrics import dice, hd95, iou
from openus_model.evaluate.settings import EvaluateRecipe
from openus_model.evaluate.task import Fold, Indices, Task
from openus_model.evaluate.training import fit, layer_groups
from openus_model.pixels import normalise, resize

Mask = NDArray[np.uint8]
METRICS: Final = ("dsc", "iou", "hd95_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """What was found on the test images of one fold.

    Args:
        rows: of the corpus.
        values: metric name to one value per row; NaN where it is not defined.
        masks: found masks by row, at the size of the image.
    """

    rows: Indices
    values: dict[str, NDArray[np.float64]]
    masks: dict[int, Mask]


def make_mask_task(corpus: Corpus) -> Task:
    """The images with a mask as a task; its two classes say whether anything is marked, which balances folds.

    Raises:
        DataError: no image has a mask, or nothing is marked in any.
    """
    rows, marked = [], []
    for i in range(len(corpus)):
        mask = corpus.mask(i)
        if mask is not None:
            rows.append(i)
            marked.append(int(mask.any()))
    if not rows or not any(marked):
        what = "no image has a mask" if not rows else "every mask is empty"
        raise DataError(what, next_step="does the card name masks? openus-data show ID")
    return Task(
        corpus=corpus, target="mask", classes=("empty", "marked"), rows=np.array(rows, np.int64),
        truth=np.array(marked, np.int64), unlabelled=len(corpus) - len(rows),
    )  # fmt: skip


class Segmenter(nn.Module):
    """A backbone with a decoder."""

    def __init__(self, backbone: nn.Module, decoder: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.backbone, self.decoder, self.frozen = backbone, decoder, frozen
        self.backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Segmenter:
        """Training mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits (B, K, H, W) at the size of the image."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            stages = self.backbone(image_BCHW).stages
        logits_BKHW: Tensor = self.decoder(stages)
        return functional.interpolate(logits_BKHW, image_BCHW.shape[2:], mode="bilinear")


def segment(
    task: Task, fold: Fold, backbone: Any, recipe: EvaluateRecipe, *, seed: int, quiet: bool
) -> tuple[Segmented, dict[str, Any]]:
    """Masks and scores of the test images, and how training went; the backbone passed in stays as it is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    labels = _labels(task.corpus, fold.train)
    model = _segmenter(backbone, recipe, len(labels) + 1, seed).to(device)
    pairs = _Pairs(task.corpus, labels, recipe.size_px)

    def loss_of(rows: Indices, generator: torch.Generator) -> Tensor:
        images, masks = pairs.batch(rows)
        if recipe.augment:
            images, masks = turn_and_flip(images, masks, generator)
        logits = model(normalise(images.to(device)))
        wanted = masks.to(device)
        return functional.cross_entropy(logits, wanted) + recipe.dice_weight * dice_loss(logits, wanted)

    def judge() -> float:
        found = _predict(model, pairs, fold.val, recipe.batch_size, lambda _row: (recipe.size_px, recipe.size_px))
        pictures = {int(r): pairs.pair(int(r))[1].numpy() for r in fold.val}
        return float(np.mean([_mean_over_labels(dice, pictures[r], mask, labels) for r, mask in found.items()]))

    groups = [{"params": list(model.decoder.parameters()), "lr": recipe.lr}]
    if not recipe.frozen:
        groups = [*layer_groups(model.backbone, recipe), *groups]
    validated = judge if len(fold.val) else None
    facts = fit(model, groups, loss_of, fold.train, validated, recipe, seed=seed, quiet=quiet)
    found = _predict(model, pairs, fold.test, recipe.batch_size, lambda row: _size(task.corpus, row))
    return _score(task.corpus, fold.test, found, labels), {**facts, "labels": [int(v) for v in labels]}


def _segmenter(backbone: Any, recipe: EvaluateRecipe, classes: int, seed: int) -> Segmenter:
    mine = copy.deepcopy(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = build_decoder(recipe.decoder, widths(mine, recipe.size_px), classes, depth=recipe.decoder_depth)
    return Segmenter(mine, decoder, frozen=recipe.frozen)


def _labels(corpus: Corpus, rows: Indices) -> list[int]:
    """Values of the masks other than background, in training."""
    found: set[int] = set()
    for i in rows:
        found |= set(np.unique(_mask(corpus, int(i))).tolist())
    labels = sorted(found - {0})
    if not labels:
        raise DataError("nothing is marked in the training images", next_step="take a larger --label-fraction")
    return labels


def _mask(corpus: Corpus, row: int) -> Mask:
    mask = corpus.mask(row)
    if mask is None:
        raise DataError("a mask is missing", where=str(corpus.column("sample_id")[row]))
    return mask


def _size(corpus: Corpus, row: int) -> tuple[int, int]:
    return corpus.column("height_px")[row], corpus.column("width_px")[row]


class _Pairs:
    """Images and masks at one size, as uint8 and class indices, kept after the first reading."""

    def __init__(self, corpus: Corpus, labels: list[int], size_px: int) -> None:
        self.corpus, self.size_px = corpus, size_px
        self._class_of = np.zeros(256, np.uint8)
        for k, value in enumerate(labels):
            self._class_of[value] = k + 1
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def pair(self, row: int) -> tuple[Tensor, Tensor]:
        """(uint8 CHW, uint8 HW of class indices)."""
        if row not in self._kept:
            image = resize(self.corpus.image(row), self.size_px)
            mask = torch.from_numpy(self._class_of[_mask(self.corpus, row)])
            small = functional.interpolate(mask[None, None].float(), (self.size_px, self.size_px), mode="nearest-exact")
            self._kept[row] = image, small[0, 0].to(torch.uint8)
        return self._kept[row]

    def batch(self, rows: Indices) -> tuple[Tensor, Tensor]:
        """(uint8 B3HW, int64 BHW)."""
        pairs = [self.pair(int(row)) for row in rows]
        return torch.stack([i.expand(3, -1, -1) for i, _ in pairs]), torch.stack([m for _, m in pairs]).long()


def turn_and_flip(images_BCHW: Tensor, masks_BHW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Quarter turns and flips of square images, each with chance one half, the same for the mask."""
    images, masks = [], []
    for image, mask in zip(images_BCHW, masks_BHW, strict=True):
        turn, across, down = (torch.rand(3, generator=generator) < 0.5).tolist()
        quarters = int(torch.randint(1, 4, (), generator=generator)) if turn else 0
        axes = [axis for axis, wanted in ((-1, across), (-2, down)) if wanted]
        images.append(image.rot90(quarters, (-2, -1)).flip(axes))
        masks.append(mask.rot90(quarters, (-2, -1)).flip(axes))
    return torch.stack(images), torch.stack(masks)


def dice_loss(logits_BKHW: Tensor, wanted_BHW: Tensor) -> Tensor:
    """1 - soft Dice of the classes other than background, over the batch; smoothed by one pixel, so empty is no fault.

    Source: Milletari et al., V-Net, 2016, https://arxiv.org/abs/1606.04797, section 3.
    """
    chance = logits_BKHW.softmax(1)[:, 1:]
    truth = functional.one_hot(wanted_BHW, logits_BKHW.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(chance.dtype)
    both, sizes = (chance * truth).sum((0, 2, 3)), chance.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (sizes + 1)).mean()


def _predict(
    model: nn.Module, pairs: _Pairs, rows: Indices, batch_size: int, size_of: Callable[[int], tuple[int, int]]
) -> dict[int, Mask]:
    device = next(model.parameters()).device
    found: dict[int, Mask] = {}
    for part in np.array_split(rows, range(batch_size, len(rows), batch_size)):
        with torch.inference_mode():
            logits = model(normalise(pairs.batch(part)[0].to(device))).float().cpu()
        for row, logit_KHW in zip(part.tolist(), logits, strict=True):
            enlarged = functional.interpolate(logit_KHW[None], size_of(row), mode="bilinear")[0]
            found[row] = enlarged.argmax(0).to(torch.uint8).numpy()
    return found


Measure = Callable[[NDArray[np.bool_], NDArray[np.bool_]], float]


def _mean_over_labels(measure: Measure, truth: Mask, found: Mask, labels: list[int]) -> float:
    """Mean over the classes that either mask holds; where both are empty, what the measure says of two empty masks."""
    kinds = [k for k in range(1, len(labels) + 1) if (truth == k).any() or (found == k).any()] or [1]
    values = [measure(truth == k, found == k) for k in kinds]
    return float(np.mean(values))


def _score(corpus: Corpus, rows: Indices, found: dict[int, Mask], labels: list[int]) -> Segmented:
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for row in rows.tolist():
        stored = _mask(corpus, row)
        truth = np.zeros_like(stored)
        for k, value in enumerate(labels):
            truth[stored == value] = k + 1
        spacing = corpus.column("spacing_row_mm")[row], corpus.column("spacing_col_mm")[row]
        values["dsc"].append(_mean_over_labels(dice, truth, found[row], labels))
        values["iou"].append(_mean_over_labels(iou, truth, found[row], labels))
        known = None not in spacing
        values["hd95_mm"].append(
            _mean_over_labels(lambda a, b, s=spacing: hd95(a, b, s), truth, found[row], labels) if known else np.nan  # type: ignore[misc]
        )
    return Segmented(rows=rows, values={n: np.array(v, np.float64) for n, v in values.items()}, masks=found)
