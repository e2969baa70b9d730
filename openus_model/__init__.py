"""openus_model: pretrain, evaluate, embed and export vision-Mamba backbones on shards that openus_data built.

Importing the package does not import torch. Start at `openus_model.method`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from openus_model.contracts import Backbone

__version__ = "0.1.0"


def load_backbone(path: str | Path) -> Backbone:
    """Read a backbone that `openus-model export`, `import-weights` or a run's checkpoint wrote; in eval mode, on CPU.

    Args:
        path: a folder with `model.safetensors` and `config.json`, or a run's folder.

    Raises:
        WeightsError: a tensor is missing, left over or of another shape.
    """
    from pathlib import Path

    from openus_model.saved import read_backbone

    backbone: Backbone = read_backbone(Path(path))
    return backbone
