"""Weights wherever they lie: an exported or imported folder, a run, or one of its checkpoints.

backbone = read_backbone(Path("run"))
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from openus_model.backbones import build_backbone
from openus_model.checkpoint import FOLDER, METHOD, STATE, newest_sound
from openus_model.errors import WeightsError
from openus_model.weights import CONFIG, save_backbone
from openus_model.weights import read_backbone as read_folder
from openus_model.weights.files import load_strictly

__all__ = ["read_about", "read_backbone", "save_backbone", "weights_sha256"]

TEACHER = "teacher.backbone."
"""Prefix of the tensors that a run hands on: the teacher, as in the paper."""


def read_backbone(path: Path) -> Any:
    """The backbone of a folder, a run, or a checkpoint; in eval mode on the CPU.

    Raises:
        WeightsError: nothing there, torn, or a tensor is missing, left over or of another shape.
    """
    if (path / CONFIG).is_file():
        return read_folder(path).eval()
    checkpoint = _checkpoint(path)
    recipe = json.loads((checkpoint / STATE).read_text())["recipe"]
    backbone = build_backbone(recipe["backbone"]["name"])
    tensors = _read(checkpoint / METHOD)
    mine = {name.removeprefix(TEACHER): tensor for name, tensor in tensors.items() if name.startswith(TEACHER)}
    load_strictly(backbone, mine, where=path.name)
    return backbone.eval()


def read_about(path: Path) -> dict[str, Any]:
    """config.json of a folder, or the state of a run's newest checkpoint."""
    if (path / CONFIG).is_file():
        return dict(json.loads((path / CONFIG).read_text()))
    return dict(json.loads((_checkpoint(path) / STATE).read_text()))


def weights_sha256(backbone: nn.Module) -> str:
    """SHA-256 over names, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checkpoint(path: Path) -> Path:
    if (path / STATE).is_file():
        return path
    found = newest_sound(path) if (path / FOLDER).is_dir() else None
    if found is None:
        raise WeightsError("no weights here", where=path.name, expected=f"{CONFIG}, or a run with a sound checkpoint")
    return found


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError("the weights cannot be read", where=path.name, got=type(error).__name__) from error
