"""Pretraining recipes: every number of a run, typed, with its meaning below it.

The defaults are `openus_small`: the paper's settings, each defect of the authors' code repaired as
docs/decisions/0003-departures-from-the-released-code.md argues. A recipe file names what differs, and may start from
another recipe with `extends`. An unknown key is refused with the nearest name.

    recipe = load_recipe("openus_small", overrides=("engine.batch_size=64",))
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from openus_model.errors import RecipeError
from openus_model.typed_yaml import build_typed, nearest, override, plain, read_tree

HERE = Path(__file__).resolve().parent
CELL_PX = 32
"""Side of a mask cell in pixels: the stride of every backbone here."""


def _check(good: bool, key: str, expected: str, got: object) -> None:
    if not good:
        raise RecipeError("impossible value", where=key, expected=expected, got=str(got))


def _share(key: str, *values: float) -> None:
    for value in values:
        _check(0.0 <= value <= 1.0, key, "a number in [0, 1]", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """Which samples, how often, and who reads them."""

    split: str = "pretrain"
    "Split of the manifest to train on."
    where: str | None = None
    "SQL condition over the manifest's columns, for example \"organ = 'breast'\"; null takes every sample."
    balance: tuple[str, ...] = ()
    "Manifest columns to balance draws over, for example [dataset, organ]; empty draws each sample once an epoch."
    balance_power: float = 0.5
    "A group of n samples is drawn in proportion to n ** power; 1 is as the corpus is, 0 gives every group the same."
    workers: int = 4
    "Reader processes per rank; 0 reads in the trainer. Never changes the result."
    max_bad_share: float = 0.001
    "Share of the samples that may be unreadable, at least one, each named and replaced; 0 bears none."
    allow_missing: bool = False
    "Go on without the samples of shards that are missing or torn."

    def __post_init__(self) -> None:
        _share("data.balance_power", self.balance_power)
        _share("data.max_bad_share", self.max_bad_share)
        _check(self.workers >= 0, "data.workers", "0 or more", self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsRecipe:
    """The random views of an image."""

    global_size: int = 224
    "Side of the large views in pixels, a multiple of 32."
    local_size: int = 96
    "Side of the small views in pixels, a multiple of 32."
    global_count: int = 2
    "Large views per image."
    local_count: int = 8
    "Small views per image; 0 is allowed."
    global_scale: tuple[float, float] = (0.14, 1.0)
    "Range of a large crop's share of the image's area."
    local_scale: tuple[float, float] = (0.05, 0.4)
    "Range of a small crop's share of the image's area."
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    "Range of a crop's width over height."
    flip_prob: float = 0.5
    "Chance of a left-right flip. There is no up-down flip: the probe stays at its side."
    jitter_prob: float = 0.8
    "Chance of the four changes below, in random order."
    brightness: float = 0.4
    "Strength of the brightness change, as in torchvision's ColorJitter."
    contrast: float = 0.4
    "Strength of the contrast change."
    saturation: float = 0.2
    "Strength of the saturation change; does nothing on grey images."
    hue: float = 0.1
    "Strength of the hue change; does nothing on grey images."
    grey_prob: float = 0.2
    "Chance of dropping colour; does nothing on grey images."
    global_blur_prob: tuple[float, ...] = (1.0, 0.1)
    "Chance of a Gaussian blur, per large view; the last holds for the rest."
    local_blur_prob: float = 0.5
    "Chance of a Gaussian blur of a small view."
    blur_radius_px: tuple[float, float] = (0.1, 2.0)
    "Range of the blur's sigma in pixels of the view."
    global_solarize_prob: tuple[float, ...] = (0.0, 0.2)
    "Chance of inverting levels of 128 and above, per large view."
    inside_share: float = 0.0
    "Smallest share of a crop that must lie inside the scan area; 0 asks for nothing."
    gain_db: float = 0.0
    "Largest overall gain change in dB of a 60 dB display; 0 is off."
    tgc_db: float = 0.0
    "Largest change at one depth of a smooth time-gain curve, in dB; 0 is off."
    attenuation_db: float = 0.0
    "Largest extra loss at the far edge, growing with depth, in dB; 0 is off."
    lateral_blur_px: float = 0.0
    "Largest sigma of a blur across beams only, which keeps speckle's axial structure and replaces the blur; 0 is off."
    change_prob: float = 0.5
    "Chance of gain, TGC and attenuation each, per view."

    def __post_init__(self) -> None:
        for name in ("global_size", "local_size"):
            size = getattr(self, name)
            _check(size >= CELL_PX and size % CELL_PX == 0, f"views.{name}", f"a multiple of {CELL_PX}", size)
        _check(
            self.local_count == 0 or self.local_size < self.global_size,
            "views.local_size", "smaller than global_size", self.local_size,
        )  # fmt: skip
        _check(self.global_count >= 2, "views.global_count", "2 or more", self.global_count)
        _check(self.local_count >= 0, "views.local_count", "0 or more", self.local_count)
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            _check(0 < low <= high <= 1, f"views.{name}", "0 < low <= high <= 1", (low, high))
        for name in ("flip_prob", "jitter_prob", "grey_prob", "local_blur_prob", "inside_share", "change_prob"):
            _share(f"views.{name}", getattr(self, name))
        _share("views.global_blur_prob", *self.global_blur_prob)
        _share("views.global_solarize_prob", *self.global_solarize_prob)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRecipe:
    """The network under student and teacher."""

    name: str = "vmamba_small"
    "As in `openus-model describe`."
    drop_path: float | None = None
    "Stochastic depth of the last block of the student; null takes the backbone's own (0.3 for vmamba_small)."
    weights: str | None = None
    "Folder of exported or imported weights, or hf:owner/name, that both networks start from; null starts at random."
    gradient_checkpointing: bool = False
    "Recompute blocks in the backward pass: about a third more time for a fraction of the memory."
    scan_backend: Literal["auto", "reference", "cpu", "triton", "mamba_ssm"] = "auto"
    "Selective-scan kernel; auto takes the best one for the device and says so once."
    teacher_drop_path: bool = False
    "Run the teacher with the student's stochastic depth, as the released code does (D5)."

    def __post_init__(self) -> None:
        if self.drop_path is not None:
            _share("backbone.drop_path", self.drop_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """The projection heads."""

    prototypes: int = 8192
    "Output size of a head."
    hidden: int = 2048
    "Width of the two hidden layers."
    bottleneck: int = 256
    "Width before the prototypes, where vectors get unit length."
    separate: bool = True
    "Own prototypes for patches; off shares those of [CLS]."
    teacher: Literal["mirror", "released"] = "mirror"
    """mirror: the teacher averages every student tensor. released: the teacher's patches use its [CLS] prototypes,
    which start as the student's patch prototypes (D8, D9)."""

    def __post_init__(self) -> None:
        for name in ("prototypes", "hidden", "bottleneck"):
            _check(getattr(self, name) > 1, f"head.{name}", "2 or more", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingRecipe:
    """Which cells of a view the student does not see."""

    rule: Literal["paper", "released"] = "paper"
    """paper: alpha weights the student's difficulty, the chosen part is a share of the budget. released: alpha weights
    the teacher's attention, the chosen part is a share of all cells (D3, D4)."""
    guide: Literal["both", "attention", "difficulty", "random"] = "both"
    "What scores a cell: attention and difficulty, one of them, or nothing (random cells, same budget)."
    ratio: float = 0.6
    "Share of the cells of a large view that is masked (rounded up)."
    chosen_start: float = 0.1
    "Share of the mask taken by score, not at random, at the start."
    chosen_end: float = 0.9
    "The same at the end; linear over epochs."
    alpha_start: float = 0.1
    "Weight of the second score (paper: difficulty) at the start."
    alpha_end: float = 0.9
    "The same at the end."
    alpha_shape: Literal["cosine", "linear", "constant"] = "cosine"
    "How alpha goes from start to end over epochs."
    difficulty: Literal["table", "same_step", "previous_batch"] = "table"
    """Where an image's difficulty comes from: a table kept per image across epochs, two extra passes of the student in
    the same step, or, as released, the previous batch (D1, D7)."""
    table_grid: int = 14
    "Cells per side of an image's entry in the table."
    table_momentum: float = 0.3
    "Weight of what the table already knows when a cell is seen again."
    local_ratio: float = 0.3
    "Share of the cells of a small view that blocks cover."
    inside_share: float = 0.0
    "A cell with less than this share inside the scan area is never masked nor scored; 0 is off."
    loss_mask: Literal["applied", "blocks"] = "applied"
    "Mask of the patch loss: the one applied, or unrelated random blocks as in the released default (D2)."

    def __post_init__(self) -> None:
        for name in (
            "ratio",
            "chosen_start",
            "chosen_end",
            "alpha_start",
            "alpha_end",
            "table_momentum",
            "local_ratio",
            "inside_share",
        ):
            _share(f"masking.{name}", getattr(self, name))
        _check(self.ratio > 0, "masking.ratio", "above 0", self.ratio)
        _check(1 <= self.table_grid <= 64, "masking.table_grid", "1 to 64", self.table_grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossesRecipe:
    """Weights of the loss terms, temperatures, centring."""

    cls: float = 1.0
    "Weight of the view loss on [CLS]."
    patch: float = 1.0
    "Weight of the loss on masked patches."
    reconstruct_global: float = 1.0
    "Weight of the pixel loss on masked cells of large views."
    reconstruct_local: float = 1.0
    "Weight of the pixel loss on masked cells of small views."
    koleo: float = 0.0
    "Weight of the KoLeo term that spreads [CLS] vectors (DINOv2 uses 0.1); 0 is off."
    student_temperature: float = 0.1
    "Temperature of the student's softmax."
    teacher_temperature: float = 0.04
    "Temperature of the teacher's [CLS] softmax."
    patch_temperature_start: float = 0.04
    "Temperature of the teacher's patch softmax in the first epoch."
    patch_temperature_end: float = 0.07
    "The same after the warm-up."
    patch_temperature_epochs: float = 30.0
    "Epochs of that warm-up; the end is reached in the last of them."
    centring: Literal["mean", "sinkhorn"] = "mean"
    "How the teacher is kept from collapsing: a running mean, or Sinkhorn-Knopp over the batch."
    centre_momentum: float = 0.9
    "Momentum of the running mean."
    sinkhorn_iterations: int = 3
    "Iterations of Sinkhorn-Knopp."
    local_cls: Literal["unmasked", "masked"] = "unmasked"
    """Whether [CLS] of small views comes from unmasked views (a second pass reconstructs) or, as released, from masked
    ones (D6)."""

    def __post_init__(self) -> None:
        for name in ("student_temperature", "teacher_temperature", "patch_temperature_start", "patch_temperature_end"):
            _check(getattr(self, name) > 0, f"losses.{name}", "above 0", getattr(self, name))
        for name in ("cls", "patch", "reconstruct_global", "reconstruct_local", "koleo"):
            _check(getattr(self, name) >= 0, f"losses.{name}", "0 or more", getattr(self, name))
        _share("losses.centre_momentum", self.centre_momentum)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRecipe:
    """AdamW."""

    lr: float = 5e-4
    "Peak learning rate."
    lr_end: float = 1e-6
    "Learning rate at the end of the cosine."
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    "Scale the peak by batch_size / 128, or by its root; the released code does not (D11)."
    betas: tuple[float, float] = (0.9, 0.999)
    "AdamW's betas."
    eps: float = 1e-8
    "AdamW's epsilon."
    weight_decay: float = 0.04
    "Weight decay at the start."
    weight_decay_end: float = 0.4
    "Weight decay at the end; cosine in between."
    decay: Literal["matrices", "released"] = "matrices"
    """matrices: no decay of biases, norms, A_logs, dt biases and the mask token. released: every tensor of two axes or
    more decays (D10)."""
    clip: float = 3.0
    "Largest gradient norm; 0 never clips."
    clip_rule: Literal["global", "per_tensor"] = "global"
    "One norm over all gradients, or, as released, one per tensor (D11)."

    def __post_init__(self) -> None:
        for name in ("lr", "lr_end", "weight_decay", "weight_decay_end", "clip"):
            _check(getattr(self, name) >= 0, f"optimizer.{name}", "0 or more", getattr(self, name))
        for beta in self.betas:
            _check(0 <= beta < 1, "optimizer.betas", "two numbers in [0, 1)", self.betas)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecipe:
    """How long, and what changes on the way."""

    epochs: float = 151.0
    "Length of the run in epochs; every schedule counts in these."
    steps: int | None = None
    "Length in steps; when given, an epoch is steps / epochs steps, whatever the corpus holds."
    warmup_epochs: float = 10.0
    "Epochs of linear warm-up of the learning rate, from 0."
    freeze_prototypes_epochs: float = 1.0
    "Epochs during which prototypes get no update."
    momentum_start: float = 0.996
    "Momentum of the teacher's average at the start."
    momentum_end: float = 1.0
    "The same at the end; cosine in between."

    def __post_init__(self) -> None:
        _check(self.epochs > 0, "schedule.epochs", "above 0", self.epochs)
        _check(self.steps is None or self.steps > 0, "schedule.steps", "above 0, or null", self.steps)
        _check(0 <= self.warmup_epochs < self.epochs, "schedule.warmup_epochs", "fewer than epochs", self.warmup_epochs)
        _share("schedule.momentum_start", self.momentum_start)
        _share("schedule.momentum_end", self.momentum_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecipe:
    """The machine's side of a run."""

    seed: int = 42
    "Seed of weights, order, views, masks and stochastic depth."
    batch_size: int = 128
    "Images per step, over all processes."
    accumulate: int = 1
    "Parts that a process cuts its share of the batch into, one forward and backward each."
    precision: Literal["fp32", "bf16"] = "bf16"
    "Arithmetic of the networks on a GPU and, if asked for, on a CPU; losses and scans stay in fp32."
    channels_last: bool = True
    "Memory layout of images and convolutions on a GPU."
    compile: bool = False
    "torch.compile of the student's backbone."
    deterministic: bool = False
    "Only kernels that repeat to the bit, where torch has them."
    device: Literal["auto", "cpu", "cuda"] = "auto"
    "Where to run; auto takes a GPU if there is one."
    threads: int | None = None
    "CPU threads of torch; null leaves torch's choice."
    log_every: int = 10
    "Steps between lines of metrics.jsonl."
    figure_every: int = 1000
    "Steps between figures; 0 draws none."
    checkpoint_every: int = 1000
    "Steps between checkpoints; the last step is always saved."
    keep: int = 3
    "Newest checkpoints that are kept."
    keep_every: int = 0
    "Checkpoints at multiples of this many steps are kept for good; 0 keeps none."
    max_nonfinite: int = 0
    "Steps in a row with a loss or gradient that is not finite, which are skipped before the run stops."
    tensorboard: bool = True
    "Write RUN/tensorboard as well."
    wandb: str | None = None
    "Weights & Biases project that metrics and the recipe are sent to; null sends nothing."

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "checkpoint_every", "keep"):
            _check(getattr(self, name) >= 1, f"engine.{name}", "1 or more", getattr(self, name))
        for name in ("figure_every", "keep_every", "max_nonfinite"):
            _check(getattr(self, name) >= 0, f"engine.{name}", "0 or more", getattr(self, name))
        _check(self.threads is None or self.threads >= 1, "engine.threads", "1 or more, or null", self.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """A whole pretraining run."""

    name: str = "openus_small"
    """Name of the recipe, for people."""
    data: DataRecipe = field(default_factory=DataRecipe)
    views: ViewsRecipe = field(default_factory=ViewsRecipe)
    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    masking: MaskingRecipe = field(default_factory=MaskingRecipe)
    losses: LossesRecipe = field(default_factory=LossesRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    engine: EngineRecipe = field(default_factory=EngineRecipe)

    def __post_init__(self) -> None:
        released = self.masking.difficulty == "previous_batch"
        _check(
            not released or self.engine.accumulate == 1,
            "engine.accumulate", "1 with masking.difficulty previous_batch", self.engine.accumulate,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, tuples as lists, in the order of the fields."""
        return dict(plain(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        """The resolved recipe; `load_recipe` of it gives an equal one."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=120)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    return tuple(sorted(path.stem for path in _recipes_dir().glob("*.yaml")))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read a recipe that comes with the package, or a YAML file, and apply `section.key=value` overrides in order.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key (with the nearest name) or an impossible value.
    """
    path = _find(name_or_path)
    tree = read_tree(path, _find)
    for text in overrides:
        override(tree, text)
    tree.setdefault("name", path.stem)
    return build_typed(PretrainRecipe, tree, where=f"{path.name} with overrides" if overrides else path.name)


def recipe_from_dict(tree: Mapping[str, Any], where: str = "recipe") -> PretrainRecipe:
    """The recipe that `to_dict` gave; strict as a file is."""
    return build_typed(PretrainRecipe, dict(tree), where=where)


def describe_keys() -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every recipe key, for the reference page."""
    for section in dataclasses.fields(PretrainRecipe):
        owner = typing.get_type_hints(PretrainRecipe)[section.name]
        if not dataclasses.is_dataclass(owner):
            continue
        yield from describe_fields(typing.cast(type, owner), f"{section.name}.")


def describe_fields(owner: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every field of a part of a recipe; keys begin with the prefix."""
    meanings = _meanings(owner)
    for key in dataclasses.fields(owner):
        if key.default is not dataclasses.MISSING:  # a part within the part is described by itself
            yield f"{prefix}{key.name}", str(key.type), _as_yaml(key.default), meanings[key.name]


def _meanings(owner: type) -> dict[str, str]:
    """The string below each field of a dataclass, read from its source."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(owner)).body[0]).body
    meanings: dict[str, str] = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meanings[typing.cast(ast.Name, before.target).id] = " ".join(str(after.value.value).split())
    return meanings


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(plain(value), default_flow_style=True).removesuffix("...\n").strip()


def _recipes_dir() -> Path:
    """Beside the package in a checkout, inside it once installed."""
    checkout = HERE.parent / "recipes" / "pretrain"
    return checkout if checkout.is_dir() else HERE / "recipes" / "pretrain"


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise RecipeError("no such recipe file", where=str(path), next_step=f"known names: {', '.join(recipe_names())}")
    built_in = _recipes_dir() / f"{name_or_path}.yaml"
    if built_in.is_file():
        return built_in
    raise RecipeError("no such recipe", where=str(name_or_path), next_step=nearest(str(name_or_path), recipe_names()))
