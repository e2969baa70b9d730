"""Tensors in and out of files without running a pickle, and the import of public checkpoints.

    report = import_weights("vssm_small_0229_ckpt_epoch_222.pth", "vmamba-small")
    backbone = read_backbone("vmamba-small")

`files` reads and writes, `public` knows the layouts of VMamba's and OpenUS's checkpoints.
"""

from __future__ import annotations

from openus_model.weights.files import CONFIG, EXTRAS, MODEL, read_backbone, read_checkpoint, save_backbone
from openus_model.weights.public import ImportReport, import_weights

__all__ = [
    "CONFIG",
    "EXTRAS",
    "MODEL",
    "ImportReport",
    "import_weights",
    "read_backbone",
    "read_checkpoint",
    "save_backbone",
]
