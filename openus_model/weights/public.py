"""The import of public checkpoints: VMamba's ImageNet classifiers, and OpenUS's student and teacher.

Every tensor of the file ends in one of four lists: placed in the backbone, kept as an extra (decoder, projection head),
unused with the reason, or, where nobody knows it, an error. What the file lacks is named too: an ImageNet classifier
has no output norms and no mask token, and these keep their initial values, as they do in OpenUS's own start.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openus_model.backbones import BACKBONES, build_backbone
from openus_model.backbones.vmamba import VMambaConfig
from openus_model.errors import WeightsError
from openus_model.weights.files import load_strictly, read_checkpoint, save_backbone

Part = Literal["teacher", "student", "model"]
PARTS: tuple[Part, ...] = ("teacher", "student", "model")
"""Where a checkpoint keeps a network, the preferred one first; `model` is VMamba's name for its classifier."""

RENAMES = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.(weight|bias)$", "classifier.head.\\1"),
)
"""Names of older VMamba files."""

UNUSED = (
    (r"^classifier\.", "the ImageNet classifier: another task's"),
    (r"^decoder2\.", "OpenUS's second decoder, which its method never runs"),
    (r"^ema_(loss_map|initialized)$", "OpenUS's running loss map: the state of one training process"),
)
EXTRAS = (r"^decoder\.", r"^head\.(mlp|last_layer2?)\.")
MAY_BE_MISSING = r"^(outnorm[0-3]\.|masked_embed$)"
LAYERS = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")
OTHER_PART = "another part of the checkpoint than {part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a checkpoint's tensors.

    Args:
        file: the file's name.
        part: the part of it that was taken: teacher, student, model, or empty for a bare state dict.
        backbone: name in `build_backbone`.
        placed: tensors now in the backbone, by their names there.
        extras: tensors kept beside it (decoder, projection head).
        unused: tensor and why it was left out.
        initial: the backbone's tensors that the file lacks; they keep their initial values.
        parameters: of the backbone.
    """

    file: str
    part: str
    backbone: str
    placed: tuple[str, ...]
    extras: tuple[str, ...]
    unused: Mapping[str, str]
    initial: tuple[str, ...]
    parameters: int

    exit_code = 0

    def to_json(self) -> dict[str, Any]:
        """The report for machines, every tensor by name."""
        return {
            "file": self.file,
            "part": self.part,
            "backbone": self.backbone,
            "parameters": self.parameters,
            "placed": list(self.placed),
            "extras": list(self.extras),
            "unused": dict(self.unused),
            "initial": list(self.initial),
        }

    def to_text(self) -> str:
        """The report for people: counts, and the reasons."""
        taken = f" ({self.part})" if self.part else ""
        lines = [
            f"{self.file}{taken}: {self.backbone}, {self.parameters:,} parameters",
            f"{len(self.placed):6} tensors placed in the backbone",
        ]
        if self.extras:
            lines.append(f"{len(self.extras):6} kept beside it: decoder and projection head")
        lines += [f"{count:6} unused: {reason}" for reason, count in Counter(self.unused.values()).most_common()]
        if self.initial:
            lines.append(f"{len(self.initial):6} not in the file, at their initial values: {', '.join(self.initial)}")
        return "\n".join(lines)


def import_weights(file: str | Path, out: str | Path, part: Part | None = None) -> ImportReport:
    """Take a public checkpoint over into a folder that `load_backbone` reads.

    Args:
        file: a `.pth` or `.safetensors` file of VMamba or OpenUS.
        out: the folder to make.
        part: which network of an OpenUS checkpoint; by default the teacher.

    Raises:
        UsageError: no such file.
        WeightsError: it cannot be read safely, is no VMamba, or a tensor is missing, unknown or of another shape.
    """
    file = Path(file)
    checkpoint = read_checkpoint(file)
    chosen, state, unused = _choose(checkpoint, part, file.name)
    state = {_plain_name(name): tensor for name, tensor in state.items()}
    name, config = _recognise(state, file.name)
    backbone = _build(name, config)
    wanted = backbone.state_dict()
    placed: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    for key, tensor in state.items():
        reason = next((why for pattern, why in UNUSED if re.search(pattern, key)), None)
        if key in wanted:
            placed[key] = _fit(tensor, wanted[key])
        elif reason is not None:
            unused[key] = reason
        elif any(re.search(pattern, key) for pattern in EXTRAS):
            extras[key] = tensor
        else:
            raise WeightsError("a tensor that no VMamba has", where=f"{file.name}: {key}", got=f"{tuple(tensor.shape)}")
    initial = tuple(key for key in wanted if key not in placed and re.search(MAY_BE_MISSING, key))
    load_strictly(backbone, {**{key: wanted[key] for key in initial}, **placed}, where=file.name)
    save_backbone(out, backbone, facts={"imported_from": file.name, "part": chosen}, extras=extras)
    return ImportReport(
        file=file.name,
        part=chosen,
        backbone=name,
        placed=tuple(sorted(placed)),
        extras=tuple(sorted(extras)),
        unused=dict(sorted(unused.items())),
        initial=tuple(sorted(initial)),
        parameters=sum(p.numel() for p in backbone.parameters()),
    )


def _choose(checkpoint: Any, part: Part | None, where: str) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """(the part taken, its tensors, the tensors of everything else with the reason)."""
    if not isinstance(checkpoint, Mapping):
        raise WeightsError("the checkpoint is no dictionary", where=where, got=type(checkpoint).__name__)
    here = [name for name in PARTS if isinstance(checkpoint.get(name), Mapping)]
    if part is not None and part not in here:
        raise WeightsError("the checkpoint has no such part", where=where, expected=" or ".join(here), got=part)
    if not here:
        flat = {str(name): value for name, value in checkpoint.items() if isinstance(value, Tensor)}
        return "", flat, {}
    chosen = part or here[0]
    state = {str(name): value for name, value in checkpoint[chosen].items() if isinstance(value, Tensor)}
    rest = {key: value for key, value in checkpoint.items() if key != chosen}
    reason = OTHER_PART.format(part=chosen)
    return chosen, state, {name: reason for name, _ in _tensors(rest)}


def _tensors(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, by the path to it."""
    if isinstance(value, Tensor):
        yield ".".join(path), value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _tensors(inner, (*path, str(i)))


def _plain_name(name: str) -> str:
    """A tensor's name without the wrappers' prefixes, and by VMamba's present naming."""
    for prefix in ("module.", "backbone."):
        name = name.removeprefix(prefix)
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _recognise(state: Mapping[str, Tensor], where: str) -> tuple[str, VMambaConfig]:
    """Which VMamba a state dict is, from its tensors' shapes; a size of one's own counts as the nearest kind."""
    depths = [0, 0, 0, 0]
    for match in filter(None, map(LAYERS.match, state)):
        stage, block = int(match[1]), int(match[2])
        if stage < len(depths):
            depths[stage] = max(depths[stage], block + 1)
    try:
        dims = state["layers.0.blocks.0.norm.weight"].shape[0]
        ssm_ratio = state["layers.0.blocks.0.op.in_proj.weight"].shape[0] / dims
        states = state["layers.0.blocks.0.op.A_logs"].shape[1]
        mlp_ratio = state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / dims
    except (KeyError, IndexError) as error:
        raise WeightsError("the checkpoint holds no VMamba", where=where, expected=str(error)) from None
    found = VMambaConfig(
        depths=(depths[0], depths[1], depths[2], depths[3]),
        dims=dims,
        ssm_ratio=ssm_ratio,
        ssm_d_state=states,
        mlp_ratio=mlp_ratio,
    )
    for name, (_, config) in BACKBONES.items():
        if isinstance(config, VMambaConfig) and dataclasses.replace(found, drop_path=config.drop_path) == config:
            return name, config
    return "vmamba_small", found


def _build(name: str, config: VMambaConfig) -> nn.Module:
    """The backbone with initial values that do not depend on the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone: nn.Module = build_backbone(name, **dataclasses.asdict(config))
    return backbone


def _fit(tensor: Tensor, wanted: Tensor) -> Tensor:
    """A 1x1 convolution's weight (out, in, 1, 1) as a linear layer's (out, in); in float32."""
    if tensor.ndim == 4 and wanted.ndim == 2 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor.to(wanted.dtype)
