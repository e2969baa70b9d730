"""Build recipes: every choice of a build that changes its bytes, typed, documented and strictly loaded.

A recipe is YAML; its keys are the fields below, everything may be left out, and a misspelt key is refused with the
nearest name. Built-in recipes lie in `recipes/build/`; any path works too.

    recipe = load_recipe("openus")
    recipe.image.codec
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from openus_data.errors import CardError, RecipeError
from openus_data.strict import FieldDoc, field_docs, load

Policy = Literal["mask", "quarantine", "keep"]
LARGEST_RECIPE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecipe:
    """How pictures are cropped and stored.

    Args:
        codec: png (lossless), jpeg, webp (lossless), or passthrough (an unchanged PNG or JPEG keeps its coded bytes
            without its metadata; everything else becomes png).
        jpeg_quality: 1 to 100, for codec jpeg.
        blacken_outside: pixels outside the scan area become black.
        panels: one sample a panel where a frame shows several.
        consensus: a file whose scan area is doubtful is cut where most files of its dataset, device and frame size are.
        least_confidence: a cone less certain than this only crops to its box; nothing inside the box is blackened.
        view: scan stores what the screen shows, polar the scan area in beam space (depth down, beam across); what has
            no known geometry stays as it is and is flagged `not_polar`.
    """

    codec: Literal["png", "jpeg", "webp", "passthrough"] = "png"
    jpeg_quality: int = 95
    blacken_outside: bool = True
    panels: bool = True
    consensus: bool = True
    least_confidence: float = 0.3
    view: Literal["scan", "polar"] = "scan"

    def __post_init__(self) -> None:
        _within("image.jpeg_quality", self.jpeg_quality, 1, 100)
        _within("image.least_confidence", self.least_confidence, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecipe:
    """What happens to text burned into the picture.

    Args:
        policy: mask fills it in from around it, quarantine turns the image away, keep leaves it; `--policy` wins.
        private_policy: the same for private data; left out, `policy`.
        ocr: also run the detector of the `[ocr]` extra: never, on images that the fast detector flags, or on all.
        quarantine_doubtful: for private data, turn images away on which text is still seen after masking.
    """

    policy: Policy = "mask"
    private_policy: Policy | None = None
    ocr: Literal["never", "flagged", "always"] = "never"
    quarantine_doubtful: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesRecipe:
    """Which frames of clips and slices of volumes are used.

    Args:
        policy: `card` follows the card; else `all`, `every N`, `max N`, `novel` or `annotated` for every dataset.
        novel_correlation: with `novel`, a frame is kept when its thumbnail correlates less than this with all kept.
        most: bound on the frames of one file, evenly spaced, after the policy; 0 sets none.
    """

    policy: str = "card"
    novel_correlation: float = 0.98
    most: int = 0

    def __post_init__(self) -> None:
        words = self.policy.split(" ")
        is_counted = len(words) == 2 and words[0] in ("every", "max") and words[1].isdecimal() and int(words[1]) > 0
        if not is_counted and self.policy not in ("card", "all", "novel", "annotated"):
            raise RecipeError(
                "unknown frame policy",
                where="frames.policy",
                expected="card, all, novel, annotated, every N or max N",
                got=repr(self.policy),
            )
        _within("frames.novel_correlation", self.novel_correlation, 0, 1)
        _within("frames.most", self.most, 0, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRecipe:
    """What is too poor to keep; every other fault is a flag in the manifest.

    Args:
        least_side_px: a stored picture with a shorter side is rejected as `tiny`.
        least_contrast: a picture whose grey levels inside the scan area vary less (standard deviation, 0 to 127) is
            rejected as `blank`.
        reject_saturated: reject, and not only flag, pictures that are white for the most part.
    """

    least_side_px: int = 32
    least_contrast: float = 3.0
    reject_saturated: bool = False

    def __post_init__(self) -> None:
        _within("quality.least_side_px", self.least_side_px, 1, 10**6)
        _within("quality.least_contrast", self.least_contrast, 0, 127)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesRecipe:
    """What counts as the same picture, and what happens to it.

    Args:
        most_distance: bits of 256 in which the hashes of near-duplicates may differ.
        least_correlation: what the thumbnails of near-duplicates must reach.
        flips: also look for mirrored copies.
        crops: also look for copies with a margin cut away.
        exact_in_pretrain: drop keeps one of several pictures with the same pixels in `pretrain`, keep keeps all.
        near_in_pretrain: the same for near-duplicates of different files.
    """

    most_distance: int = 48
    least_correlation: float = 0.85
    flips: bool = True
    crops: bool = True
    exact_in_pretrain: Literal["drop", "keep"] = "drop"
    near_in_pretrain: Literal["drop", "keep"] = "keep"

    def __post_init__(self) -> None:
        _within("duplicates.most_distance", self.most_distance, 0, 96)
        _within("duplicates.least_correlation", self.least_correlation, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecipe:
    """How subjects of datasets without a published split are shared out.

    Args:
        val: part of the subjects of an evaluation dataset that goes to `val`, 0 to 1.
        test: part that goes to `test`; the rest is `train`.
        train_of_both: where the training part of datasets with role `both` goes.
        role_of_private: the role of a private folder, which has no card to say it.
    """

    val: float = 0.1
    test: float = 0.2
    train_of_both: Literal["train", "pretrain"] = "train"
    role_of_private: Literal["pretrain", "evaluate", "both"] = "pretrain"

    def __post_init__(self) -> None:
        _within("split.val", self.val, 0, 1)
        _within("split.test", self.test, 0, 1 - self.val)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsRecipe:
    """How large shards get.

    Args:
        most_samples: bound on the samples of a shard.
        most_megabytes: bound on its size, in 10^6 bytes.
    """

    most_samples: int = 2000
    most_megabytes: int = 256

    def __post_init__(self) -> None:
        _within("shards.most_samples", self.most_samples, 1, 10**7)
        _within("shards.most_megabytes", self.most_megabytes, 1, 8000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsRecipe:
    """Bounds on one file, so that a hostile one costs one row in the rejects.

    Args:
        seconds: time that one file may take.
        memory_mb: memory that one file may take in a worker, in MiB.
    """

    seconds: float = 300.0
    memory_mb: int = 1200

    def __post_init__(self) -> None:
        _within("limits.seconds", self.seconds, 1, 10**6)
        _within("limits.memory_mb", self.memory_mb, 200, 10**6)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecipe:
    """Every choice of a build.

    Args:
        datasets: ids built when the command line names none; `openus` stands for the 42 datasets of the paper.
        license_classes: classes of licence that are built, all where none is named; `--license-class` wins.
        image: how pictures are cropped and stored.
        text: what happens to burned-in text.
        frames: which frames of clips and volumes are used.
        quality: what is too poor to keep.
        duplicates: what counts as the same picture.
        split: how subjects are shared out.
        shards: how large shards get.
        limits: bounds on one file.
    """

    datasets: tuple[str, ...] = ()
    license_classes: tuple[str, ...] = ()
    image: ImageRecipe = field(default_factory=ImageRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    frames: FramesRecipe = field(default_factory=FramesRecipe)
    quality: QualityRecipe = field(default_factory=QualityRecipe)
    duplicates: DuplicatesRecipe = field(default_factory=DuplicatesRecipe)
    split: SplitRecipe = field(default_factory=SplitRecipe)
    shards: ShardsRecipe = field(default_factory=ShardsRecipe)
    limits: LimitsRecipe = field(default_factory=LimitsRecipe)


def load_recipe(name_or_path: str | Path) -> BuildRecipe:
    """Load a recipe, strictly.

    Args:
        name_or_path: name of a built-in recipe, or a path to a YAML file.

    Raises:
        RecipeError: there is none, or it is wrong; names file, key and what was expected.
    """
    from openus_data.strict_yaml import (
        parse_yaml,  # takes 16 ms to load, which workers that are given a recipe need not
    )

    path = _find(str(name_or_path))
    if path.stat().st_size > LARGEST_RECIPE_BYTES:
        raise RecipeError("too large for a recipe", where=path.name, expected=f"at most {LARGEST_RECIPE_BYTES} bytes")
    try:
        raw = parse_yaml(path.read_text("utf-8"))
    except ValueError as error:
        raise RecipeError("not a YAML file", where=path.name, got=str(error)[:300]) from error
    try:
        return load(BuildRecipe, {} if raw is None else raw, where=path.name, hooks={})
    except CardError as error:  # the loader is the cards'; the fault is the recipe's
        raise RecipeError(
            error.what, where=error.where, expected=error.expected, got=error.got, next_step=error.next_step
        ) from error
    except RecipeError as error:
        raise RecipeError(
            error.what, where=f"{path.name}: {error.where}", expected=error.expected, got=error.got
        ) from error


def built_in_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    package = Path(__file__).resolve().parent
    for folder in (package / "recipes", package.parent / "recipes" / "build"):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    return {}


def recipe_reference() -> tuple[FieldDoc, ...]:
    """Every key of a recipe with its meaning, for the reference page."""
    return field_docs(BuildRecipe)


def _find(name: str) -> Path:
    known = built_in_recipes()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, list(known), n=1)
    step = f"did you mean {near[0]!r}?" if near else "built-in recipes: " + ", ".join(known)
    raise RecipeError("no such recipe", where=path.name, next_step=step)


def _within(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise RecipeError("out of range", where=key, expected=f"{least:g} to {most:g}", got=f"{value:g}")
