"""Source files that need not be read again: their bytes were hashed before, and their size and times have not changed.

A fingerprint needs all bytes of a file, and reading 60 GB to find them unchanged takes minutes. This memory says which
(file, size, times, fingerprint) went together when the file was last read. It lies beside the sources, in ROOT/.seen,
never in OUT, since it holds clocks; without it a build reads every file again and gives the same bytes.

    memory = SeenFiles.load(root, out, dataset)
    if seen_key(item, file_states(item), fingerprint, terms) in memory: ...
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data.first_stage.records import DatasetTerms, item_text
from openus_data.records import Item
from openus_data.store import write_aside

SEEN_DIR: Final = ".seen"
_RACY_SECONDS: Final = 2.0
"""A file changed this shortly before it was read may change again within one tick of its file system's clock."""


class SeenFiles:
    """The keys of one dataset.

    Args:
        path: where they are kept.
        keys: uint64 (N,), sorted.
    """

    def __init__(self, path: Path, keys: NDArray[np.uint64]) -> None:
        self._path, self._keys = path, keys
        self._sorted = array("Q", keys.tobytes())

    @classmethod
    def load(cls, root: Path, out: Path, dataset: str) -> SeenFiles:
        """What earlier builds of this OUT saw; nothing where that cannot be read."""
        name = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]
        path = root / SEEN_DIR / name / f"{dataset}.npy"
        keys = np.empty(0, np.uint64)
        with suppress(OSError, ValueError, EOFError):
            found = np.load(path, allow_pickle=False)
            keys = np.sort(found) if found.dtype == np.uint64 and found.ndim == 1 else keys
        return cls(path, keys)

    def __contains__(self, key: int) -> bool:
        at = bisect_left(self._sorted, key)
        return at < len(self._sorted) and self._sorted[at] == key

    def save(self, keys: Iterable[int]) -> None:
        """Keep these keys for the next build; a folder that cannot be written costs time then, and nothing else."""
        found = np.sort(np.fromiter(set(keys), np.uint64))
        if np.array_equal(found, self._keys) or not self._path.parents[2].is_dir():
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(self._path) as handle:
                np.save(handle, found)


FileStates = tuple[tuple[int, int, int, int], ...]


def file_states(item: Item) -> FileStates | None:
    """Number, size and times of a file and its masks, to be taken before they are read; None while one is too new."""
    states = []
    for path in (item.path, *item.masks):
        try:
            state = path.stat()
        except OSError:
            return None
        if time.time() - max(state.st_mtime, state.st_ctime) < _RACY_SECONDS:
            return None
        states.append((state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return tuple(states)


def seen_key(item: Item, states: FileStates | None, fingerprint: str, terms: DatasetTerms) -> int | None:
    """Number of a file with this fingerprint in these states; None where the states say nothing."""
    if states is None:
        return None
    name = terms.pseudonymizer.identifier("seen", fingerprint, terms.settings, item_text(item), repr(states), length=16)
    return int(name, 16)
