"""What two modules of openus_model share: Features, Batch, Losses, and the promises of a backbone and a method.

Axes, everywhere: B batch, V views of one image, C channels, H and W grid or image, N tokens in raster order,
D features, L positions of a sequence, K scan directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a backbone says of images.

    Args:
        stages: four maps BCHW after their output norms, coarser from one to the next.
        tokens_BND: the last map as tokens in raster order.
        pooled_BD: mean of the tokens; stands for the image (OpenUS's [CLS]).
        grid: (rows, columns) of the last map; N = rows * columns.
    """

    stages: tuple[Tensor, ...]
    tokens_BND: Tensor
    pooled_BD: Tensor
    grid: tuple[int, int]


class Backbone(Protocol):
    """A network from images to Features; an `nn.Module`.

    Attributes:
        name: as in `build_backbone`.
        embed_dim: D of the tokens.
        stride: pixels of the image per cell of the last map, and per cell of a mask (32).
        in_channels: channels the network takes (3); one-channel images are repeated by the caller's normalisation.
    """

    name: str
    embed_dim: int
    stride: int
    in_channels: int

    def __call__(self, image_BCHW: Tensor, mask_BHW: Tensor | None = None) -> Features:
        """Args: image, normalised, any size; mask, bool, a cell per `stride` px, True = the mask token."""
        ...

    def attend(
        self, image_BCHW: Tensor, mask_BHW: Tensor | None = None, *, stage: int = 3, block: int = -1
    ) -> tuple[Features, Tensor]:
        """Features, and the attention map (B, L, L) of one block: rows are queries, values in [0, 1] per image."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Views of B images, as workers hand them over: uint8, one channel where every image is grey, not normalised.

    Args:
        global_BVCHW: large views, uint8.
        local_BVCHW: small views, uint8; V may be 0.
        global_valid_BVHW: float in [0, 1], share of each mask cell (32 px) that lies inside the scan area.
        local_valid_BVHW: likewise for the small views.
        sample_ids: B keys of the manifest.
        global_box_BV4: where each large view lies in its image, (x0, y0, x1, y1) as shares of width and height; x0 and
            x1 are swapped in a view that was flipped.
        sample_index_B: int64, the rows of the filtered manifest, for state kept per image.
        row_B: the manifest rows' facts that balance or break down results (dataset, organ, device), as strings.
    """

    global_BVCHW: Tensor
    local_BVCHW: Tensor
    global_valid_BVHW: Tensor
    local_valid_BVHW: Tensor
    sample_ids: tuple[str, ...]
    sample_index_B: Tensor
    row_B: tuple[Mapping[str, str | None], ...] = ()
    global_box_BV4: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            global_BVCHW=self.global_BVCHW.to(device, non_blocking=True),
            local_BVCHW=self.local_BVCHW.to(device, non_blocking=True),
            global_valid_BVHW=self.global_valid_BVHW.to(device, non_blocking=True),
            local_valid_BVHW=self.local_valid_BVHW.to(device, non_blocking=True),
            sample_ids=self.sample_ids,
            sample_index_B=self.sample_index_B.to(device, non_blocking=True),
            row_B=self.row_B,
            global_box_BV4=None if self.global_box_BV4 is None else self.global_box_BV4.to(device, non_blocking=True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The loss of a step and its parts.

    Args:
        total: scalar with a graph.
        terms: detached scalars by name (cls, patch, reconstruct_global, reconstruct_local, koleo, ...).
        facts: numbers for the log (alpha, mask_ratio, chosen_share, teacher_entropy, ...).
        pictures: tensors for the figure of this step (image, attention, difficulty, mask, reconstruction); often empty.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    facts: Mapping[str, float]
    pictures: Mapping[str, Tensor]


class Method(Protocol):
    """A pretraining method, as the engine sees it; an `nn.Module`."""

    def step(self, batch: Batch, step: int, *, pictures: bool = False) -> Losses:
        """One forward pass, before any update."""
        ...

    def after_update(self, step: int) -> None:
        """What follows the optimizer's step: the teacher's moving average, the centres."""
        ...

    def trainable(self) -> torch.nn.Module:
        """The part that the optimizer and DDP see."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        ...
