"""What stands on a backbone during pretraining: a projection head to prototypes, and a decoder to pixels.

The projection head is iBOT's (https://arxiv.org/abs/2111.07832): a three-layer MLP, unit length, and weight-normalised
prototypes whose gains stay 1. The decoder is SimMIM's (https://arxiv.org/abs/2111.09886): one 1x1 convolution and a
pixel shuffle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prototypes(nn.Module):
    """Weight-normalised linear layer without bias: logit_k = g_k <v_k / |v_k|, z>; g is 1 and frozen."""

    def __init__(self, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.empty(prototypes, bottleneck))
        bound = bottleneck**-0.5
        nn.init.uniform_(self.weight_v, -bound, bound)
        self.frozen = False

    def forward(self, z_BD: Tensor) -> Tensor:
        """(..., D) of unit length -> (..., K)."""
        weight_v = self.weight_v.detach() if self.frozen else self.weight_v
        with torch.autocast(z_BD.device.type, enabled=False):  # bf16 logits over a temperature of 0.04 are noise
            return functional.linear(z_BD.float(), self.weight_g * functional.normalize(weight_v, dim=1))


class ProjectionHead(nn.Module):
    """[CLS] and patches to prototypes.

    Args:
        in_dim: D of the backbone.
        hidden: width of the two hidden layers.
        bottleneck: width before the prototypes.
        prototypes: K.
        separate: whether patches have prototypes of their own.
    """

    def __init__(self, in_dim: int, *, hidden: int, bottleneck: int, prototypes: int, separate: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, prototypes)
        self.last_layer2 = Prototypes(bottleneck, prototypes) if separate else self.last_layer

    def forward(self, pooled_BD: Tensor, tokens_BND: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K) of [CLS] and, if asked for, (B, N, K) of patches."""
        cls_BK: Tensor = self.last_layer(self._embed(pooled_BD))
        return cls_BK, None if tokens_BND is None else self.last_layer2(self._embed(tokens_BND))

    def freeze_prototypes(self, frozen: bool) -> None:
        """While frozen, the prototypes get no gradient, hence no update and no decay."""
        self.last_layer.frozen = self.last_layer2.frozen = frozen

    def _embed(self, x_BD: Tensor) -> Tensor:
        return functional.normalize(self.mlp(x_BD).float(), dim=-1)


class PixelDecoder(nn.Sequential):
    """The last map (B, D, H, W) to pixels (B, channels, H * stride, W * stride)."""

    def __init__(self, in_dim: int, *, stride: int, channels: int) -> None:
        super().__init__(nn.Conv2d(in_dim, channels * stride * stride, 1), nn.PixelShuffle(stride))
