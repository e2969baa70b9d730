"""A backbone on disk: `model.safetensors` and `config.json`, and back, strictly.

save_backbone(folder, backbone, name="vmamba_small")
backbone = read_backbone(folder)          # or a run's folder, or one of its checkpoints
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openus_model import __version__
from openus_model.backbones import build_backbone
from openus_model.checkpoint import FOLDER, METHOD, STATE, newest_sound
from openus_model.errors import WeightsError
from openus_model.pixels import MEAN, STD

MODEL, CONFIG = "model.safetensors", "config.json"
FORMAT = 1
TEACHER = "teacher.backbone."
"""Prefix of the tensors that a run hands on: the teacher, as in the paper."""


def save_backbone(
    folder: Path,
    backbone: nn.Module,
    *,
    overrides: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and config; each file whole or not at all.

    Args:
        folder: made if it is not there.
        backbone: of `build_backbone`.
        overrides: settings it was built with.
        about: further facts for config.json (where the weights are from).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.state_dict().items()}
    config = {
        "format": FORMAT,
        "backbone": backbone.name,
        "overrides": dict(overrides or {}),
        "embed_dim": backbone.embed_dim,
        "stride": backbone.stride,
        "input": {"mean": MEAN, "std": STD, "channels": 3},
        "openus_version": __version__,
        "weights_sha256": weights_sha256(backbone),
        **(about or {}),
    }
    aside = folder / f".{MODEL}.part"
    save_file(tensors, aside, metadata={"format": "pt"})
    aside.replace(folder / MODEL)
    text = json.dumps(config, indent=2, sort_keys=True)
    aside = folder / f".{CONFIG}.part"
    aside.write_text(f"{text}\n")
    aside.replace(folder / CONFIG)


def read_backbone(path: Path) -> Any:
    """The backbone of an exported folder, a run, or a checkpoint; in eval mode on the CPU.

    Raises:
        WeightsError: nothing there, torn, or a tensor is missing, left over or of another shape.
    """
    name, overrides, tensors = _find(Path(path))
    backbone = build_backbone(name, **overrides)
    _place(backbone, tensors, str(path))
    return backbone.eval()


def read_about(path: Path) -> dict[str, Any]:
    """config.json of an exported folder, or the state of a run's newest checkpoint."""
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


def _find(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    if (path / CONFIG).is_file():
        config = json.loads((path / CONFIG).read_text())
        if config.get("format") != FORMAT:
            raise WeightsError(
                "weights of another format", where=str(path), expected=str(FORMAT), got=str(config.get("format"))
            )
        return config["backbone"], dict(config["overrides"]), _read(path / MODEL)
    checkpoint = _checkpoint(path)
    recipe = json.loads((checkpoint / STATE).read_text())["recipe"]
    tensors = _read(checkpoint / METHOD)
    mine = {name.removeprefix(TEACHER): tensor for name, tensor in tensors.items() if name.startswith(TEACHER)}
    return recipe["backbone"]["name"], {}, mine


def _checkpoint(path: Path) -> Path:
    if (path / STATE).is_file():
        return path
    found = newest_sound(path) if (path / FOLDER).is_dir() else None
    if found is None:
        raise WeightsError("no weights here", where=str(path), expected=f"{CONFIG}, or a run with a sound checkpoint")
    return found


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError("the weights cannot be read", where=str(path), got=type(error).__name__) from error


def _place(backbone: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    wanted = backbone.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise WeightsError("a tensor is missing", where=f"{where}: {name}")
        if tensors[name].shape != tensor.shape:
            raise WeightsError(
                "a tensor has another shape",
                where=f"{where}: {name}",
                expected=str(tuple(tensor.shape)),
                got=str(tuple(tensors[name].shape)),
            )
    left = sorted(set(tensors) - set(wanted))
    if left:
        raise WeightsError(f"{len(left)} tensors are left over", where=where, got=left[0])
    backbone.load_state_dict(tensors)
