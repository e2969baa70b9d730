"""What keeps the teacher from saying the same of every image: a running mean, or Sinkhorn-Knopp over the batch.

`MeanCentre` (DINO, https://arxiv.org/abs/2104.14294): q = softmax((t - c) / temperature), where c follows the mean of t
over the joint batch of all processes with a momentum, *after* the step. `Sinkhorn` (SwAV, https://arxiv.org/abs/2006.09882,
as in DINOv2): prototypes get equal shares of the joint batch by a few alternating normalisations; it keeps no state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openus_model import distributed


class MeanCentre(nn.Module):
    """A running mean of logits.

    Args:
        prototypes: K.
        momentum: share of the old mean that stays.
    """

    centre_K: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre_K", torch.zeros(prototypes))
        self._sum_K: Tensor | None = None
        self._count = 0.0

    def targets(self, logits_NK: Tensor, temperature: float, _weight_N: Tensor | None = None) -> Tensor:
        """Probabilities (N, K) of the teacher; also notes the logits of every row for the next `commit`."""
        logits_NK = logits_NK.float()
        sum_K = logits_NK.sum(0)
        self._sum_K = sum_K if self._sum_K is None else self._sum_K + sum_K
        self._count += len(logits_NK)
        return ((logits_NK - self.centre_K) / temperature).softmax(-1)

    def commit(self) -> None:
        """Move the mean towards what was seen since the last call, on all processes together."""
        if self._sum_K is None:
            return
        mean_K = distributed.mean(self._sum_K) / self._count
        self.centre_K.mul_(self.momentum).add_(mean_K, alpha=1 - self.momentum)
        self.forget()

    def forget(self) -> None:
        """Drop what was seen since the last `commit`: the step did not count."""
        self._sum_K, self._count = None, 0.0


class Sinkhorn(nn.Module):
    """Sinkhorn-Knopp over the joint batch.

    Args:
        iterations: alternating normalisations; 3 in DINOv2.
    """

    def __init__(self, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    def targets(self, logits_NK: Tensor, temperature: float, weight_N: Tensor | None = None) -> Tensor:
        """Probabilities (N, K) of the teacher.

        Args:
            logits_NK: teacher's logits.
            temperature: before the exponential.
            weight_N: 1 for rows that take part, 0 for those that do not (their probabilities are 0); None for all.
        """
        scaled_NK = logits_NK.float() / temperature
        q_NK = (scaled_NK - distributed.largest(scaled_NK.max())).exp()
        weight_N = torch.ones(len(q_NK), device=q_NK.device) if weight_N is None else weight_N.float()
        q_NK = q_NK * weight_N[:, None]
        rows = distributed.total(weight_N.sum()).clamp(min=1.0)
        for _ in range(self.iterations):
            q_NK = q_NK / (distributed.total(q_NK.sum(0)) * q_NK.shape[1]).clamp(min=1e-30)
            q_NK = q_NK / (q_NK.sum(1, keepdim=True) * rows).clamp(min=1e-30)
        return q_NK * rows

    def commit(self) -> None:
        """Nothing is kept."""

    def forget(self) -> None:
        """Nothing is kept."""


Centring = MeanCentre | Sinkhorn
