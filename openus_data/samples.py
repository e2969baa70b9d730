"""Samples of a finished corpus, picture by picture, for those who look at them: preview, audit.

for sample in read_samples(out, table): sample.pixels
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from openus_data.errors import CorpusError
from openus_data.records import Pixels
from openus_data.schema import MASK_SUFFIX, METADATA_SUFFIX
from openus_data.shards import BLOCK_BYTES, member_length, tar_bytes, tar_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample.

    Args:
        row: its manifest row.
        pixels: uint8 (H, W) or (H, W, 3) RGB.
    """

    row: Mapping[str, Any]
    pixels: Pixels = field(repr=False)


def read_samples(out: Path, table: pa.Table) -> Iterator[Sample]:
    """The samples of some manifest rows, in their order, one in memory at a time.

    Raises:
        CorpusError: a shard is missing or an image does not decode.
    """
    for batch in table.to_batches(max_chunksize=512):
        for row in batch.to_pylist():
            yield Sample(row=row, pixels=read_pixels(out, row))


def read_pixels(out: Path, row: Mapping[str, Any]) -> Pixels:
    """Decode the image of one manifest row.

    Raises:
        CorpusError: its shard is missing, or the bytes at its offset are no picture.
    """
    try:
        with (out / row["shard"]).open("rb") as shard:
            shard.seek(row["offset"])
            data = shard.read(row["size_bytes"])
    except OSError:
        raise CorpusError("a shard is missing", where=row["shard"], next_step="run openus-data verify") from None
    grey = row["channels"] == 1
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    if pixels is None:
        where = f"{row['shard']}: {row['sample_id']}"
        raise CorpusError("an image does not decode", where=where, next_step="run openus-data verify")
    return np.asarray(pixels if grey else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def read_companions(out: Path, row: Mapping[str, Any]) -> dict[str, bytes]:
    """What lies behind a sample's image in its shard: `json`, and `mask.png` where the dataset has masks.

    Raises:
        CorpusError: the shard is missing or damaged there.
    """
    sample, found = str(row["sample_id"]), dict[str, bytes]()
    at = int(row["offset"]) - BLOCK_BYTES + tar_bytes(int(row["size_bytes"]))
    try:
        with (out / row["shard"]).open("rb") as shard:
            for _ in (METADATA_SUFFIX, MASK_SUFFIX):
                shard.seek(at)
                header = shard.read(BLOCK_BYTES)
                name = header[:100].rstrip(b"\0").decode("ascii", "replace")
                if not name.startswith(f"{sample}."):
                    break
                size = member_length(header)
                if size < 0 or tar_header(name, size) != header:
                    where = f"{row['shard']}: {sample}"
                    raise CorpusError("a damaged tar header", where=where, next_step="run openus-data verify")
                found[name.removeprefix(f"{sample}.")] = shard.read(size)
                at += tar_bytes(size)
    except OSError:
        raise CorpusError("a shard is missing", where=row["shard"], next_step="run openus-data verify") from None
    return found
