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
from openus_model.weights.files import check_fit, load_strictly, read_checkpoint, save_backbone

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
WRAPPERS = re.compile(r"^((module|_orig_mod|backbone)\.)+")
"""Prefixes of DistributedDataParallel, torch.compile and OpenUS's multi-crop wrapper."""
OTHER_PART = "another part of the checkpoint than {part}"
BESIDE = "not of the network: it lies in a container beside the network's tensors"


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
    chosen, named, unused = _choose(checkpoint, part, file.name)
    state = _with_plain_names(named, file.name)
    name, config = _recognise(state, file.name)
    with torch.device("meta"):  # shapes alone: a file that claims a monstrous size is refused before it is built
        wanted = _build(name, config).state_dict()
    placed, extras = _sort(state, wanted, unused, file.name)
    initial = tuple(key for key in wanted if key not in placed and re.search(MAY_BE_MISSING, key))
    check_fit(wanted, {**{key: wanted[key] for key in initial}, **placed}, where=file.name)
    backbone = _build(name, config)
    own = backbone.state_dict()
    load_strictly(backbone, {**{key: own[key] for key in initial}, **placed}, where=file.name)
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


def _sort(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unused: dict[str, str], where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(tensors for the backbone, extras beside it); what is neither goes to `unused` with the reason."""
    placed: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    for key, tensor in state.items():
        reason = next((why for pattern, why in UNUSED if re.search(pattern, key)), None)
        if key in wanted:
            placed[key] = _fit(tensor, wanted[key], f"{where}: {key}")
        elif reason is not None:
            unused[key] = reason
        elif any(re.search(pattern, key) for pattern in EXTRAS):
            extras[key] = tensor
        else:
            raise WeightsError("a tensor that no VMamba has", where=f"{where}: {key}", got=f"{tuple(tensor.shape)}")
    return placed, extras


def _choose(checkpoint: Any, part: Part | None, where: str) -> tuple[str, dict[str, Tensor], dict[str, str]]:
    """(the part taken, its tensors, the tensors of everything else with the reason)."""
    if not isinstance(checkpoint, Mapping):
        raise WeightsError("the checkpoint is no dictionary", where=where, got=type(checkpoint).__name__)
    here = [name for name in PARTS if isinstance(checkpoint.get(name), Mapping)]
    if part is not None and part not in here:
        raise WeightsError("the checkpoint has no such part", where=where, expected=" or ".join(here), got=part)
    chosen = (part or here[0]) if here else ""
    inside = checkpoint[chosen] if here else {key: value for key, value in checkpoint.items() if _is_tensor(value)}
    rest = {key: value for key, value in checkpoint.items() if key != chosen and (here or not _is_tensor(value))}
    reason = OTHER_PART.format(part=chosen) if here else BESIDE
    return chosen, dict(_tensors(inside)), {name: reason for name, _ in _tensors(rest)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


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


def _with_plain_names(named: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors by VMamba's present names, without the wrappers' prefixes."""
    state: dict[str, Tensor] = {}
    for name, tensor in named.items():
        plain = WRAPPERS.sub("", name)
        for pattern, replacement in RENAMES:
            plain = re.sub(pattern, replacement, plain)
        if plain in state:
            raise WeightsError("two tensors of the checkpoint have one name", where=f"{where}: {plain}", got=name)
        state[plain] = tensor
    return state


def _recognise(state: Mapping[str, Tensor], where: str) -> tuple[str, VMambaConfig]:
    """Which VMamba a state dict is, from its tensors' shapes; a size of one's own counts as the nearest kind."""
    blocks = {match.groups() for match in filter(None, map(LAYERS.match, state))}
    depths = [sum(stage == str(i) for stage, _ in blocks) for i in range(4)]
    try:
        dims = state["layers.0.blocks.0.norm.weight"].shape[0]
        ssm_ratio = state["layers.0.blocks.0.op.in_proj.weight"].shape[0] / dims
        states = state["layers.0.blocks.0.op.A_logs"].shape[1]
        mlp_ratio = state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / dims
    except (KeyError, IndexError, ZeroDivisionError) as error:
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


def _fit(tensor: Tensor, wanted: Tensor, where: str) -> Tensor:
    """A 1x1 convolution's weight (out, in, 1, 1) as a linear layer's (out, in); in float32."""
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        got = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
        raise WeightsError("a tensor holds no weights", where=where, expected="dense floating point", got=got)
    if tensor.ndim == 4 and wanted.ndim == 2 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    tensor = tensor.to(wanted.dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsError("a tensor holds NaN or infinity", where=where, next_step="take an earlier checkpoint")
    return tensor
