"""What the barrier needs to know of every candidate: a few numbers each, no rows and no pixels.

About 150 bytes a sample in memory, and 1 KB in a file for the thumbnails; rows and encoded bytes stay where the journal
has them.
"""

from __future__ import annotations

import base64
import os
from array import array
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_data.duplicates import THUMBNAIL_PX, DuplicateSettings, Thumbnails, group, join_equal
from openus_data.first_stage.journal import Record
from openus_data.schema import SPLITS
from openus_data.split import ROLES, UNPUBLISHED, SplitInput

THUMBNAIL_BYTES: Final = THUMBNAIL_PX * THUMBNAIL_PX
KEY_LETTERS: Final = 20
_EXACT_LETTERS: Final = 32


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
        self._keys, self._exact = bytearray(), bytearray()
        self._dataset_names: dict[str, int] = {}
        self._numbers = {
            name: array("q") for name in ("dataset", "book", "start", "number", "size", "role", "published", "stored")
        }
        self._subject, self._chance = array("Q"), array("d")

    def __enter__(self) -> SampleTableBuilder:
        self._arrived.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._arrived.open("wb")
        return self

    def add(self, record: Record, book: int) -> None:
        """Take in the samples of one record."""
        for number, sample in enumerate(record.header["samples"]):
            row: Mapping[str, Any] = sample["row"]
            name = self._dataset_names.setdefault(row["dataset"], len(self._dataset_names))
            published = SPLITS.index(sample["published"]) if sample["published"] else UNPUBLISHED
            is_stored = int(bool(record.header["blobs"]) or sample["at"] is not None)
            role = ROLES.index(row["role"])
            values = (name, book, record.start, number, sample["size"], role, published, is_stored)
            for column, value in zip(self._numbers.values(), values, strict=True):
                column.append(value)
            self._keys += row["sample_id"][-KEY_LETTERS:].encode()
            self._exact += row["pixel_sha256"][:_EXACT_LETTERS].encode()
            self._subject.append(int(row["subject_id"][:16], 16))
            self._chance.append(sample["chance"])
            self._handle.write(base64.b64decode(sample["thumbnail"]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()

    def finish(self, settings: DuplicateSettings) -> SampleTable:
        """Sort the candidates and look for duplicates; called after the block."""
        keys = np.frombuffer(bytes(self._keys), dtype=f"S{KEY_LETTERS}")
        names = tuple(sorted(self._dataset_names))
        rank = np.array([names.index(n) for n in self._dataset_names], dtype=np.int64)
        columns = {name: np.frombuffer(column, dtype=np.int64) for name, column in self._numbers.items()}
        dataset = rank[columns["dataset"]] if len(keys) else columns["dataset"]
        order = np.lexsort((dataset, keys))
        exact = np.arange(len(order), dtype=np.int64)
        exact_keys = np.frombuffer(bytes(self._exact), dtype=f"S{_EXACT_LETTERS}")[order]
        join_equal(exact, exact_keys)
        near = group(self._sorted_thumbnails(order), settings)
        join_equal(near, exact_keys)
        subjects = np.frombuffer(self._subject, dtype=np.uint64)[order]
        return SampleTable(
            key=keys[order],
            dataset=dataset[order],
            datasets=names,
            book=columns["book"][order],
            start=columns["start"][order],
            number=columns["number"][order],
            size_bytes=columns["size"][order],
            is_stored=columns["stored"][order].astype(bool),
            split_input=SplitInput(
                subject=np.unique(subjects, return_inverse=True)[1].astype(np.int64),
                dataset=dataset[order],
                role=columns["role"][order],
                published=columns["published"][order],
                near=near,
                exact=exact,
                chance=np.frombuffer(self._chance, dtype=np.float64)[order],
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
