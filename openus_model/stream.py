"""Shards to batches of views: every batch a pure function of (seed, step).

    stream = ShardStream("OUT", batch_size=32, seed=7, groups=groups, workers=4)
    for batch in stream: ...

Shards are read by the manifest's offsets on a local disk; remote shards are copied there first and checked against
their sidecars (see `remote`). That is why resuming is one integer, why every rank has the same number of steps however
uneven the shards are, and why the world size may change when the global batch does not. A sample that cannot be read is
named, counted and replaced by another, up to a stated share; beyond it the stream stops.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from openus_model.contracts import Batch
from openus_model.corpus import Corpus, CorruptSample
from openus_model.errors import DataError, UsageError
from openus_model.order import Order, balanced_weights, view_generator
from openus_model.remote import local_copy
from openus_model.views import CropGroup, ViewParams, multi_crop
from openus_model.views.apply import CELL_PX

logger = logging.getLogger(__name__)

DEFAULT_GROUPS = (
    CropGroup(count=2, size=224, scale=(0.14, 1.0), blur_prob=(1.0, 0.1), solarize_prob=(0.0, 0.2)),
    CropGroup(count=8, size=96, scale=(0.05, 0.4), blur_prob=(0.5,)),
)
"""The paper's views: two of 224 pixels and eight of 96 (algorithm, section h)."""
FACTS = ("dataset", "organ", "device_manufacturer")
"""Manifest columns that travel with a batch."""
MAX_REPLACEMENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    views: tuple[NDArray[np.uint8], ...]
    valid: tuple[NDArray[np.float32], ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    index: int
    bad: tuple[tuple[str, str], ...]


class ShardStream:
    """An endless iterable of `Batch`; `state_dict` is its position.

    Args:
        data: an OUT that `openus-data build` made: a folder, or a URL that is copied to `cache` first.
        split: which split to read; `test` and `val` are refused unless asked for here by name.
        batch_size: images per rank and step.
        seed: of the order and of every view.
        groups: kinds of views, large ones first.
        workers: processes that decode; 0 decodes in this one. Does not change any batch.
        rank, world_size: this process's slice of the global batch.
        where: SQL condition over manifest columns.
        balance: columns to balance over; empty leaves the mix as it is.
        balance_temperature: see `order.balanced_weights`.
        max_bad_share: share of the samples that may be unreadable before the stream stops; above 0, one always may.
        allow_missing: go on without shards that are not there.
        cache: folder for copies of remote shards.

    Raises:
        DataError: no manifest, missing shards, too many unreadable samples, or fewer samples than a global batch.
        UsageError: a bad condition or column.
    """

    def __init__(
        self,
        data: str | Path,
        split: str = "pretrain",
        *,
        batch_size: int,
        seed: int = 0,
        groups: Sequence[CropGroup] = DEFAULT_GROUPS,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        where: str | None = None,
        balance: Sequence[str] = (),
        balance_temperature: float = 0.5,
        max_bad_share: float = 0.001,
        allow_missing: bool = False,
        cache: Path | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UsageError("impossible batch or rank", got=f"batch_size {batch_size}, rank {rank} of {world_size}")
        root = local_copy(str(data), split, cache)
        self.corpus = Corpus.open(root, split=split, where=where, allow_missing=allow_missing)
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.rank, self.world_size = rank, world_size
        self.groups = tuple(groups)
        self.max_bad_share = max_bad_share
        self.skipped: dict[str, str] = {}
        self._step = 0
        self._order = Order(len(self.corpus), seed, _weights(self.corpus, balance, balance_temperature))

    def __len__(self) -> int:
        """Steps per epoch: whole global batches in the corpus, at least one."""
        return max(1, len(self.corpus) // (self.batch_size * self.world_size))

    @property
    def step(self) -> int:
        """Index of the next batch."""
        return self._step

    def state_dict(self) -> dict[str, int | str]:
        """The position, and what it is a position in."""
        return {
            "step": self._step,
            "seed": self.seed,
            "global_batch": self.batch_size * self.world_size,
            "samples": len(self.corpus),
            "manifest_sha256": self.corpus.digest,
        }

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Go to a saved position.

        Raises:
            DataError: the position is of another corpus, seed or global batch, where it would mean other samples.
        """
        for name, value in self.state_dict().items():
            if name != "step" and state[name] != value:
                raise DataError(
                    f"the saved position is of another {name}",
                    expected=str(state[name]),
                    got=str(value),
                    next_step="resume on the same shards, filter, seed and global batch, or start a new run",
                )
        self._step = int(state["step"])

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on, without end."""
        loader = DataLoader(
            _Views(self.corpus, self._order, self.groups, self.seed),
            batch_sampler=_Places(self._step, self.batch_size, self.rank, self.world_size),
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_quiet_worker,
            generator=torch.Generator().manual_seed(self.seed),  # its own: iterating must not draw from the global one
            prefetch_factor=4 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        for batch, bad, indices in loader:
            self._count(bad)
            self._step += 1
            yield self._with_facts(batch, indices)

    def _with_facts(self, batch: Batch, indices: Sequence[int]) -> Batch:
        columns = {name: self.corpus.column(name) for name in FACTS}
        ids = self.corpus.column("sample_id")
        return Batch(
            global_BVCHW=batch.global_BVCHW,
            local_BVCHW=batch.local_BVCHW,
            global_valid_BVHW=batch.global_valid_BVHW,
            local_valid_BVHW=batch.local_valid_BVHW,
            sample_ids=tuple(ids[i] for i in indices),
            sample_index_B=batch.sample_index_B,
            global_box_BV4=batch.global_box_BV4,
            row_B=tuple({name: values[i] for name, values in columns.items()} for i in indices),
        )

    def _count(self, bad: Sequence[tuple[str, str]]) -> None:
        for name, reason in bad:
            if name not in self.skipped:
                logger.warning("a sample was left out, another stands in for it: %s", reason)
                self.skipped[name] = reason
        allowed = max(self.max_bad_share * len(self.corpus), 1.0) if self.max_bad_share else 0.0
        if len(self.skipped) > allowed:
            raise DataError(
                f"{len(self.skipped)} unreadable samples, first {next(iter(self.skipped.values()))}",
                expected=f"at most {allowed:.0f} (data.max_bad_share={self.max_bad_share:g})",
                next_step="run openus-data verify",
            )


class _Places:
    """Endless batches of places for one rank: the batch sampler."""

    def __init__(self, step: int, batch_size: int, rank: int, world_size: int) -> None:
        self.step, self.batch_size, self.rank, self.world_size = step, batch_size, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
            step += 1


class _Views(Dataset[_Sample]):
    """Place to views; pure, so that it does not matter which worker is asked."""

    def __init__(self, corpus: Corpus, order: Order, groups: tuple[CropGroup, ...], seed: int) -> None:
        self.corpus, self.order, self.groups, self.seed = corpus, order, groups, seed

    def __getitem__(self, place: int) -> _Sample:
        rng = view_generator(self.seed, place)
        index = int(self.order.at(place, 1)[0])
        bad: list[tuple[str, str]] = []
        while True:
            try:
                image = self.corpus.image(index)
                break
            except CorruptSample as error:
                bad.append((self.corpus.row(index, ["sample_id"])["sample_id"], error.fault))
                if len(bad) >= MAX_REPLACEMENTS:
                    raise
                index = int(rng.integers(0, len(self.corpus)))
        views = [v for group in multi_crop(image, self.corpus.polygon(index), self.groups, rng) for v in group]
        return _Sample(
            views=tuple(v.pixels for v in views),
            valid=tuple(v.valid for v in views),
            boxes=tuple(_place_in_image(v.params, image.shape) for v in views),
            index=index,
            bad=tuple(bad),
        )


def _collate(samples: list[_Sample]) -> tuple[Batch, list[tuple[str, str]], list[int]]:
    """Stack views by size: the first size is the global group, the other the local one."""
    sizes = [view.shape[0] for view in samples[0].views]
    colour = any(view.ndim == 3 for sample in samples for view in sample.views)
    large = [k for k, size in enumerate(sizes) if size == sizes[0]]
    small = [k for k, size in enumerate(sizes) if size != sizes[0]]
    indices = [sample.index for sample in samples]
    batch = Batch(
        global_BVCHW=_stack_pixels(samples, large, sizes[0], colour),
        local_BVCHW=_stack_pixels(samples, small, sizes[small[0]] if small else sizes[0], colour),
        global_valid_BVHW=_stack_valid(samples, large, sizes[0]),
        local_valid_BVHW=_stack_valid(samples, small, sizes[small[0]] if small else sizes[0]),
        sample_ids=(),
        global_box_BV4=torch.tensor([[sample.boxes[k] for k in large] for sample in samples]),
        sample_index_B=torch.tensor(indices, dtype=torch.int64),
    )
    return batch, [b for sample in samples for b in sample.bad], indices


def _place_in_image(params: ViewParams, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The crop as shares of the image; left and right change places in a flipped view."""
    x, y, w, h = params.box
    left, right = x / shape[1], (x + w) / shape[1]
    return (right if params.flip else left), y / shape[0], (left if params.flip else right), (y + h) / shape[0]


def _stack_pixels(samples: list[_Sample], picked: list[int], size: int, colour: bool) -> torch.Tensor:
    channels = 3 if colour else 1
    stacked = torch.empty(len(samples), len(picked), channels, size, size, dtype=torch.uint8)
    for b, sample in enumerate(samples):
        for v, k in enumerate(picked):
            view = torch.from_numpy(sample.views[k])
            stacked[b, v] = view if view.ndim == 2 else view.permute(2, 0, 1)
    return stacked


def _stack_valid(samples: list[_Sample], picked: list[int], size: int) -> torch.Tensor:
    cells = size // CELL_PX
    stacked = torch.empty(len(samples), len(picked), cells, cells)
    for b, sample in enumerate(samples):
        for v, k in enumerate(picked):
            stacked[b, v] = torch.from_numpy(sample.valid[k])
    return stacked


def _quiet_worker(_worker: int) -> None:
    """A worker has one core: threads inside it only get in each other's way."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _weights(corpus: Corpus, columns: Sequence[str], temperature: float) -> NDArray[np.float64] | None:
    if not columns:
        return None
    unknown = [name for name in columns if name not in corpus.table.column_names]
    if unknown:
        raise UsageError("no such column to balance over", got=unknown[0], expected="a manifest column")
    return balanced_weights(list(zip(*(corpus.column(name) for name in columns), strict=True)), temperature)
