"""The command `masks`: the paper's figure for a user's own images.

draw_masks(Path("run"), Path("scans"), Path("masks.png"))

A row per image: input, where the teacher looks, how hard each cell is for the student to redraw, the mask that follows
from both, and what the student makes of the hidden part. Difficulty is measured by hiding one half of the cells and
then the other; score, budget and random fill are those of the run's recipe at the step it has reached.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from openus_model.backbones import build_backbone
from openus_model.checkpoint import FOLDER, STATE, load_checkpoint, newest_sound
from openus_model.errors import DataError, WeightsError
from openus_model.figures import draw_step, write_figure
from openus_model.heads import PixelDecoder
from openus_model.losses.reconstruction import cell_errors
from openus_model.masking import choose, join_scores, normalise, uniform_noise
from openus_model.pictures import decode_picture, find_pictures
from openus_model.pixels import normalise as normalise_pixels
from openus_model.pixels import pixels_of, resize
from openus_model.saved import read_backbone
from openus_model.schedules import over_run

MOST: Final = 8
"""Images of a figure."""
SHOWN_PX: Final = 192
"""Least side of a picture in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasksReport:
    """What was drawn.

    Args:
        path: the picture.
        images: rows in it, at most eight: the first readable ones by name.
        unreadable: files before them that are no pictures.
        hidden_share: mean share of cells that are hidden.
    """

    path: Path
    images: int
    unreadable: int
    hidden_share: float

    @property
    def exit_code(self) -> int:
        """1 when a file could not be read."""
        return 1 if self.unreadable else 0

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "file": str(self.path),
            "images": self.images,
            "unreadable": self.unreadable,
            "hidden_share": round(self.hidden_share, 4),
        }

    def to_text(self) -> str:
        """One line."""
        bad = f", {self.unreadable} files are no pictures" if self.unreadable else ""
        return f"{self.path}: {self.images} images, {self.hidden_share:.0%} of the cells hidden{bad}"


def draw_masks(weights: Path, images: Path, out: Path) -> MasksReport:
    """Draw the figure.

    Args:
        weights: a run or one of its checkpoints: the student's decoder is needed, which exports leave out.
        images: a folder of pictures.
        out: FILE.png.

    Raises:
        WeightsError: not a run, or torn.
        DataError: no picture in the folder.
    """
    teacher, student = read_backbone(weights), _read_student(weights)
    recipe, progress = student.recipe, student.progress
    pictures, bad = _read_pictures(images, recipe["views"]["global_size"])
    image_NCHW = normalise_pixels(pictures)
    with torch.inference_mode():
        maps = _maps(teacher, student, image_NCHW, recipe, progress)
    write_figure(out, draw_step(_enlarged(maps)))
    hidden = float(maps["mask"].mean())
    return MasksReport(path=out, images=len(pictures), unreadable=bad, hidden_share=hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Student:
    """The part of a run that draws pixels, with its recipe and how much of the run is done (0 to 1)."""

    backbone: Any
    decoder: nn.Module
    recipe: dict[str, Any]
    progress: float

    def redraw(self, image_NCHW: Tensor, mask_NHW: Tensor) -> Tensor:
        """Pixels of masked images."""
        drawn_NCHW: Tensor = self.decoder(self.backbone(image_NCHW, mask_NHW).stages[-1])
        return drawn_NCHW


def _read_student(weights: Path) -> _Student:
    folder = weights if (weights / STATE).is_file() else newest_sound(weights) if (weights / FOLDER).is_dir() else None
    if folder is None:
        raise WeightsError(
            "no run here: difficulty needs the student and its decoder", where=weights.name,
            expected="a run's folder or one of its checkpoints", got="weights that were exported or imported",
        )  # fmt: skip
    saved = load_checkpoint(folder)
    recipe = dict(saved.state["recipe"])
    backbone = build_backbone(recipe["backbone"]["name"])
    decoder = PixelDecoder(backbone.embed_dim, stride=backbone.stride, channels=backbone.in_channels)
    for prefix, module in (("student.backbone.", backbone), ("student.decoder.", decoder)):
        mine = {k.removeprefix(prefix): v for k, v in saved.method.items() if k.startswith(prefix)}
        try:
            module.load_state_dict(mine)
        except RuntimeError as error:
            raise WeightsError("the student's tensors do not fit", where=prefix) from error
    total = _total_steps(folder, recipe)
    progress = min(1.0, saved.step / total) if total else 1.0
    return _Student(backbone=backbone.eval(), decoder=decoder.eval(), recipe=recipe, progress=progress)


def _total_steps(folder: Path, recipe: dict[str, Any]) -> int | None:
    """Of the run, where its recipe or stream says."""
    schedule = recipe["schedule"]
    if schedule.get("steps"):
        return int(schedule["steps"])
    stream = json.loads((folder / STATE).read_text()).get("stream", {})
    samples = stream.get("samples")
    return (
        None if not samples else max(1, round(schedule["epochs"] * max(1, samples // recipe["engine"]["batch_size"])))
    )


def _read_pictures(folder: Path, size_px: int) -> tuple[Tensor, int]:
    found, bad = [], 0
    for path in find_pictures(folder):
        image = decode_picture(path.read_bytes())
        if image is None:
            bad += 1
            continue
        found.append(resize(image, size_px))
        if len(found) == MOST:
            break
    if not found:
        raise DataError("no file in the folder can be read", where="--images", got=f"{bad} that are no pictures")
    return torch.stack(found), bad


def _maps(
    teacher: Any, student: _Student, image_NCHW: Tensor, recipe: dict[str, Any], progress: float
) -> dict[str, Tensor]:
    """The columns of the figure, see `figures.draw_step`."""
    masking = recipe["masking"]
    epochs = recipe["schedule"]["epochs"]
    features, attention_NLL = teacher.attend(image_NCHW)
    attention_NL = attention_NLL.float().mean(1)
    difficulty_NL = _difficulty(student, image_NCHW, features.grid)
    known_N = torch.ones(len(image_NCHW), dtype=torch.bool)
    epoch = progress * epochs
    alpha = over_run(
        epoch, start=masking["alpha_start"], end=masking["alpha_end"], epochs=epochs, shape=masking["alpha_shape"]
    )
    chosen = over_run(epoch, start=masking["chosen_start"], end=masking["chosen_end"], epochs=epochs, shape="linear")
    score_NL = join_scores(attention_NL, difficulty_NL, known_N, alpha=alpha, rule=masking["rule"])
    noise_NL = uniform_noise(torch.arange(len(image_NCHW)), score_NL.shape[1], seed=0, step=0, view=0)
    mask_NL = choose(score_NL, noise_NL, ratio=masking["ratio"], chosen_share=chosen, rule=masking["rule"]).mask_BN
    mask_NHW = mask_NL.view(-1, *features.grid)
    return {
        "image": pixels_of(image_NCHW).float() / 255,
        "attention": normalise(attention_NL).view(-1, *features.grid),
        "difficulty": normalise(difficulty_NL).view(-1, *features.grid),
        "mask": mask_NHW.float(),
        "reconstruction": pixels_of(student.redraw(image_NCHW, mask_NHW)).float() / 255,
    }


def _enlarged(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pictures of a run with small views, as large as an eye needs them; whole pixels stay whole."""
    times = -(-SHOWN_PX // maps["image"].shape[-1])
    for name in ("image", "reconstruction"):
        maps[name] = maps[name].repeat_interleave(times, -1).repeat_interleave(times, -2)
    return maps


def _difficulty(student: _Student, image_NCHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Error of each cell when it is among a random half that is hidden."""
    cells = grid[0] * grid[1]
    noise_NL = uniform_noise(torch.arange(len(image_NCHW)), cells, seed=0, step=0, view=1)
    half_NL = noise_NL.argsort(1).argsort(1) < (cells + 1) // 2
    half_NHW = half_NL.view(-1, *grid)
    stride = student.backbone.stride
    first_NHW, second_NHW = (
        cell_errors(student.redraw(image_NCHW, mask_NHW), image_NCHW, stride) for mask_NHW in (half_NHW, ~half_NHW)
    )
    return torch.where(half_NHW, first_NHW, second_NHW).flatten(1)
