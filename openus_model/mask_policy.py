"""From what teacher and student know to the masks of a step: the self-adaptive part of OpenUS.

The teacher's attention and the difficulty of the same image become a score per cell; `masking.choose` makes the mask.
Small views get random blocks. Every random number is a pure function of (seed, step, sample, view).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openus_model.difficulty import Difficulty, DifficultySource, DifficultyTable, PreviousBatch, Seen
from openus_model.masking import Choice, block_masks, choose, join_scores, normalise, uniform_noise
from openus_model.recipe import MaskingRecipe

Redraw = Callable[[Tensor], Tensor]
"""Masks (N, H, W) of the large views to the error of each cell (N, H, W)."""
_TRIAL_VIEW = 1000
"""Name of the random stream of trial masks, beside those of the views: 0, 1, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Large views, as far as masks depend on them; view-major, N = views * images.

    Args:
        attention_NL: how much the teacher looks at each cell.
        eligible_NL: cells that may be masked, None for all.
        sample_N: sample of each view.
        box_N4: its crop as shares of the image, x0 > x1 where flipped.
        views: how many views of an image.
        grid: (rows, columns) of cells, L = rows * columns.
    """

    attention_NL: Tensor
    eligible_NL: Tensor | None
    sample_N: Tensor
    box_N4: Tensor
    views: int
    grid: tuple[int, int]


class MaskPolicy(nn.Module):
    """Masks of a step; its state is the difficulty that it has seen.

    Args:
        recipe: the masking section.
        seed: of the run.
        samples: images in the corpus.
        large_views: of a step, over all processes.
        large_cells: of one large view.
    """

    def __init__(self, recipe: MaskingRecipe, *, seed: int, samples: int, large_views: int, large_cells: int) -> None:
        super().__init__()
        self.recipe, self.seed = recipe, seed
        self.memory: DifficultySource | None = None
        if recipe.guide in ("both", "difficulty") and recipe.difficulty == "table":
            self.memory = DifficultyTable(samples, grid=recipe.table_grid, momentum=recipe.table_momentum)
        elif recipe.guide in ("both", "difficulty") and recipe.difficulty == "previous_batch":
            self.memory = PreviousBatch(large_views, large_cells)

    def large(self, looked: Looked, redraw: Redraw, *, alpha: float, chosen_share: float, step: int) -> Choice:
        """The self-adaptive masks of large views.

        Args:
            looked: the views.
            redraw: asks the student, for a difficulty measured in the same step.
            alpha: weight of the second score, see `masking.join_scores`.
            chosen_share: share taken by score, see `masking.choose`.
            step: of the run.
        """
        random = self.recipe.guide == "random"
        noise_NL = self._noise(looked, step, first_view=0)
        return choose(
            noise_NL if random else self._score(looked, redraw, alpha, step),
            noise_NL,
            ratio=self.recipe.ratio,
            chosen_share=0.0 if random else chosen_share,
            rule=self.recipe.rule,
            eligible_BN=looked.eligible_NL,
        )

    def _score(self, looked: Looked, redraw: Redraw, alpha: float, step: int) -> Tensor:
        if self.recipe.guide == "attention":
            return normalise(looked.attention_NL, looked.eligible_NL)
        difficulty = self.difficulty(looked, redraw, step)
        if self.recipe.guide == "difficulty":
            alpha = 1.0 if self.recipe.rule == "paper" else 0.0
        return join_scores(
            looked.attention_NL,
            difficulty.score_BN,
            difficulty.known_B,
            alpha=alpha,
            rule=self.recipe.rule,
            eligible_BN=looked.eligible_NL,
        )

    def difficulty(self, looked: Looked, redraw: Redraw, step: int) -> Difficulty:
        """What is known of the views' difficulty: remembered, or measured now by hiding one half and then the other."""
        if self.memory is not None:
            return self.memory.read(looked.sample_N, looked.box_N4, *looked.grid)
        noise_NL = self._noise(looked, step, first_view=_TRIAL_VIEW)
        half_NL = choose(noise_NL, noise_NL, ratio=0.5, chosen_share=1.0, rule="paper").mask_BN
        half_NHW = half_NL.view(-1, *looked.grid)
        error_NHW = torch.where(half_NHW, redraw(half_NHW), redraw(~half_NHW))
        known_N = torch.ones(len(noise_NL), dtype=torch.bool, device=noise_NL.device)
        return Difficulty(score_BN=error_NHW.flatten(1), known_B=known_N)

    def _noise(self, looked: Looked, step: int, *, first_view: int) -> Tensor:
        cells = looked.grid[0] * looked.grid[1]
        by_view = looked.sample_N.chunk(looked.views)
        return torch.cat(
            [uniform_noise(s, cells, seed=self.seed, step=step, view=first_view + v) for v, s in enumerate(by_view)]
        )

    def blocks(
        self,
        names: Sequence[str],
        views: int,
        grid: tuple[int, int],
        *,
        step: int,
        stream: str,
        eligible_NHW: Tensor | None,
    ) -> Tensor:
        """Random block masks (views * images, H, W), on the CPU unless `eligible_NHW` is elsewhere.

        Args:
            names: sample ids.
            views: views of each image.
            grid: cells of a view.
            step: of the run.
            stream: keeps the random numbers of two groups of views apart.
            eligible_NHW: cells that may be masked, None for all.
        """
        keys = [f"{self.seed}/{step}/{stream}/{view}/{name}" for view in range(views) for name in names]
        mask_NHW = block_masks(keys, *grid, ratio=self.recipe.local_ratio)
        return mask_NHW if eligible_NHW is None else mask_NHW.to(eligible_NHW.device) & eligible_NHW

    def note(self, looked: Looked, error_NHW: Tensor, mask_NHW: Tensor) -> None:
        """Take in how well the student did where it was masked, for later steps."""
        if self.memory is None:
            return
        count = 1 if isinstance(self.memory, PreviousBatch) else looked.views
        parts = (looked.sample_N, looked.box_N4, error_NHW.detach(), mask_NHW)
        for sample_B, box_B4, error_BHW, mask_BHW in zip(*(part.chunk(count) for part in parts), strict=True):
            self.memory.note(Seen(sample_B=sample_B, box_B4=box_B4, error_BHW=error_BHW, mask_BHW=mask_BHW))

    def commit(self) -> None:
        """Keep what was noted: the step counted."""
        if self.memory is not None:
            self.memory.commit()

    def forget(self) -> None:
        """Drop what was noted: the step did not count."""
        if self.memory is not None:
            self.memory.forget()
