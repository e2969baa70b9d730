"""Which cells the student does not see: scores in, boolean masks out, all of it pure.

The self-adaptive rule of OpenUS (https://arxiv.org/abs/2511.11510, figure 1b): of a budget of m cells, a share r_t is
the best by a score that joins the teacher's attention with the student's difficulty, the rest is drawn at random. The
random part is a hash of (seed, step, sample, view, cell), so that it depends on neither ranks nor devices, and a
resumed run needs no generator's state.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["paper", "released"]
EPSILON = 1e-8
BLOCK_ASPECT = 0.3
BLOCK_TRIES = 10
_GOLDEN, _MIX_1, _MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""splitmix64's constants as signed 64-bit numbers (Steele et al. 2014)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A mask and how it came about.

    Args:
        mask_BN: bool, True = hidden from the student.
        chosen_BN: bool, the part of the mask taken by score.
    """

    mask_BN: Tensor
    chosen_BN: Tensor


def uniform_noise(sample_index_B: Tensor, cells: int, *, seed: int, step: int, view: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (B, cells): a hash of everything named, equal on every device."""
    digest = hashlib.blake2b(f"{seed}/{step}/{view}".encode(), digest_size=8).digest()
    rows_B1 = _mix(sample_index_B[:, None] * _GOLDEN + int.from_bytes(digest, "big", signed=True))
    columns_N = torch.arange(1, cells + 1, device=sample_index_B.device) * _GOLDEN
    bits_BN = (_mix(rows_B1 + columns_N) >> 40) & (2**24 - 1)
    return bits_BN.float() / 2**24


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser; int64 wraps, and a mask makes its shift a logical one."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))


def normalise(score_BN: Tensor, eligible_BN: Tensor | None = None) -> Tensor:
    """Min-max to [0, 1] per image, over its eligible cells; the rest is cut to that range."""
    score_BN = score_BN.float()
    if eligible_BN is None:
        low_B1, high_B1 = score_BN.amin(1, keepdim=True), score_BN.amax(1, keepdim=True)
        return (score_BN - low_B1) / (high_B1 - low_B1 + EPSILON)
    low_B1 = score_BN.masked_fill(~eligible_BN, torch.inf).amin(1, keepdim=True)
    high_B1 = score_BN.masked_fill(~eligible_BN, -torch.inf).amax(1, keepdim=True)
    normed_BN = ((score_BN - low_B1) / (high_B1 - low_B1 + EPSILON)).clamp(0.0, 1.0)
    return torch.where(eligible_BN.any(1, keepdim=True), normed_BN, torch.zeros_like(score_BN))


def join_scores(
    attention_BN: Tensor,
    difficulty_BN: Tensor,
    known_B: Tensor,
    *,
    alpha: float,
    rule: Rule,
    eligible_BN: Tensor | None = None,
) -> Tensor:
    """One score per cell.

    Args:
        attention_BN: how much the teacher looks at each cell.
        difficulty_BN: how badly the student reconstructs it.
        known_B: bool, whether there is a difficulty for this image; attention alone stands in where not.
        alpha: weight in [0, 1]: of the difficulty by the paper's rule, of the attention by the released code's.
        rule: which of the two.
        eligible_BN: cells that count; None for all.
    """
    attention_BN, difficulty_BN = normalise(attention_BN, eligible_BN), normalise(difficulty_BN, eligible_BN)
    weight = alpha if rule == "paper" else 1.0 - alpha
    joined_BN = (1.0 - weight) * attention_BN + weight * difficulty_BN
    return torch.where(known_B[:, None], joined_BN, attention_BN)


def choose(
    score_BN: Tensor,
    noise_BN: Tensor,
    *,
    ratio: float,
    chosen_share: float,
    rule: Rule,
    eligible_BN: Tensor | None = None,
) -> Choice:
    """Take the best cells by score, then fill the budget at random.

    Args:
        score_BN: the higher, the sooner taken.
        noise_BN: uniform numbers that decide the rest.
        ratio: budget over eligible cells, rounded up.
        chosen_share: share taken by score: of the budget by the paper's rule, of all cells by the released code's.
        rule: which of the two.
        eligible_BN: cells that may be masked; None for all.
    """
    if eligible_BN is None:
        eligible_BN = torch.ones_like(score_BN, dtype=torch.bool)
    count_B1 = eligible_BN.sum(1, keepdim=True).double()
    budget_B1 = (count_B1 * ratio - 1e-9).ceil()
    whole_B1 = budget_B1 if rule == "paper" else count_B1
    chosen_B1 = torch.minimum((whole_B1 * chosen_share + 1e-9).floor(), budget_B1)
    chosen_BN = _rank(score_BN.masked_fill(~eligible_BN, -torch.inf)) < chosen_B1
    # noise lies below 1: what is chosen comes first, what is not eligible last
    order_BN = noise_BN.masked_fill(~eligible_BN, -1.0).masked_fill(chosen_BN, 2.0)
    return Choice(mask_BN=_rank(order_BN) < budget_B1, chosen_BN=chosen_BN)


def _rank(value_BN: Tensor) -> Tensor:
    """Place of each cell in falling order, ties in raster order."""
    return value_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def block_mask(generator: random.Random, rows: int, columns: int, ratio: float) -> Tensor:
    """Random blocks until about `ratio` of the cells is covered, bool (rows, columns).

    BEiT's sampling (https://arxiv.org/abs/2106.08254, algorithm 1) as iBOT uses it: areas between (shorter side // 3)^2
    and what is left, aspect ratios log-uniform in [0.3, 1 / 0.3], blocks strictly smaller than the grid. A grid of one
    cell stays unmasked.
    """
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    target, covered = ratio * rows * columns, 0
    while covered < target:
        added = _add_block(generator, mask, target - covered)
        if not added:
            break
        covered += added
    return mask


def _add_block(generator: random.Random, mask: Tensor, left: float) -> int:
    rows, columns = mask.shape
    smallest = (min(rows, columns) // 3) ** 2
    for _ in range(BLOCK_TRIES):
        area = generator.uniform(smallest, left)
        aspect = math.exp(generator.uniform(math.log(BLOCK_ASPECT), -math.log(BLOCK_ASPECT)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, start = generator.randint(0, rows - height), generator.randint(0, columns - width)
        block = mask[top : top + height, start : start + width]
        new = height * width - int(block.sum())
        if 0 < new <= left:
            block.fill_(True)
            return new
    return 0


def block_masks(keys: Sequence[str], rows: int, columns: int, *, ratio: float) -> Tensor:
    """A block mask for each key, bool (len(keys), rows, columns); equal keys give equal masks."""
    if not keys:
        return torch.zeros(0, rows, columns, dtype=torch.bool)
    return torch.stack([block_mask(random.Random(key), rows, columns, ratio) for key in keys])
