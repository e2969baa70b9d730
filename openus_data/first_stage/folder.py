"""The folder OUT/.staging: what is done so far, what is new, and what earlier builds left to be used again.

OUT/.records             headers and thumbnails of every source file, sorted; kept between builds
OUT/.staging/journal     the same with the encoded pictures, for files worked on since the last build
OUT/.staging/new/        the finished outputs before they get their names (see publish)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from openus_data.errors import CorpusError, UsageError
from openus_data.first_stage.journal import (
    Blob,
    Found,
    Header,
    Journal,
    Record,
    find_record,
    find_records,
    read_marks,
    read_record,
)
from openus_data.first_stage.summary import read_summary
from openus_data.records import Reject
from openus_data.schema import BUILD_NAME
from openus_data.shards import list_shards, read_sidecar

STAGING_DIR: Final = ".staging"
RECORDS_NAME: Final = ".records"
JOURNAL_NAME: Final = "journal"
NEW_DIR: Final = "new"
RECORDS_BOOK, JOURNAL_BOOK = 0, 1
_PLACE_BITS: Final = 64


class Staging(AbstractContextManager["Staging"]):
    """What has been done on each source file, by the file's keyed id.

    Args:
        out: the OUT folder, already locked.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / STAGING_DIR
        self.new = self.folder / NEW_DIR
        self._out = out
        self._journal = Journal(self.folder / JOURNAL_NAME)
        self._paths = book_paths(out)
        self._places: dict[int, int] = {}
        """By the file's id as a number: fingerprint, start and book as one number, so that a million fit."""

    def __enter__(self) -> Staging:
        self._journal.__enter__()
        self._handles = [path.open("rb", buffering=0) if path.exists() else None for path in self._paths]
        for number, fingerprint, start in _stored_records(self._out):
            self._places[number] = _known_place(fingerprint, start, RECORDS_BOOK)
        for mark in read_marks(self._paths[JOURNAL_BOOK]):
            self._places[mark.item] = _known_place(mark.fingerprint, mark.start, JOURNAL_BOOK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            if handle is not None:
                handle.close()
        self._journal.__exit__(kind, error, trace)

    @property
    def holds_any(self) -> bool:
        """Whether work was done on any source file."""
        return bool(self._places)

    def known(self, item: str) -> str | None:
        """Fingerprint of the work that was done on a source file, or None."""
        place = self._places.get(_number(item))
        return None if place is None else item_name(place >> _PLACE_BITS)

    def place(self, item: str) -> tuple[int, int]:
        """Book and start of the record of a known source file."""
        place = self._places[_number(item)] & ((1 << _PLACE_BITS) - 1)
        return place % 2, place // 2

    def record_at(self, book: int, start: int) -> Record:
        """The record that starts at a known place of a book."""
        return read_record(self._paths[book], self._handle(book), start)

    def packed_at(self, book: int, start: int) -> Found:
        """The same with its header still packed."""
        return find_record(self._paths[book], self._handle(book), start)

    def carried(self, datasets: set[str]) -> Iterator[Found]:
        """Records of the last build that belong to these datasets.

        Raises:
            UsageError: pictures of theirs are gone, and their files are not at hand.
        """
        for found in find_records(self._paths[RECORDS_BOOK]):
            dataset = read_summary(found.summary).dataset
            if dataset not in datasets:
                continue
            if found.mark.item not in self._places:
                raise UsageError("pictures of earlier builds are gone", where=dataset,
                                 next_step="name this dataset too, so that it is built again")  # fmt: skip
            yield found

    def keep(self, item: str, fingerprint: str, parts: Sequence[bytes]) -> None:
        """Add the record of one source file; an earlier record of it no longer counts."""
        start = self._journal.append(parts)
        self._places[_number(item)] = _known_place(_number(fingerprint), start, JOURNAL_BOOK)

    def forget(self, items: set[str]) -> None:
        """Have these source files worked on again."""
        for item in items:
            self._places.pop(_number(item), None)

    def _handle(self, book: int) -> FileIO:
        handle = self._handles[book]
        if handle is None:
            raise CorpusError("a staged record is gone", where=RECORDS_NAME, next_step="run the build again")
        return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where the bytes of a candidate lie now.

    Args:
        image: the encoded picture.
        mask: the encoded mask, or None.
    """

    image: Blob
    mask: Blob | None


def book_paths(out: Path) -> tuple[Path, Path]:
    """The files that hold records, by book number."""
    return out / RECORDS_NAME, out / STAGING_DIR / JOURNAL_NAME


def stored(out: Path, record: Record, number: int) -> Stored | None:
    """Where the bytes of one sample of a record lie: behind it, or in a shard of the last build; None if nowhere."""
    samples = record.header["samples"]
    if record.header["blobs"]:
        blobs = record.blobs()
        first = sum(1 + s["has_mask"] for s in samples[:number])
        return Stored(image=blobs[first], mask=blobs[first + 1] if samples[number]["has_mask"] else None)
    place = samples[number].get("at")
    if place is None:
        return None
    image, mask = (
        None if p is None else Blob(path=out / place["shard"], offset=p[0], size=p[1], crc=p[2])
        for p in (place["image"], place["mask"])
    )
    return None if image is None else Stored(image=image, mask=mask)


def rejects_of(header: Header) -> Iterator[Reject]:
    """The rejects of one record."""
    for stage, reason, detail in header["rejects"]:
        yield Reject(dataset=header["dataset"], item=header["item"], stage=stage, reason=reason, detail=detail)


def undecided_row(row: Mapping[str, object]) -> str:
    """A sample's row as JSON; equal rows give equal text. `decided_row` fills in what is null until the barrier."""
    whole = {**row, "split": None, "duplicate_group": None}
    return json.dumps(whole, sort_keys=True, ensure_ascii=False, allow_nan=False)


def decided_row(undecided: str, *, split: str, duplicate_group: str | None) -> str:
    """The same with its split and group.

    In JSON a quote within a text has a backslash before it, so that only the row's own members are found.
    """
    for name, value in (("split", split), ("duplicate_group", duplicate_group)):
        if value is not None:
            undecided = undecided.replace(f'"{name}": null', f'"{name}": {json.dumps(value)}', 1)
    return undecided


def item_name(number: int) -> str:
    """A keyed id from its number."""
    return f"{number:020x}"


def _number(name: str) -> int:
    """A keyed id of 20 hexadecimal digits as a number: a tenth of the memory."""
    return int(name, 16)


def _known_place(fingerprint: int, start: int, book: int) -> int:
    return fingerprint << _PLACE_BITS | 2 * start + book


def _stored_records(out: Path) -> Iterator[tuple[int, int, int]]:
    """Id, fingerprint and start of every record of the last build whose samples all lie in whole shards."""
    records = out / RECORDS_NAME
    if is_whole(out):
        yield from ((mark.item, mark.fingerprint, mark.start) for mark in read_marks(records))
        return
    sound = {name for name in list_shards(out) if _size_of(out / name) is not None}
    for mark, _, _, places in find_records(records):
        if places is not None and all(at is None or at["shard"] in sound for at in json.loads(places)):
            yield mark.item, mark.fingerprint, mark.start


def is_whole(out: Path) -> bool:
    """Whether every shard that build.json names is there with its sidecar, as long as it says, and no other is."""
    named = read_build(out).get("shards")
    return named is not None and named.keys() == set(list_shards(out)) and all(
        _size_of(out / name) == shard["bytes"] for name, shard in named.items()
    )  # fmt: skip


def read_build(out: Path) -> dict[str, Any]:
    """The content of OUT/build.json; empty where there is none or it cannot be read."""
    try:
        content: dict[str, Any] = json.loads((out / BUILD_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _size_of(shard: Path) -> int | None:
    """Bytes of a shard that is as long as its sidecar says; None of others."""
    try:
        size = shard.stat().st_size
        return size if read_sidecar(shard).size_bytes == size else None
    except (CorpusError, FileNotFoundError):
        return None
