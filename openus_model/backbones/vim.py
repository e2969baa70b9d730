"""Vim, Vision Mamba: patches of 16 pixels as one sequence, scanned forwards and backwards in every block.

    patches -> + position -> blocks: x = x + DropPath(BiMamba(RMSNorm(x))) -> LN
    BiMamba: (x, z) = W_in x; per direction: causal conv, SiLU, selective scan;  out = W_out (mean of both * SiLU(z))

It has one resolution, so the four stages are its last map resampled to strides 4, 8, 16 and 32 (Li et al., "Exploring
Plain Vision Transformer Backbones", 2022, https://arxiv.org/abs/2203.16527), and tokens and mask cells are the 32 pixel
cells of the last. Sides are padded with zeros to multiples of 32. Differs from the paper's network in having no class
token: the mean of the tokens stands for the image, as elsewhere in this project.

Axes: B batch, L patches, C channels of a block, D inner channels, G = 2 directions, R rank of the step size, N states.

Source: Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model", 2024,
https://arxiv.org/abs/2401.09417.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from openus_model.backbones.attention import raw_attention, scale_to_unit
from openus_model.backbones.causal_conv import causal_conv_silu
from openus_model.backbones.layers import DropPath, Norm, check_inputs, init_linears
from openus_model.backbones.ss2d import ScanState, init_step_bias
from openus_model.contracts import Features
from openus_model.errors import UsageError
from openus_model.scan import Backend, keep_out_of_compiled_graphs, scan_groups

STRIDE = 32
PATCH = 16
DIRECTIONS = 2
STAGES = 4
TRAINED_GRID = 14  # patches per side of the position table: 224 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class VimConfig:
    """The sizes of a Vim.

    Args:
        depth: blocks, a multiple of 4 (a quarter counts as a stage in `attend`).
        dims: channels.
        ssm_ratio: inner channels over `dims`.
        ssm_d_state: states per inner channel.
        conv_width: time steps that the causal convolution sees.
        drop_path: probability for the last block; it grows linearly from 0 at the first.
        gradient_checkpointing: recompute each block in the backward instead of keeping its activations.
        scan_backend: see `openus_model.scan`.
    """

    depth: int
    dims: int
    ssm_ratio: float = 2.0
    ssm_d_state: int = 16
    conv_width: int = 4
    drop_path: float = 0.0
    gradient_checkpointing: bool = False
    scan_backend: Backend = "auto"

    def shrunk(self) -> dict[str, Any]:
        """Overrides that make a network of this kind quick to test: narrow and shallow."""
        return {"depth": 4, "dims": 32, "ssm_d_state": 2}


class BiMamba(nn.Module):
    """A Mamba mixer that reads a sequence BLC in both directions."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        inner, rank, states = int(config.ssm_ratio * config.dims), math.ceil(config.dims / 16), config.ssm_d_state
        self.inner, self.rank, self.states, self.backend = inner, rank, states, config.scan_backend
        self.in_proj = nn.Linear(config.dims, 2 * inner, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(DIRECTIONS * inner, config.conv_width))
        self.conv_bias = nn.Parameter(torch.zeros(DIRECTIONS * inner))
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(DIRECTIONS, inner, 1))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS, inner))
        self.out_proj = nn.Linear(inner, config.dims, bias=False)
        for weight, fan_in in (
            (self.conv_weight, config.conv_width), (self.x_proj_weight, inner), (self.dt_projs_weight, rank),
        ):  # fmt: skip
            nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)
        init_step_bias(self.dt_projs_bias)

    def scan(self, x_BLC: Tensor, *, want_state: bool = False) -> tuple[Tensor, ScanState | None]:
        """The mixer's output, and on request what its scan computed with."""
        x_BLD, z_BLD = self.in_proj(x_BLC).chunk(2, dim=-1)
        both_BGDL = torch.stack((x_BLD.mT, x_BLD.mT.flip(2)), dim=1)
        u_BXL = causal_conv_silu(both_BGDL.flatten(1, 2), self.conv_weight, self.conv_bias)
        u_BGDL = torch.unflatten(u_BXL, 1, (DIRECTIONS, self.inner))
        sizes = [self.rank, self.states, self.states]
        dtr_BGRL, B_BGNL, C_BGNL = torch.split(torch.matmul(self.x_proj_weight, u_BGDL), sizes, dim=2)
        delta_BGDL = torch.matmul(self.dt_projs_weight, dtr_BGRL)
        A_GDN = -torch.exp(self.A_logs.float())
        y_BGDL = scan_groups(
            u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, self.Ds, self.dt_projs_bias, softplus=True, backend=self.backend
        )
        y_BLD = (y_BGDL[:, 0] + y_BGDL[:, 1].flip(2)).mT / DIRECTIONS
        out_BLC: Tensor = self.out_proj(y_BLD * functional.silu(z_BLD))
        if not want_state:
            return out_BLC, None
        raster_L = torch.arange(u_BGDL.shape[-1], device=u_BGDL.device)
        state = ScanState(
            dt_BGDL=functional.softplus(delta_BGDL.float() + self.dt_projs_bias[:, :, None]),
            A_GDN=A_GDN,
            B_BGNL=B_BGNL.float(),
            C_BGNL=C_BGNL.float(),
            order_GL=torch.stack((raster_L, raster_L.flip(0))),
        )
        return out_BLC, state


class VimBlock(nn.Module):
    """The mixer, residual and pre-normed, on tokens BLC."""

    def __init__(self, drop_path: float, config: VimConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.dims, eps=1e-5)
        self.mixer = BiMamba(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BLC: Tensor) -> Tensor:
        return self.scan(x_BLC)[0]

    def scan(self, x_BLC: Tensor, *, want_state: bool = False) -> tuple[Tensor, ScanState | None]:
        """The block's output, and on request what its scan computed with."""
        branch_BLC, state = self.mixer.scan(self.norm(x_BLC), want_state=want_state)
        return x_BLC + self.drop_path(branch_BLC), state


class Vim(nn.Module):
    """The backbone; see `openus_model.contracts.Backbone` for what it promises."""

    stride = STRIDE
    in_channels = 3

    def __init__(self, name: str, config: VimConfig) -> None:
        super().__init__()
        if config.depth % STAGES:
            raise UsageError("the depth is no multiple of 4", where=name, got=str(config.depth))
        self.name, self.config, self.embed_dim = name, config, config.dims
        self.patch_embed = nn.Conv2d(self.in_channels, config.dims, PATCH, stride=PATCH)
        self.position = nn.Parameter(torch.zeros(1, config.dims, TRAINED_GRID, TRAINED_GRID))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.masked_embed = nn.Parameter(torch.zeros(1, config.dims))
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(VimBlock(config.drop_path * i / last, config) for i in range(config.depth))
        self.norm = Norm(config.dims)
        self.apply(init_linears)
        for block in self._blocks():  # every residual branch adds its variance; Vim scales the last layer for it
            block.mixer.out_proj.weight.data.div_(math.sqrt(config.depth))

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
        """Features, and the attention map of one block averaged over the patches of each cell (B, N, N), in [0, 1].

        A quarter of the blocks counts as a stage.

        Raises:
            UsageError: there is no such stage or block.
        """
        per_stage = self.config.depth // STAGES
        if not (0 <= stage < STAGES and -per_stage <= block < per_stage):
            raise UsageError(
                "no such block", where=self.name, expected=f"{STAGES} stages of {per_stage} blocks",
                got=f"stage {stage}, block {block}",
            )  # fmt: skip
        wanted = self._blocks()[stage * per_stage + block % per_stage]
        features, state = self._run(image_BCHW, mask_BHW, wanted)
        if state is None:
            raise AssertionError("the located block was not run")
        return features, scale_to_unit(_pool_to_cells(raw_attention(state), features.grid))

    def scans(self, size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(positions, channels over both directions, states) of every scan on an image of `size` (height, width)."""
        positions = math.prod(-(-side // STRIDE) * (STRIDE // PATCH) for side in size)
        return [(positions, DIRECTIONS * block.mixer.inner, block.mixer.states) for block in self._blocks()]

    def _blocks(self) -> list[VimBlock]:
        return cast(list[VimBlock], list(self.blocks))

    def _run(
        self, image_BCHW: Tensor, mask_BHW: Tensor | None, wanted: nn.Module | None
    ) -> tuple[Features, ScanState | None]:
        x_BCHW = self._embed(image_BCHW, mask_BHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        x_BLC = x_BCHW.flatten(2).mT
        state: ScanState | None = None
        for block in self._blocks():
            if block is wanted:
                x_BLC, state = block.scan(x_BLC, want_state=True)
            elif self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x_BLC = checkpoint(block, x_BLC, use_reentrant=False)
            else:
                x_BLC = block(x_BLC)
        map_BCHW = torch.unflatten(self.norm(x_BLC).mT, 2, size)
        return _features(map_BCHW), state

    def _embed(self, image_BCHW: Tensor, mask_BHW: Tensor | None) -> Tensor:
        check_inputs(self.name, image_BCHW, mask_BHW, channels=self.in_channels, stride=STRIDE)
        height, width = image_BCHW.shape[2:]
        padded_BCHW = functional.pad(image_BCHW, (0, -width % STRIDE, 0, -height % STRIDE))
        x_BCHW: Tensor = self.patch_embed(padded_BCHW)
        if mask_BHW is not None:
            hidden_B1HW = mask_BHW.bool().repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
            x_BCHW = torch.where(hidden_B1HW, self.masked_embed.to(x_BCHW.dtype)[:, :, None, None], x_BCHW)
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        position: Tensor = self.position
        if size != (TRAINED_GRID, TRAINED_GRID):
            position = functional.interpolate(position, size=size, mode="bilinear", align_corners=False)
        return x_BCHW + position


def _features(map_BCHW: Tensor) -> Features:
    """The last map at strides 4, 8, 16 and 32, and the last of these as tokens."""

    def enlarge(times: int) -> Tensor:
        return functional.interpolate(map_BCHW, scale_factor=float(times), mode="bilinear", align_corners=False)

    coarse_BCHW = functional.avg_pool2d(map_BCHW, 2)
    tokens_BND = coarse_BCHW.flatten(2).mT
    return Features(
        stages=(enlarge(4), enlarge(2), map_BCHW, coarse_BCHW),
        tokens_BND=tokens_BND,
        pooled_BD=tokens_BND.mean(1),
        grid=(coarse_BCHW.shape[2], coarse_BCHW.shape[3]),
    )


def _pool_to_cells(map_BLL: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map over patches averaged to one over cells of 2 x 2 patches (B, N, N)."""
    rows, columns = grid
    patches = (rows, 2, columns, 2)
    return map_BLL.reshape(-1, *patches, *patches).mean((2, 4, 6, 8)).flatten(3, 4).flatten(1, 2)
