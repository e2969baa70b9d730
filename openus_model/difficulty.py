"""How hard each place of an image is for the student: where the self-adaptive mask gets its second score.

`DifficultyTable` keeps one small map per image across epochs, in the image's own frame: crop boxes carry errors from
view to image and back. It holds errors relative to the batch's mean, since absolute errors fall during training and
would make every cell that was not seen lately look hard. `PreviousBatch` is what the released code does: the map of
whatever image stood at the same place of the batch before, smoothed with a mean over positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openus_model import distributed

POINTS = 4
"""Points per side of a view's cell at which the table is read."""
SMOOTHING = 0.7
"""Share of the current map, and of the old mean, in the released smoothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Scores of some views.

    Args:
        score_BN: float32, higher is harder; 0 where nothing is known of the image.
        known_B: bool, whether anything is known.
    """

    score_BN: Tensor
    known_B: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the student just showed.

    Args:
        sample_B: int64, samples.
        box_B4: float32, crop (x0, y0, x1, y1) as shares of the image; x0 > x1 in a flipped view.
        error_BHW: mean squared error per cell.
        mask_BHW: bool, cells it was masked at, the only ones where the error means something.
    """

    sample_B: Tensor
    box_B4: Tensor
    error_BHW: Tensor
    mask_BHW: Tensor


class DifficultyTable(nn.Module):
    """A map per image.

    Args:
        samples: images in the corpus.
        grid: cells per side of a map; two bytes each.
        momentum: weight of the old value when a cell is seen again.
    """

    table_SGG: Tensor

    def __init__(self, samples: int, *, grid: int, momentum: float) -> None:
        super().__init__()
        self.grid, self.momentum = grid, momentum
        self.register_buffer("table_SGG", torch.full((samples, grid, grid), torch.nan, dtype=torch.float16))
        self._seen: list[Seen] = []

    def read(self, sample_B: Tensor, box_B4: Tensor, rows: int, columns: int) -> Difficulty:
        """Difficulty of each cell of some views; a cell never seen takes the mean of its image."""
        map_BGG = self.table_SGG[sample_B].float()
        seen_BGG = ~map_BGG.isnan()
        filled_BGG = map_BGG.nan_to_num(0.0)
        known_B = seen_BGG.flatten(1).any(1)
        mean_B = filled_BGG.flatten(1).sum(1) / seen_BGG.flatten(1).sum(1).clamp(min=1)
        filled_BGG = torch.where(seen_BGG, filled_BGG, mean_B[:, None, None])
        row_BH = self._cells(box_B4[:, 1], box_B4[:, 3], rows * POINTS)
        column_BW = self._cells(box_B4[:, 0], box_B4[:, 2], columns * POINTS)
        picked_BHW = filled_BGG.gather(1, row_BH[:, :, None].expand(-1, -1, self.grid))
        picked_BHW = picked_BHW.gather(2, column_BW[:, None, :].expand(-1, rows * POINTS, -1))
        score_BN = picked_BHW.reshape(-1, rows, POINTS, columns, POINTS).mean((2, 4)).flatten(1)
        return Difficulty(score_BN=score_BN, known_B=known_B)

    def _cells(self, low_B: Tensor, high_B: Tensor, points: int) -> Tensor:
        """Table cells under evenly spaced points of a side, (B, points)."""
        share_P = (torch.arange(points, device=low_B.device) + 0.5) / points
        place_BP = low_B[:, None] + (high_B - low_B)[:, None] * share_P
        return (place_BP * self.grid).long().clamp(0, self.grid - 1)

    def note(self, seen: Seen) -> None:
        """Remember until `commit`."""
        self._seen.append(seen)

    @torch.no_grad()
    def commit(self) -> None:
        """Write what every process saw since the last call; afterwards every process has the same table."""
        for seen in self._seen:
            weight_BHW = seen.mask_BHW.float()
            mean = distributed.mean((seen.error_BHW * weight_BHW).sum()) / distributed.mean(weight_BHW.sum()).clamp(
                min=1.0
            )
            relative_BHW = torch.where(seen.mask_BHW, seen.error_BHW / mean.clamp(min=1e-12), torch.nan)
            self._write(
                distributed.gather_rows(seen.sample_B),
                distributed.gather_rows(seen.box_B4),
                distributed.gather_rows(relative_BHW.float()),
            )
        self.forget()

    def _write(self, sample_B: Tensor, box_B4: Tensor, relative_BHW: Tensor) -> None:
        """Carry a view's cells to the table cells whose centres they cover."""
        rows, columns = relative_BHW.shape[1:]
        row_BG, in_row_BG = _view_cells(box_B4[:, 1], box_B4[:, 3], self.grid, rows)
        column_BG, in_column_BG = _view_cells(box_B4[:, 0], box_B4[:, 2], self.grid, columns)
        new_BGG = relative_BHW.gather(1, row_BG[:, :, None].expand(-1, -1, columns))
        new_BGG = new_BGG.gather(2, column_BG[:, None, :].expand(-1, self.grid, -1))
        new_BGG = torch.where(in_row_BG[:, :, None] & in_column_BG[:, None, :], new_BGG, torch.nan)
        old_BGG = self.table_SGG[sample_B].float()
        mixed_BGG = torch.where(old_BGG.isnan(), new_BGG, self.momentum * old_BGG + (1 - self.momentum) * new_BGG)
        self.table_SGG[sample_B] = torch.where(new_BGG.isnan(), old_BGG, mixed_BGG).clamp(max=6e4).half()

    def forget(self) -> None:
        """Drop what was noted since the last `commit`: the step did not count."""
        self._seen = []


def _view_cells(low_B: Tensor, high_B: Tensor, grid: int, cells: int) -> tuple[Tensor, Tensor]:
    """For each table cell's centre along one side: the view's cell over it, and whether there is one, (B, grid)."""
    centre_G = (torch.arange(grid, device=low_B.device) + 0.5) / grid
    share_BG = (centre_G - low_B[:, None]) / (high_B - low_B)[:, None]
    return (share_BG * cells).long().clamp(0, cells - 1), (share_BG >= 0) & (share_BG < 1)


class PreviousBatch(nn.Module):
    """The released code's map: of the previous batch, smoothed. Joint over processes and saved, unlike there.

    Args:
        views: large views of a step, over all processes.
        cells: of a view.
    """

    previous_BN: Tensor
    mean_N: Tensor

    def __init__(self, views: int, cells: int) -> None:
        super().__init__()
        self.register_buffer("previous_BN", torch.full((views, cells), torch.nan))
        self.register_buffer("mean_N", torch.full((cells,), torch.nan))
        self._seen: list[Tensor] = []

    def read(self, sample_B: Tensor, _box_B4: Tensor, _rows: int, _columns: int) -> Difficulty:
        """The map at the same places of the batch before, whatever image that was."""
        first = distributed.rank() * len(sample_B)
        score_BN = self.previous_BN[first : first + len(sample_B)]
        known_B = ~score_BN[:, 0].isnan()
        return Difficulty(score_BN=score_BN.nan_to_num(0.0), known_B=known_B)

    def note(self, seen: Seen) -> None:
        """Remember until `commit`."""
        self._seen.append((seen.error_BHW.detach() * seen.mask_BHW).flatten(1))

    @torch.no_grad()
    def commit(self) -> None:
        """Smooth and keep what was noted since the last call."""
        if self._seen:
            self.previous_BN.copy_(self.smooth(distributed.gather_rows(torch.cat(self._seen))))
        self.forget()

    def smooth(self, map_BN: Tensor) -> Tensor:
        """The first map as it is; later ones mixed with the running mean per position, which follows first."""
        batch_mean_N = map_BN.mean(0)
        if self.mean_N[0].isnan():
            self.mean_N.copy_(batch_mean_N)
            return map_BN
        self.mean_N.mul_(SMOOTHING).add_(batch_mean_N, alpha=1 - SMOOTHING)
        return SMOOTHING * map_BN + (1 - SMOOTHING) * self.mean_N

    def forget(self) -> None:
        """Drop what was noted since the last `commit`: the step did not count."""
        self._seen = []


DifficultySource = DifficultyTable | PreviousBatch
