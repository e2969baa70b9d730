"""What a build was made from, as one digest a dataset: equal digests, recipe and releases give an equal OUT.

inputs.add(dataset, item, fingerprint); inputs.add_reject(reject); inputs.digests()
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openus_data.records import Reject

_ID_LETTERS = 20


@dataclass(slots=True)
class Inputs:
    """Source files by keyed id and fingerprint, and rejects that belong to none of them; in any order.

    Attributes:
        turned_away: rejects so far.
    """

    turned_away: int = 0
    _files: dict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    _rejects: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def expect(self, dataset: str) -> None:
        """Name a dataset, which may turn out to have no file."""
        self._files[dataset] += b""

    def add(self, dataset: str, item: str, fingerprint: str) -> None:
        """Count a file that has a record."""
        self._files[dataset] += f"{item}{fingerprint}".encode()

    def add_reject(self, reject: Reject) -> None:
        """Count a reject that no record holds."""
        self.expect(reject.dataset)
        self._rejects[reject.dataset].append(f"{reject.item} {reject.stage} {reject.reason} {reject.detail}\n")
        self.turned_away += 1

    def items(self) -> Iterator[str]:
        """Ids of all files."""
        for files in self._files.values():
            for at in range(0, len(files), 2 * _ID_LETTERS):
                yield files[at : at + _ID_LETTERS].decode()

    def digests(self) -> dict[str, str]:
        """Digest of each dataset's inputs."""
        return {name: self._digest(name) for name in sorted(self._files)}

    def _digest(self, dataset: str) -> str:
        pairs: NDArray[np.bytes_] = np.sort(np.frombuffer(bytes(self._files[dataset]), f"S{2 * _ID_LETTERS}"))
        digest = hashlib.sha256(pairs.tobytes())
        digest.update("".join(sorted(self._rejects[dataset])).encode())
        return digest.hexdigest()
