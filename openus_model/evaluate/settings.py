"""Evaluation recipes: how a protocol trains, and, for a cell of the paper's tables, the paper's own figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openus_model.errors import RecipeError
from openus_model.recipe import describe_fields
from openus_model.typed_yaml import build_typed, nearest, override, read_tree

HERE = Path(__file__).resolve()
FOLDERS = (HERE.parents[1] / "recipes" / "evaluate", HERE.parents[2] / "recipes" / "evaluate")
"""In a wheel, in a checkout."""
FINE_TUNING = {"lr": 5e-4, "weight_decay": 0.05, "epochs": 50}
"""What `finetune` changes where no recipe says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigures:
    """What the paper reports for this cell, in per cent; not a result of this toolkit."""

    accuracy: float | None = None
    "In per cent; null where the paper has none."
    macro_f1: float | None = None
    "The same."
    dsc: float | None = None
    "The same."
    iou: float | None = None
    "The same."
    note: str = ""
    "Where the figure stands, its spread, and what is not certain of it."


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRecipe:
    """Settings of one evaluation; those of training are not read by kNN and linear."""

    name: str = "default"
    "As the scores show it; the file's name where it is left out."
    protocol: Literal["knn", "linear", "finetune", "segment"] | None = None
    "The protocol it is meant for; null for any."
    dataset: str | None = None
    "The dataset it is meant for; null for any."
    label_fraction: float | None = None
    "Share of training subjects, where the command line does not name one."
    size_px: int = 224
    "Side to which images are resized."
    batch_size: int = 16
    "Images of a training step."
    epochs: int = 100
    "Passes over the training images; 50 for `finetune`."
    lr: float = 1e-3
    "Peak; a warm-up over the first twentieth, then a cosine to 0. 5e-4 for `finetune`."
    weight_decay: float = 0.0
    "Of AdamW; 0.05 for `finetune`."
    layer_decay: float = 0.75
    "Learning rate of a layer over that of the layer above it, where the backbone is trained."
    patience: int = 20
    "Epochs without a better validation score after which training stops; without validation images it runs to its end."
    class_weights: bool = False
    "Weigh classes by the inverse of how often they occur in training."
    frozen: bool = True
    "Segmentation: whether the backbone stays as it is."
    decoder: Literal["mamba", "pyramid"] = "mamba"
    "Segmentation: the paper's decoder, or a light one that takes maps of any widths."
    decoder_depth: int = 4
    "Blocks per level of the Mamba decoder."
    dice_weight: float = 1.0
    "Weight of the Dice loss beside the cross-entropy; 0 as in the paper."
    augment: bool = True
    "Flips and quarter turns (segmentation), crops and flips (classification)."
    paper: PaperFigures = field(default_factory=PaperFigures)
    "What the paper reports for this cell; shown beside, never used."

    def __post_init__(self) -> None:
        for name in ("size_px", "batch_size", "epochs", "patience", "decoder_depth"):
            if getattr(self, name) < 1:
                raise RecipeError("impossible value", where=name, expected="1 or more", got=str(getattr(self, name)))
        if self.lr <= 0 or not 0 < self.layer_decay <= 1:
            raise RecipeError("impossible value", where="lr, layer_decay", expected="lr > 0, 0 < layer_decay <= 1")


def describe_keys() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every key, for the reference page."""
    yield from describe_fields(EvaluateRecipe)
    yield from describe_fields(PaperFigures, "paper.")


def load_settings(protocol: str, recipe: str | None, overrides: Sequence[str], dataset: str) -> EvaluateRecipe:
    """The recipe of a request, or the protocol's own.

    Args:
        protocol: that was asked for.
        recipe: a built-in name or a YAML file.
        overrides: `key=value`, in order.
        dataset: that was asked for.

    Raises:
        RecipeError: no such recipe, an unknown key, or a recipe for another protocol or dataset.
    """
    where = "--set"
    tree: dict[str, Any] = dict(FINE_TUNING) if protocol == "finetune" else {}
    if recipe is not None:
        path = _find(recipe)
        where, tree = path.name, {"name": path.stem, **tree, **read_tree(path, _find)}
    for text in overrides:
        override(tree, text)
    settings = build_typed(EvaluateRecipe, tree, where=where)
    for name, wanted, asked in (("protocol", settings.protocol, protocol), ("dataset", settings.dataset, dataset)):
        if wanted is not None and wanted != asked:
            raise RecipeError(f"the recipe is for another {name}", where=where, expected=wanted, got=asked)
    return settings


def _find(name: str) -> Path:
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        return Path(name)
    known = {p.stem: p for folder in FOLDERS for p in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise RecipeError("no such evaluation recipe", got=name, next_step=nearest(name, tuple(sorted(known))))
    return known[name]
