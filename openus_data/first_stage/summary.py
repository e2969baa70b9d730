"""What the barrier needs of one record, in bytes that are read without unpacking the record.

summary = read_summary(pack_summary("busi", frames=1, skipped=0, rejects=0, samples=[SampleSummary(...)]))
summary.samples["key"], summary.thumbnails
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openus_data.duplicates import THUMBNAIL_PX

KEY_LETTERS: Final = 20
EXACT_LETTERS: Final = 32
THUMBNAIL_BYTES: Final = THUMBNAIL_PX * THUMBNAIL_PX
SAMPLE: Final = np.dtype(
    [
        ("key", f"S{KEY_LETTERS}"),
        ("exact", f"S{EXACT_LETTERS}"),
        ("subject", "<u8"),
        ("chance", "<f8"),
        ("size", "<i8"),
        ("role", "i1"),
        ("published", "i1"),
    ]
)
"""One sample; the names are those of `SampleSummary`."""
_HEAD: Final = struct.Struct("<BIIII")
"""Letters of the dataset's id, frames, frames skipped, rejects, samples; the id, the samples and thumbnails follow."""


class SampleSummary(NamedTuple):
    """What the barrier needs of one sample.

    Args:
        key: the hash in its id.
        exact: the first digits of the digest of its pixels.
        subject: number of its subject.
        chance: keyed hash of its subject, in [0, 1).
        size: bytes that it may take in a tar, at most.
        role: index into ROLES.
        published: index into SPLITS, or UNPUBLISHED.
    """

    key: bytes
    exact: bytes
    subject: int
    chance: float
    size: int
    role: int
    published: int


class Summary(NamedTuple):
    """What the barrier needs of one record.

    Args:
        dataset: its id.
        frames, skipped, rejects: how many there were.
        number: of samples.
        samples: `number` entries of SAMPLE.
        thumbnails: of the samples, one after the other.
    """

    dataset: str
    frames: int
    skipped: int
    rejects: int
    number: int
    samples: bytes
    thumbnails: bytes


def pack_summary(
    dataset: str,
    *,
    frames: int,
    skipped: int,
    rejects: int,
    samples: Sequence[SampleSummary],
    thumbnails: Sequence[bytes],
) -> bytes:
    """A summary as bytes; equal ones give equal bytes."""
    name = dataset.encode()
    head = _HEAD.pack(len(name), frames, skipped, rejects, len(samples))
    rows: NDArray[np.void] = np.array([tuple(sample) for sample in samples], dtype=SAMPLE)
    return b"".join((head, name, rows.tobytes(), *thumbnails))


def read_summary(packed: bytes) -> Summary:
    """What `pack_summary` was given."""
    letters, frames, skipped, rejects, count = _HEAD.unpack_from(packed)
    start = _HEAD.size + letters
    middle = start + count * SAMPLE.itemsize
    name = packed[_HEAD.size : start].decode()
    return Summary(name, frames, skipped, rejects, count, packed[start:middle], packed[middle:])
