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
    """Sinkhorn-Knopp over the joint batch, on logarithms, so that no temperature makes a row vanish.

    One row alone gets equal shares of all prototypes: there is nothing to tell it from.

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
        log_NK = logits_NK.float() / temperature
        takes_part_N1 = torch.ones(len(log_NK), 1, dtype=torch.bool, device=log_NK.device)
        if weight_N is not None:
            takes_part_N1 = weight_N[:, None] > 0
        for _ in range(self.iterations):
            log_NK = log_NK - _joint_logsumexp(log_NK.masked_fill(~takes_part_N1, -torch.inf))
            log_NK = log_NK.log_softmax(1)
        return log_NK.exp() * takes_part_N1

    def commit(self) -> None:
        """Nothing is kept."""

    def forget(self) -> None:
        """Nothing is kept."""


def _joint_logsumexp(log_NK: Tensor) -> Tensor:
    """log of the sum of exponentials of each column, (K,), over the rows of all processes."""
    highest_K = distributed.largest(log_NK.amax(0)).nan_to_num(neginf=0.0)
    smallest = torch.finfo(log_NK.dtype).tiny
    return highest_K + distributed.total((log_NK - highest_K).exp().sum(0)).clamp(min=smallest).log()


Centring = MeanCentre | Sinkhorn
