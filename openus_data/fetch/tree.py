"""From verified files to the dataset's tree: unpack or copy each one aside, then let `files/` appear whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from openus_data.archive import (
    Limits,
    Sink,
    copy_folder,
    is_archive,
    is_part,
    publish_folder,
    staging,
    unpack_inner,
    unpack_into,
)
from openus_data.archive.names import shown
from openus_data.errors import ArchiveLimit, DamagedArchive
from openus_data.fetch.ledger import Ledger, Tree
from openus_data.fetch.plan import Wanted
from openus_data.patterns import matches

logger = logging.getLogger(__name__)

FILES_DIR: Final = "files"
_UNPACKER: Final = 1
"""Raised whenever the same archive would give another tree."""
_POINTER: Final = b"version https://git-lfs.github.com/spec/v1"
_POINTER_BYTES: Final = 1024


def is_intact(folder: Path, tree: Tree | None) -> bool:
    """Whether the tree still has as many files and bytes as when it was made."""
    if tree is None or not folder.is_dir():
        return False
    sizes = [entry.stat(follow_symlinks=False).st_size for entry in _files(folder)]
    return (len(sizes), sum(sizes)) == (tree.files, tree.bytes)


def build_tree(wanted: Sequence[Wanted], folder: Path, ledger: Ledger, limits: Limits, stop: threading.Event) -> bool:
    """Make `files/` from the files below `archives/`, unless it is there already; returns whether it had to be made.

    Raises:
        ArchiveError: an archive is unsafe, damaged or beyond a bound; an older tree stays as it was.
    """
    parts = [
        [w.name, ledger.files[w.name].sha256, w.download.into, w.download.unpack, list(map(str, w.download.inner))]
        for w in wanted
    ]
    return _build(parts, folder, ledger, limits, stop, lambda sink: _fill(wanted, folder / "archives", sink))


def build_tree_from_folder(source: Path, folder: Path, ledger: Ledger, limits: Limits, stop: threading.Event) -> bool:
    """Make `files/` from a folder that the user has: archives at its top are unpacked, everything else is copied."""
    parts = [[os.path.relpath(e.path, source), e.stat().st_size, e.stat().st_mtime_ns] for e in _files(source)]
    return _build(sorted(parts), folder, ledger, limits, stop, lambda sink: _fill_from_folder(source, sink))


def _build(
    parts: object, folder: Path, ledger: Ledger, limits: Limits, stop: threading.Event, fill: Callable[[Sink], None]
) -> bool:
    stamp = hashlib.sha256(json.dumps([_UNPACKER, parts]).encode()).hexdigest()
    target = folder / FILES_DIR
    if ledger.tree is not None and ledger.tree.stamp == stamp and is_intact(target, ledger.tree):
        return False
    ledger.tree = None
    ledger.save()  # from here until the new tree is recorded, nothing on the disk counts as whole
    with staging(target) as aside:
        sink = Sink(aside, limits, stop)
        fill(sink)
        entries = _files(aside)
        if pointers := _count_pointers(entries):
            logger.warning("%s: %d files are Git LFS pointers, not the files themselves", folder.name, pointers)
        sizes = [entry.stat().st_size for entry in entries]
        publish_folder(aside, target)
    ledger.tree = Tree(stamp=stamp, files=len(sizes), bytes=sum(sizes))
    ledger.save()
    return True


def _fill(wanted: Sequence[Wanted], archives: Path, sink: Sink) -> None:
    for want in wanted:
        path = archives / want.name
        with sink.below(want.download.into):
            if not want.download.unpack or not (is_archive(path) or is_part(path)):
                sink.next_archive()
                sink.copy(want.name, path)
            elif not is_part(path):
                unpack_into(path, sink)
    for want in (w for w in wanted if w.download.inner):
        _unpack_inner(want, sink)
    if any(w.download.source == "github" for w in wanted) and (pointers := _count_pointers(_files(sink.root))):
        raise DamagedArchive(
            f"{pointers} files are Git LFS pointers, not the files themselves",
            next_step="clone the repository with git lfs and use --from",
        )


def _unpack_inner(want: Wanted, sink: Sink) -> None:
    """Unpack the archives in the archive that the card names, and those that come out of them, to the stated depth."""
    start = sink.root / want.download.into
    for depth in range(sink.limits.depth + 1):
        found = sorted(Path(e.path).relative_to(start).as_posix() for e in _files(start))
        inner = [n for n in found if any(matches(g, n) for g in want.download.inner) and not is_part(start / n)]
        if not inner:
            return
        if depth == sink.limits.depth:
            raise ArchiveLimit(
                "archives within archives go too deep", where=shown(inner[0]), expected=f"at most {depth} levels"
            )
        for name in inner:
            unpack_inner(sink.root, (start / name).relative_to(sink.root).as_posix(), sink)


def _fill_from_folder(source: Path, sink: Sink) -> None:
    at_top = sorted(e.name for e in os.scandir(source) if e.is_file(follow_symlinks=False))
    archives = [n for n in at_top if is_archive(source / n)]
    parts = [n for n in at_top if archives and is_part(source / n)]
    for name in archives:
        unpack_into(source / name, sink)
    sink.next_archive()
    copy_folder(source, sink, skip={*archives, *parts})
    if not sink.files:
        raise DamagedArchive("the folder holds no file", where="--from")


def _count_pointers(entries: Iterable[os.DirEntry[str]]) -> int:
    """How many files are the small texts that Git LFS leaves where the pictures should be."""
    count = 0
    for entry in entries:
        if entry.stat().st_size < _POINTER_BYTES:
            with Path(entry.path).open("rb") as handle:
                count += handle.read(len(_POINTER)) == _POINTER
    return count


def _files(folder: Path) -> list[os.DirEntry[str]]:
    """Every file below a folder."""
    found, waiting = [], [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    found.append(entry)
    return found
