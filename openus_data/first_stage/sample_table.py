"""What the barrier needs to know of every candidate: a few numbers each, no rows and no pixels.

About 150 bytes a sample in memory, and 1 KB in a file for the thumbnails; rows and encoded bytes stay where the journal
has them.
"""

from __future__ import annotations

import json
import os
from array import array
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from openus_data.duplicates import THUMBNAIL_PX, DuplicateSettings, Thumbnails, group, join_equal
from openus_data.first_stage.journal import Found
from openus_data.first_stage.summary import SAMPLE, THUMBNAIL_BYTES, Summary
from openus_data.split import SplitInput


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """Candidates in the order of their keyed hash; every column is (N,).

    Args:
        key: the hash of each sample's id, bytes.
        dataset: number of the dataset, in the order of `datasets`.
        datasets: ids, sorted.
        book: 0 where the record lies in OUT/.records, 1 in the staging journal.
        start: where the record starts there.
        number: which of the record's samples it is.
        size_bytes: what it may take in a tar, at most.
        is_stored: whether its encoded bytes lie anywhere; those of samples that no split held were not kept.
        split_input: what decides on splits.
    """

    key: NDArray[np.bytes_]
    dataset: NDArray[np.int64]
    datasets: tuple[str, ...]
    book: NDArray[np.int64]
    start: NDArray[np.int64]
    number: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    is_stored: NDArray[np.bool_]
    split_input: SplitInput

    def __len__(self) -> int:
        return len(self.key)


class SampleTableBuilder(AbstractContextManager["SampleTableBuilder"]):
    """Collects candidates in any order.

    Args:
        folder: where the thumbnails wait.
    """

    def __init__(self, folder: Path) -> None:
        self._arrived, self._sorted = folder / "thumbnails.arrived", folder / "thumbnails.sorted"
        self._samples = bytearray()
        self._dataset_names: dict[str, int] = {}
        self._places = array("q")
        """Dataset, book, start, number and whether it is stored, sample by sample."""

    def __enter__(self) -> SampleTableBuilder:
        self._arrived.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._arrived.open("wb")
        return self

    def add(self, found: Found, summary: Summary, book: int) -> None:
        """Take in the samples of one record."""
        if not summary.number:
            return
        name = self._dataset_names.setdefault(summary.dataset, len(self._dataset_names))
        places = [True] * summary.number if found.places is None else json.loads(found.places)
        for number, place in enumerate(places):
            self._places.extend((name, book, found.mark.start, number, place is not None))
        self._samples += summary.samples
        self._handle.write(summary.thumbnails)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()

    def finish(self, settings: DuplicateSettings) -> SampleTable:
        """Sort the candidates and look for duplicates; called after the block."""
        names = tuple(sorted(self._dataset_names))
        rank = np.array([names.index(n) for n in self._dataset_names], dtype=np.int64)
        samples = np.frombuffer(self._samples, dtype=SAMPLE)
        places = np.frombuffer(self._places, dtype=np.int64).reshape(-1, 5)
        dataset = rank[places[:, 0]] if len(samples) else places[:, 0]
        order = np.lexsort((dataset, samples["key"]))
        samples, places, dataset = samples[order], places[order], dataset[order]
        exact = np.arange(len(order), dtype=np.int64)
        exact_keys = np.ascontiguousarray(samples["exact"])
        join_equal(exact, exact_keys)
        near = group(self._sorted_thumbnails(order), settings)
        join_equal(near, exact_keys)
        _, book, start, number, stored = np.ascontiguousarray(places.T)
        return SampleTable(
            key=np.ascontiguousarray(samples["key"]),
            dataset=dataset,
            datasets=names,
            book=book,
            start=start,
            number=number,
            size_bytes=samples["size"].astype(np.int64),
            is_stored=stored.astype(bool),
            split_input=SplitInput(
                subject=np.unique(samples["subject"], return_inverse=True)[1].astype(np.int64),
                dataset=dataset,
                role=samples["role"].astype(np.int64),
                published=samples["published"].astype(np.int64),
                near=near,
                exact=exact,
                chance=samples["chance"].astype(np.float64),
            ),
        )

    def _sorted_thumbnails(self, order: NDArray[np.int64]) -> Thumbnails:
        shape = (len(order), THUMBNAIL_PX, THUMBNAIL_PX)
        if not len(order):
            return np.empty(shape, np.uint8)
        with self._arrived.open("rb") as arrived, self._sorted.open("wb") as ordered:
            for place in order.tolist():  # read and written, not mapped: the whole file would count as memory twice
                ordered.write(os.pread(arrived.fileno(), THUMBNAIL_BYTES, place * THUMBNAIL_BYTES))
        return np.memmap(self._sorted, np.uint8, "r", shape=shape)
