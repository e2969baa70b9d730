"""Backbones by name. To add one: a file beside this one, and one line in `BACKBONES`.

    backbone = build_backbone("vmamba_small", drop_path=0.3)
    features = backbone(image_BCHW)

`tests/model/test_backbones.py` holds every line of the table to the promises of `openus_model.contracts.Backbone`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from openus_model.backbones.vim import Vim, VimConfig
from openus_model.backbones.vmamba import VMamba, VMambaConfig
from openus_model.errors import UsageError

BACKBONES: Mapping[str, tuple[Callable[[str, Any], nn.Module], Any]] = MappingProxyType(
    {
        "vmamba_nano": (VMamba, VMambaConfig(depths=(1, 1, 1, 2), dims=16)),
        "vmamba_tiny": (VMamba, VMambaConfig(depths=(2, 2, 8, 2), dims=96, ssm_ratio=1.0, drop_path=0.2)),
        "vmamba_small": (VMamba, VMambaConfig(depths=(2, 2, 15, 2), dims=96, drop_path=0.3)),
        "vmamba_base": (VMamba, VMambaConfig(depths=(2, 2, 15, 2), dims=128, drop_path=0.6)),
        "vim_small": (Vim, VimConfig(depth=24, dims=384, drop_path=0.05)),
    }
)
BACKBONE_NAMES: tuple[str, ...] = tuple(BACKBONES)


def build_backbone(name: str, **overrides: Any) -> Any:
    """A freshly initialised backbone, in training mode on the CPU.

    Args:
        name: one of `BACKBONE_NAMES`.
        overrides: fields of its configuration, such as `drop_path`, `depths` or `gradient_checkpointing`.

    Returns:
        an `nn.Module` that is a `Backbone`.

    Raises:
        UsageError: no such backbone or field.
    """
    if name not in BACKBONES:
        raise UsageError(
            "no such backbone", expected=", ".join(BACKBONE_NAMES), got=name, next_step=_nearest(name, BACKBONE_NAMES)
        )
    build, config = BACKBONES[name]
    known = tuple(field.name for field in dataclasses.fields(config))
    for key in overrides:
        if key not in known:
            raise UsageError(
                "no such setting of a backbone",
                where=name,
                expected=", ".join(known),
                got=key,
                next_step=_nearest(key, known),
            )
    overrides = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    return build(name, dataclasses.replace(config, **overrides))


def _nearest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


__all__ = ["BACKBONES", "BACKBONE_NAMES", "build_backbone"]
