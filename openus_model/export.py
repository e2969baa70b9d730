"""The command `export`: weights as a folder that one can hand on.

    export(Path("run"), Path("openus-small"), onnx_size=224)

    FOLDER/model.safetensors, config.json   what `openus_model.load_backbone` reads
           README.md                        a model card: what it saw, under which licences, how it scores, its limits
           seen.parquet                     pseudonyms and hashes of what it saw, so that contamination can be refused
           model-224.onnx                   on request: one input size, checked against torch

The teacher of a run is exported, as in the paper.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openus_model import __version__
from openus_model.hub import check as check_repository
from openus_model.hub import push as push_folder
from openus_model.model_card import CARD, find_scores, write_card
from openus_model.onnx_export import write_onnx
from openus_model.saved import read_about, read_backbone, save_backbone, weights_sha256
from openus_model.seen import SEEN, find_seen, read_seen

OWN = ("format", "backbone", "config", "embed_dim", "stride", "in_channels")
"""Keys of config.json that describe the network; the others are facts about the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written.

    Args:
        folder: where.
        files: names in it.
        weights_sha256: of the tensors.
        seen_images: images that the weights were trained on; None where they do not say.
        onnx_error: largest difference to torch, over what is larger, 1 or the largest value; None without ONNX.
        pushed: address of the repository; None where it was not asked for.
    """

    folder: Path
    files: tuple[str, ...]
    weights_sha256: str
    seen_images: int | None
    onnx_error: float | None
    pushed: str | None
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "weights_sha256": self.weights_sha256,
            "seen_images": self.seen_images,
            "onnx_error": self.onnx_error,
            "pushed": self.pushed,
        }

    def to_text(self) -> str:
        """A few lines."""
        lines = [f"{self.folder}: {', '.join(self.files)}"]
        if self.seen_images is None:
            lines.append("note: these weights do not say what they were trained on; the card says so too")
        if self.onnx_error is not None:
            lines.append(f"ONNX agrees with torch to {self.onnx_error:.1e}")
        if self.pushed:
            lines.append(f"pushed to {self.pushed}")
        return "\n".join(lines)


def export(weights: Path, out: Path, *, onnx_size: int | None = None, push: str | None = None) -> ExportReport:
    """Write weights as safetensors with config and model card.

    Args:
        weights: a run, a checkpoint, or a folder that export or import-weights made.
        out: folder, made if it is not there.
        onnx_size: also write ONNX for square inputs of this many pixels.
        push: also upload the folder to this Hugging Face repository (`owner/name`).

    Raises:
        WeightsError: the weights cannot be read, or their ONNX form computes something else.
        MissingExtra: what ONNX or the upload needs is not installed.
        UsageError: a size or a repository's name that cannot be; nothing is uploaded then.
    """
    if push:
        check_repository(push)
    backbone = read_backbone(weights)
    facts = {
        **_facts(read_about(weights)),
        "openus_version": __version__,
        "weights_sha256": weights_sha256(backbone),
    }
    save_backbone(out, backbone, facts=facts)
    _carry_seen(weights, out)
    onnx_error = write_onnx(backbone, out, onnx_size) if onnx_size is not None else None
    seen = read_seen(out)
    write_card(out, backbone, facts, seen, find_scores(weights, facts["weights_sha256"]))
    pushed = push_folder(out, push) if push else None
    return ExportReport(
        folder=out,
        files=tuple(sorted(p.name for p in out.iterdir() if p.is_file() and not p.name.startswith("."))),
        weights_sha256=facts["weights_sha256"],
        seen_images=None if seen is None else seen.num_rows,
        onnx_error=onnx_error,
        pushed=pushed,
    )


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    """Where the weights come from: of a run, its recipe and step; of a folder, whatever its config says of them."""
    if "backbone" not in about:
        recipe = about["recipe"]
        return {
            "source": "openus-model pretrain",
            "recipe": {k: v for k, v in recipe.items() if k != "engine"},
            "recipe_sha256": about.get("recipe_sha256"),
            "step": about["step"],
            "trained_with": about.get("versions", {}),
            "manifest_sha256": about.get("stream", {}).get("manifest_sha256"),
        }
    return {k: v for k, v in about.items() if k not in OWN}


def _carry_seen(weights: Path, out: Path) -> None:
    found = find_seen(weights)
    if found is None:
        (out / SEEN).unlink(missing_ok=True)  # an older export's answer would be a lie
    elif found.resolve() != (out / SEEN).resolve():
        shutil.copyfile(found, out / f".{SEEN}.part")
        (out / f".{SEEN}.part").replace(out / SEEN)


__all__ = ["CARD", "ExportReport", "export"]
