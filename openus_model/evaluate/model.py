"""Which model is evaluated: our weights, random weights, or any model behind a five-line adapter."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from openus_model.backbones import build_backbone
from openus_model.errors import UsageError
from openus_model.hub import SCHEME, locate
from openus_model.saved import read_backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model under test.

    Args:
        name: as the report shows it.
        backbone: keeps the promises of `contracts.Backbone`; for kNN and linear `pooled_BD` and `embed_dim` do.
        folder: where its weights lie, for the question of contamination; None where nobody can say.
        is_own: whether its weights fix what it computes; the code of an adapter may change under them.
    """

    name: str
    backbone: Any
    folder: Path | None
    is_own: bool = True


def load_model(weights: str, seed: int) -> Model:
    """A run or an exported folder, `hf:owner/name`, `random:NAME` (untrained), `adapter:MODULE:NAME` (any other model).

    An adapter is a callable without arguments that returns a module with `embed_dim` and a forward pass from normalised
    B3HW images to `Features` (docs/how-to/evaluate.md).

    Raises:
        UsageError: no such backbone, module or name.
        WeightsError: the weights cannot be read.
    """
    kind, _, rest = weights.partition(":")
    if kind == "random" and rest:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Model(name=weights, backbone=build_backbone(rest).eval(), folder=None)
    if kind == "adapter" and rest:
        module, _, name = rest.partition(":")
        return Model(name=weights, backbone=_adapter(module, name), folder=None, is_own=False)
    path = locate(weights)
    name = weights if weights.startswith(SCHEME) else path.resolve().name
    return Model(name=name, backbone=read_backbone(path), folder=path)


def _adapter(module: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # an adapter is a file of the user's own, where the command is run
    name = name or "build"
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError("no such adapter", where="--weights", got=f"{module}:{name}: {error}") from None
    except Exception as error:  # the user's own code
        raise _failed(module, error) from error
    finally:
        sys.path.pop(0)
    try:
        return build().eval()
    except Exception as error:  # the user's own code
        raise _failed(f"{module}:{name}", error) from error


def _failed(where: str, error: Exception) -> UsageError:
    return UsageError("the adapter failed", where=where, got=f"{type(error).__name__}: {error}")
