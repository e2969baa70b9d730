"""What a backbone is: parameters, multiply-adds, the shapes of its stages. Computed on shapes alone, in milliseconds.

    describe("vmamba_small").to_text()

Multiply-adds are those of one image: every convolution and matrix product as torch counts them, and for each scan what
VMamba's authors count, 9 L D N + L D (L positions, D channels, N states), so that the sum compares with their table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from openus_model.backbones import BACKBONE_NAMES, build_backbone
from openus_model.contracts import Features

IMAGE_PX = 224
SCAN_STEP_COST = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One backbone.

    Args:
        name: in `build_backbone`.
        parameters: learned values, the mask token with them.
        multiply_adds: of one image.
        image_px: side of that image.
        embed_dim: D of the tokens.
        tokens: of the last map.
        stages: (channels, height, width) of the four maps.
        config: the backbone's settings.
    """

    name: str
    parameters: int
    multiply_adds: int
    image_px: int
    embed_dim: int
    tokens: int
    stages: tuple[tuple[int, int, int], ...]
    config: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The description for machines."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """One line."""
        stages = ", ".join(f"{c}x{h}x{w}" for c, h, w in self.stages)
        return (
            f"{self.name:13} {self.parameters / 1e6:7.2f} M parameters  {self.multiply_adds / 1e9:6.2f} G multiply-adds"
            f" at {self.image_px} px  stages {stages}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeReport:
    """What the command `describe` answers: one backbone, or all."""

    backbones: tuple[Description, ...]
    asked_for_one: bool

    exit_code = 0

    def to_json(self) -> dict[str, Any]:
        """One backbone's description, or `{"backbones": [...]}`."""
        if self.asked_for_one:
            return self.backbones[0].to_json()
        return {"backbones": [description.to_json() for description in self.backbones]}

    def to_text(self) -> str:
        """A line per backbone."""
        return "\n".join(description.to_text() for description in self.backbones)


def describe(name: str | None = None, image_px: int = IMAGE_PX) -> DescribeReport:
    """Describe a backbone, or all of them.

    Args:
        name: one of `BACKBONE_NAMES`; None describes each.
        image_px: side of the image that multiply-adds and stages are for.

    Raises:
        UsageError: no such backbone.
    """
    names = BACKBONE_NAMES if name is None else (name,)
    return DescribeReport(
        backbones=tuple(_describe(one, image_px) for one in names), asked_for_one=name is not None
    )  # fmt: skip


def _describe(name: str, image_px: int) -> Description:
    with torch.device("meta"):
        backbone = build_backbone(name).eval()
        image_BCHW = torch.empty(1, backbone.in_channels, image_px, image_px)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features: Features = backbone(image_BCHW)
    scans = sum(length * d * (SCAN_STEP_COST * n + 1) for length, d, n in backbone.scans((image_px, image_px)))
    return Description(
        name=name,
        parameters=sum(p.numel() for p in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2 + scans,
        image_px=image_px,
        embed_dim=backbone.embed_dim,
        tokens=features.tokens_BND.shape[1],
        stages=tuple((stage.shape[1], stage.shape[2], stage.shape[3]) for stage in features.stages),
        config=dataclasses.asdict(backbone.config),
    )
