"""Files that are on this machine already: the same promises as a download, without the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from openus_data.store import BLOCK_BYTES
from openus_data.transfer.digests import RunningDigests
from openus_data.transfer.disk import SpaceWatch, publish
from openus_data.transfer.engine import find_fault
from openus_data.transfer.part import Part


def copy_file(source: Path, target: Path, size_bytes: int | None, checksums: Sequence[str], *, pinned: bool) -> str:
    """Copy a file to its final name, if it is the published one; returns its SHA-256.

    Raises:
        ChecksumMismatch: it is another file; nothing is left under the final name.
        NoSpace: the disk is full.
    """
    part = Part(target, _algorithms(checksums), SpaceWatch(reserve_bytes=0))
    try:
        part.start_over()
        with source.open("rb") as content:
            while piece := content.read(BLOCK_BYTES):
                part.append(piece)
        digests = part.digests()
        fault = find_fault(target.name, part.held, digests, size_bytes, checksums, pinned=pinned)
        if fault is not None:
            part.start_over()
            raise fault
        part.publish()
    finally:
        part.close()
    return digests["sha256"]


def check_file(path: Path, name: str, size_bytes: int | None, checksums: Sequence[str], *, pinned: bool) -> str:
    """Check a file that has its final name already, and mark it as verified; returns its SHA-256.

    Raises:
        ChecksumMismatch: it is another file.
    """
    digests = RunningDigests(_algorithms(checksums))
    with path.open("rb") as content:
        while piece := content.read(BLOCK_BYTES):
            digests.update(piece)
        found = digests.hexdigests()
        size = os.fstat(content.fileno()).st_size
        fault = find_fault(name, size, found, size_bytes, checksums, pinned=pinned)
        if fault is not None:
            raise fault
        publish(content.fileno(), path, path, size)
    return found["sha256"]


def _algorithms(checksums: Sequence[str]) -> set[str]:
    return {c.partition(":")[0] for c in checksums}
