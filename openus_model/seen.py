"""What weights were trained on: `seen.parquet`, a row per image, beside a run's checkpoints and carried on by `export`.

It holds pseudonyms and hashes, no pixel: enough to ask whether a test image was seen (`evaluate.contamination`), and to
fill in a model card (`model_card`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from openus_model.checkpoint import STATE
from openus_model.corpus import Corpus

SEEN: Final = "seen.parquet"
WHOLE: Final = "whole"
EVIDENCE: Final = ("dataset", "subject_id", "duplicate_group", "pixel_sha256", "phash")
"""What contamination is decided by."""
ABOUT: Final = ("license", "redistributable", "organ", "device_manufacturer")
"""What a model card says of it."""


def write_seen(folder: Path, corpus: Corpus, before: Path | None = None) -> None:
    """Keep what a run trains on, beside its weights; whole or not at all.

    Args:
        folder: of the run.
        corpus: what it trains on.
        before: folder of the weights that it starts from; what they have seen counts too. Where they do not say, the
            file says that it is not whole.
    """
    tables = [corpus.table.select([*EVIDENCE, *ABOUT])]
    earlier = None if before is None else read_seen(before)
    if earlier is not None:
        tables.append(earlier)
    whole = before is None or (earlier is not None and is_whole(earlier))
    joined = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata({WHOLE: str(whole)})
    aside = folder / f".{SEEN}.{os.getpid()}.part"
    pq.write_table(joined, aside, compression="zstd")
    aside.replace(folder / SEEN)


def is_whole(seen: pa.Table) -> bool:
    """Whether these rows are all that the weights have seen: not where they started from weights that do not say."""
    return (seen.schema.metadata or {}).get(WHOLE.encode()) != b"False"


def find_seen(weights: Path) -> Path | None:
    """The file beside weights: in their folder, or in the run that a checkpoint belongs to."""
    folder = weights.parent.parent if (weights / STATE).is_file() else weights
    return folder / SEEN if (folder / SEEN).is_file() else None


def read_seen(weights: Path) -> pa.Table | None:
    """The rows beside weights; None where they do not say."""
    path = find_seen(weights)
    return None if path is None else pq.read_table(path, partitioning=None)
