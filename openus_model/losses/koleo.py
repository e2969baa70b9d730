"""KoLeo: spread the [CLS] vectors of a batch by pushing each away from its nearest neighbour.

    L = -mean_i log(|x_i - x_nn(i)| + eps),  x of unit length

Source: Sablayrolles et al., "Spreading vectors for similarity search", 2019, https://arxiv.org/abs/1806.03198, as in
DINOv2 (https://arxiv.org/abs/2304.07193). Always in float32: in bfloat16 two close vectors have distance 0 and the
logarithm is infinite (dinov2, issue 143).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from openus_model import distributed

EPSILON = 1e-8


def koleo_loss(vectors_BD: Tensor) -> Tensor:
    """The term over the joint batch of all processes.

    Args:
        vectors_BD: one vector per image of this process; of any length but 0.

    Returns:
        a scalar: the mean over this process's vectors, whose neighbours are looked for in every process; 0 where there
        is one vector in all.
    """
    with torch.autocast(vectors_BD.device.type, enabled=False):
        unit_BD = functional.normalize(vectors_BD.float(), dim=-1, eps=EPSILON)
        all_AD = distributed.gather_rows_with_gradient(unit_BD)
        if len(all_AD) == 1:
            return unit_BD.sum() * 0.0
        place = torch.arange(len(unit_BD), device=unit_BD.device)
        own = distributed.rank() * len(unit_BD) + place
        similarity_BA = unit_BD.detach() @ all_AD.detach().T
        similarity_BA[place, own] = -2.0  # not oneself
        nearest_BD = all_AD[similarity_BA.argmax(1)]
        return -((unit_BD - nearest_BD).square().sum(1) + EPSILON**2).sqrt().add(EPSILON).log().mean()
