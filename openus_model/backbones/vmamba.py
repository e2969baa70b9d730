"""VMamba: four stages of selective-scan blocks on a grid that halves from stage to stage.

    patch embedding (stride 4) -> stage 0 -> down-sample -> stage 1 -> down-sample -> stage 2 -> down-sample -> stage 3
    block: x = x + DropPath(SS2D(LN(x)));  x = x + DropPath(MLP(LN(x)))

Tensor names are those of the public VMamba checkpoints, plus `outnorm0..3` and `masked_embed` of OpenUS's. Images may
have any size: each halving rounds up, so the last grid has ceil(side / 32) cells.

Source: Liu et al., "VMamba: Visual State Space Model", 2024, https://arxiv.org/abs/2401.10166; the mask token follows
Xie et al., "SimMIM", 2021, https://arxiv.org/abs/2111.09886.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openus_model.backbones.attention import attention_map
from openus_model.backbones.layers import DropPath, Mlp, Norm, ToFirst, ToLast, check_inputs, init_linears
from openus_model.backbones.ss2d import ORDERS, SS2D, ScanState
from openus_model.contracts import Features
from openus_model.errors import UsageError
from openus_model.scan import Backend, keep_out_of_compiled_graphs

STRIDE = 32
PATCH_STRIDE = 4
CELL_TOKENS = STRIDE // PATCH_STRIDE  # tokens of the patch embedding along a mask cell's side


@dataclass(frozen=True, slots=True, kw_only=True)
class VMambaConfig:
    """The sizes of a VMamba.

    Args:
        depths: blocks per stage.
        dims: channels of stage 0; they double from stage to stage.
        ssm_ratio: inner channels of SS2D over the block's.
        ssm_d_state: states per inner channel.
        mlp_ratio: hidden channels of the MLP over the block's.
        drop_path: probability for the last block; it grows linearly from 0 at the first.
        gradient_checkpointing: recompute each block in the backward instead of keeping its activations.
        scan_backend: see `openus_model.scan`.
    """

    depths: tuple[int, int, int, int]
    dims: int
    ssm_ratio: float = 2.0
    ssm_d_state: int = 1
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    gradient_checkpointing: bool = False
    scan_backend: Backend = "auto"

    def shrunk(self) -> dict[str, Any]:
        """Overrides that make a network of this kind quick to test: narrow and shallow."""
        return {"depths": (1, 1, 1, 2), "dims": 16}


class Block(nn.Module):
    """A selective-scan block and an MLP, both residual and pre-normed, on maps BHWC."""

    def __init__(self, dim: int, drop_path: float, config: VMambaConfig) -> None:
        super().__init__()
        self.norm = Norm(dim)
        self.op = SS2D(dim, ratio=config.ssm_ratio, states=config.ssm_d_state, backend=config.scan_backend)
        self.drop_path = DropPath(drop_path)
        self.norm2 = Norm(dim)
        self.mlp = Mlp(dim, int(config.mlp_ratio * dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.scan(x_BHWC)[0]

    def scan(self, x_BHWC: Tensor, *, want_state: bool = False) -> tuple[Tensor, ScanState | None]:
        """The block's output, and on request what its scan computed with."""
        branch_BHWC, state = self.op.scan(self.norm(x_BHWC), want_state=want_state)
        x_BHWC = x_BHWC + self.drop_path(branch_BHWC)
        return x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC))), state


class Stage(nn.Module):
    """Blocks at one resolution, and the down-sampler behind them (none after the last stage)."""

    def __init__(self, dim: int, drop_paths: list[float], *, is_last: bool, config: VMambaConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, p, config) for p in drop_paths)
        self.downsample: nn.Module = nn.Identity() if is_last else _downsample(dim)


class VMamba(nn.Module):
    """The backbone; see `openus_model.contracts.Backbone` for what it promises."""

    stride = STRIDE
    in_channels = 3

    def __init__(self, name: str, config: VMambaConfig) -> None:
        super().__init__()
        self.name, self.config = name, config
        dims = [config.dims * 2**i for i in range(4)]
        self.embed_dim = dims[-1]
        self.patch_embed = _patch_embed(config.dims)
        self.masked_embed = nn.Parameter(torch.zeros(1, config.dims))
        rates = _drop_rates(config)
        self.layers = nn.ModuleList(
            Stage(dim, rate, is_last=i == 3, config=config)
            for i, (dim, rate) in enumerate(zip(dims, rates, strict=True))
        )
        for i, dim in enumerate(dims):
            self.add_module(f"outnorm{i}", Norm(dim))
        self.apply(init_linears)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `nn.Module.compile`, with the scans left out of the graphs."""
        keep_out_of_compiled_graphs()
        super().compile(*args, **kwargs)

    def forward(self, image_BCHW: Tensor, mask_BHW: Tensor | None = None) -> Features:
        """Features of images (B, 3, H, W) of any size; `mask_BHW` (bool, cells of 32 pixels) hides what is True."""
        return self._run(image_BCHW, mask_BHW, None)[0]

    def attend(
        self, image_BCHW: Tensor, mask_BHW: Tensor | None = None, *, stage: int = 3, block: int = -1
    ) -> tuple[Features, Tensor]:
        """Features, and the attention map (B, L, L) of one block's scan, rows = query, in [0, 1] per image.

        Raises:
            UsageError: there is no such stage or block.
        """
        features, state = self._run(image_BCHW, mask_BHW, self._locate(stage, block))
        if state is None:
            raise AssertionError("the located block was not run")
        return features, attention_map(state)

    def scans(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(positions, channels over all orders, states) of every scan on an image of `size` (height, width)."""
        sizes = []
        for i, stage in enumerate(self._stages()):
            positions = math.prod(-(-side // (PATCH_STRIDE * 2**i)) for side in size)
            for block in cast(list[Block], list(stage.blocks)):
                sizes.append((positions, ORDERS * block.op.inner, block.op.states))
        return sizes

    def _locate(self, stage: int, block: int) -> nn.Module:
        depths = self.config.depths
        if not (0 <= stage < len(depths) and -depths[stage] <= block < depths[stage]):
            raise UsageError(
                "no such block",
                where=self.name,
                expected=f"stages of {depths} blocks",
                got=f"stage {stage}, block {block}",
            )
        return self._stages()[stage].blocks[block]

    def _stages(self) -> list[Stage]:
        return cast(list[Stage], list(self.layers))

    def _run(
        self, image_BCHW: Tensor, mask_BHW: Tensor | None, wanted: nn.Module | None
    ) -> tuple[Features, ScanState | None]:
        x_BHWC = self._embed(image_BCHW, mask_BHW)
        stages: list[Tensor] = []
        state: ScanState | None = None
        for i, layer in enumerate(self._stages()):
            for block in cast(list[Block], list(layer.blocks)):
                if block is wanted:
                    x_BHWC, state = block.scan(x_BHWC, want_state=True)
                else:
                    x_BHWC = self._call(block, x_BHWC)
            normed_BHWC = self.get_submodule(f"outnorm{i}")(x_BHWC)
            stages.append(normed_BHWC.permute(0, 3, 1, 2))
            x_BHWC = layer.downsample(x_BHWC)
        tokens_BND = normed_BHWC.flatten(1, 2)
        grid = (normed_BHWC.shape[1], normed_BHWC.shape[2])
        features = Features(stages=tuple(stages), tokens_BND=tokens_BND, pooled_BD=tokens_BND.mean(1), grid=grid)
        return features, state

    def _call(self, block: nn.Module, x_BHWC: Tensor) -> Tensor:
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(block, x_BHWC, use_reentrant=False)
            return recomputed
        out: Tensor = block(x_BHWC)
        return out

    def _embed(self, image_BCHW: Tensor, mask_BHW: Tensor | None) -> Tensor:
        check_inputs(self.name, image_BCHW, mask_BHW, channels=self.in_channels, stride=STRIDE)
        x_BHWC: Tensor = self.patch_embed(image_BCHW)
        if mask_BHW is None:
            return x_BHWC
        tokens_BHW = mask_BHW.bool().repeat_interleave(CELL_TOKENS, 1).repeat_interleave(CELL_TOKENS, 2)
        hidden_BHW1 = tokens_BHW[:, : x_BHWC.shape[1], : x_BHWC.shape[2], None]
        return torch.where(hidden_BHW1, self.masked_embed.to(x_BHWC.dtype), x_BHWC)


def _drop_rates(config: VMambaConfig) -> list[list[float]]:
    """The drop path's probability of each block, per stage."""
    last = max(sum(config.depths) - 1, 1)
    return [
        [config.drop_path * (sum(config.depths[:i]) + j) / last for j in range(depth)]
        for i, depth in enumerate(config.depths)
    ]


def _patch_embed(dim: int) -> nn.Sequential:
    """Two overlapping convolutions of stride 2; BCHW -> BHWC."""
    return nn.Sequential(
        nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
        ToLast(),
        Norm(dim // 2),
        ToFirst(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        ToLast(),
        Norm(dim),
    )


def _downsample(dim: int) -> nn.Sequential:
    """Half the grid, twice the channels; BHWC -> BHWC."""
    return nn.Sequential(ToFirst(), nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1), ToLast(), Norm(2 * dim))
