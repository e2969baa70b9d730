"""Have the weights seen what they would be tested on? Refused unless allowed, and said in the scores either way.

A run keeps `seen.parquet`, a row per image of its pretraining corpus; exported weights carry it on. An image counts as
seen when its pixels, its subject or its near-duplicate group are there, or its perceptual hash is near (32 of 256
bits).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from openus_model.corpus import Corpus
from openus_model.errors import ContaminatedError
from openus_model.seen import EVIDENCE, is_whole, read_seen

NEAR_BITS: Final = 32
UNKNOWN: Final[dict[str, Any]] = {"known": False, "contaminated": None, "images": None, "by": {}}
"""The answer where the weights do not say what they were trained on."""
_CHUNK: Final = 256


def seen_in_pretraining(weights: Path, corpus: Corpus, rows: NDArray[np.int64]) -> dict[str, Any]:
    """How many of these rows the weights have seen, and by what evidence.

    Returns:
        `{"known", "contaminated", "images", "of", "by"}`; `known` is false where the weights do not say all that they
        were trained on, and `contaminated` is then null, or true for what is known.
    """
    seen = read_seen(weights)
    if seen is None:
        return UNKNOWN
    mine = corpus.table.select(EVIDENCE).take(pa.array(rows))
    flags = {
        "pixels": _is_in(mine, seen, ("pixel_sha256",)),
        "subject": _is_in(mine, seen, ("dataset", "subject_id")),
        "duplicate_group": _is_in(mine, seen, ("duplicate_group",)),
        "perceptual_hash": _is_near(mine, seen),
    }
    together = np.logical_or.reduce(list(flags.values()))
    return {
        "known": is_whole(seen),
        "contaminated": True if together.any() else False if is_whole(seen) else None,
        "images": int(together.sum()),
        "of": len(rows),
        "by": {name: int(flag.sum()) for name, flag in flags.items()},
    }


def refuse_contaminated(found: Mapping[str, Any], dataset: str, allowed: bool) -> None:
    """Raise unless the weights are clean, unknown, or contamination was allowed.

    Raises:
        ContaminatedError: with the count and the way on.
    """
    if found["images"] and not allowed:
        by = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found["by"].items() if count)
        raise ContaminatedError(
            f"these weights have seen {found['images']} of {found['of']} test images or their subjects ({by})",
            where=dataset,
            next_step="evaluate weights pretrained without them, or add --allow-contaminated",
        )


def _is_in(mine: pa.Table, seen: pa.Table, columns: tuple[str, ...]) -> NDArray[np.bool_]:
    known = set(zip(*(seen.column(c).to_pylist() for c in columns), strict=True))
    rows = zip(*(mine.column(c).to_pylist() for c in columns), strict=True)
    return np.array([None not in row and row in known for row in rows], bool)


def _is_near(mine: pa.Table, seen: pa.Table) -> NDArray[np.bool_]:
    hashes, known = _words(mine, 1), _words(seen, 2)
    near = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), _CHUNK):
        part = hashes[start : start + _CHUNK]
        distance = np.zeros((len(part), len(known)), np.uint16)
        for word in range(4):
            distance += np.bitwise_count(part[:, None, word] ^ known[None, :, word])
        near[start : start + _CHUNK] = (distance <= NEAR_BITS).any(axis=1)
    return near


def _words(table: pa.Table, seed: int) -> NDArray[np.uint64]:
    """256-bit hashes as four words each; a blank hash (all zero) is none, and is made unlike any other."""
    texts = table.column("phash").to_pylist()
    words = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").reshape(-1, 4).astype(np.uint64)
    blank = ~words.any(axis=1)
    words[blank] = np.random.default_rng(seed).integers(0, 2**64, (int(blank.sum()), 4), dtype=np.uint64)
    return words
