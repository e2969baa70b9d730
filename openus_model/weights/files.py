"""Checkpoints as files: safetensors both ways, `.pth` inwards only and without running what it holds.

    FOLDER/model.safetensors    the backbone's tensors
           config.json          its name, configuration and where it came from
           extras.safetensors   what stands on the backbone (decoder, projection head), where there is any

A `.pth` is a pickle, which can run code when it is read. Torch's weights-only reader builds tensors and plain
containers and nothing else; the few other classes that public checkpoints carry beside their tensors (an
`argparse.Namespace`, a yacs configuration) are named here and become inert; a file that wants more is refused.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openus_model.backbones import build_backbone
from openus_model.errors import UsageError, WeightsError

MODEL, CONFIG, EXTRAS = "model.safetensors", "config.json", "extras.safetensors"
FORMAT = 1


class _Inert:
    """Stands for a class that a checkpoint names and nobody needs: takes anything, keeps and does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Takes what the real class would."""

    def __setstate__(self, state: object) -> None:
        """Takes what the real class would."""


class _InertDict(_Inert):
    """Likewise for a subclass of dict: torch fills plain dictionaries only, so it becomes one."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[str, Any]:  # type: ignore[misc]
        return OrderedDict()


INERT_DICTS = ("yacs.config.CfgNode", "addict.addict.Dict", "easydict.EasyDict")
INERT_CLASSES = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
)
"""Classes that may stand in a checkpoint beside its tensors; they are read as nothing."""


def read_checkpoint(path: str | Path) -> Any:
    """What a `.pth` or `.safetensors` file holds, on the CPU; a pickle is never run.

    Returns:
        the nested containers of a `.pth`, or the flat tensors of a safetensors file.

    Raises:
        UsageError: there is no such file.
        WeightsError: it is torn, no checkpoint, or names a class that weights do not need.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("no such file", where=path.name, expected="a checkpoint (.pth, .pt or .safetensors)")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    stand_ins: list[Any] = [(type(name, (_Inert,), {}), name) for name in INERT_CLASSES]
    stand_ins += [(type(name, (_InertDict,), {}), name) for name in INERT_DICTS]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on the pickle's protocol; what fails is said below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the checkpoint holds more than weights, and what it holds is not run",
            where=path.name,
            got=_refused_name(error),
            next_step="save its state dict alone, as safetensors, where you trust the file",
        ) from None
    except Exception as error:  # on a torn file torch's readers raise whatever they stumble over, assertions too
        raise WeightsError(
            "the checkpoint cannot be read: torn, or none", where=path.name, got=type(error).__name__,
            next_step="fetch it again and compare its checksum",
        ) from error  # fmt: skip


def _refused_name(error: Exception) -> str:
    """The class that the reader refused, out of torch's long message."""
    found = re.search(r"GLOBAL `?([\w.]+[\w])", str(error))
    return found[1] if found else "an instruction that the weights-only reader does not know"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            "the safetensors file cannot be read: torn, or none", where=path.name, got=type(error).__name__
        ) from error
    return tensors


def save_backbone(
    folder: str | Path,
    backbone: nn.Module,
    *,
    facts: Mapping[str, Any] | None = None,
    extras: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a backbone so that `read_backbone` gives it back; each file whole or not at all, the configuration last.

    Args:
        folder: made where it is not there.
        backbone: one that `build_backbone` made.
        facts: what else the configuration is to say: where the weights come from.
        extras: tensors that stand on the backbone, by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described: Any = backbone
    _save_tensors(folder / MODEL, backbone.state_dict())
    if extras:
        _save_tensors(folder / EXTRAS, extras)
    config = {
        "format": FORMAT,
        "backbone": described.name,
        "config": dataclasses.asdict(described.config),
        "embed_dim": described.embed_dim,
        "stride": described.stride,
        "in_channels": described.in_channels,
        **(facts or {}),
    }
    _write(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def read_backbone(folder: str | Path) -> nn.Module:
    """The backbone of a folder that `save_backbone` wrote, in eval mode, on the CPU.

    Raises:
        UsageError: the folder holds no backbone.
        WeightsError: a tensor is missing, left over or of another shape, or a file is torn.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        backbone: nn.Module = build_backbone(config["backbone"], **config["config"])
    except (KeyError, TypeError, UsageError) as error:
        raise WeightsError("the configuration names no backbone", where=CONFIG, got=str(error)) from error
    load_strictly(backbone, _read_safetensors(folder / MODEL), where=MODEL)
    return backbone.eval()


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a module, all of them and no others.

    Raises:
        WeightsError: the first tensor, in the order of names, that is missing, left over or of another shape.
    """
    check_fit(module.state_dict(), tensors, where=where)
    module.load_state_dict(dict(tensors))


def check_fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Compare names and shapes with those of a state dict.

    Raises:
        WeightsError: the first tensor, in the order of names, that is missing, left over or of another shape.
    """
    for name in sorted(wanted.keys() | tensors.keys()):
        got = tuple(tensors[name].shape) if name in tensors else "nothing"
        expected = tuple(wanted[name].shape) if name in wanted else "no such tensor"
        if got != expected:
            raise WeightsError("a tensor does not fit", where=f"{where}: {name}", expected=f"{expected}", got=f"{got}")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise UsageError(
            "no backbone in this folder", where=folder.name, expected=f"{MODEL} and {CONFIG}",
            next_step="make it with openus-model export or import-weights",
        ) from None  # fmt: skip
    except ValueError as error:
        raise WeightsError("the configuration is no JSON", where=CONFIG) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise WeightsError(
            "a configuration of another format", where=CONFIG, expected=f"format {FORMAT}",
            next_step="read it with the version of openus that wrote it",
        )  # fmt: skip
    return config


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    part = path.with_name(path.name + ".part")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, part)
    part.replace(path)


def _write(path: Path, text: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(text)
    part.replace(path)
