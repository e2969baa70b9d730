"""One file of a plan: kept as it is, taken over, copied, or downloaded from the first place that has it."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from openus_data.card import Download
from openus_data.errors import ChecksumMismatch, OpenUSDataError, SourceError, SourceRefused
from openus_data.fetch.ledger import Entry, Ledger
from openus_data.fetch.plan import BY_HAND, Wanted
from openus_data.fetch.report import FileReport
from openus_data.sources import RemoteFile, source_of
from openus_data.store import PART_SUFFIX
from openus_data.transfer import (
    SMALL_BYTES,
    VERIFIED_MTIME_NS,
    Engine,
    Job,
    Stopped,
    check_file,
    copy_file,
    forget_traces,
)

logger = logging.getLogger(__name__)


def move_file(want: Wanted, path: Path, ledger: Ledger, engine: Engine, stop: threading.Event) -> FileReport:
    """One file to its final name, from the first place that has it.

    Raises:
        OSError: of the disk.
        NoSpace: it is full.
        Stopped: on demand.
    """
    if stop.is_set():
        raise Stopped
    if is_kept(want, path, ledger):
        return FileReport(name=want.name, size_bytes=ledger.files[want.name].bytes, state="kept")
    failure: OpenUSDataError | None = None
    if (entry := _adopt(want, path)) is not None:
        ledger.note(want.name, entry)
        return FileReport(name=want.name, size_bytes=entry.bytes, state="kept")
    places: tuple[RemoteFile | Download, ...] = (want.remote, *want.others)
    for place in places:
        try:
            entry = _take(want, place, path, engine)
        except SourceError as error:
            failure = failure or error
            logger.warning("%s", error)
            continue
        ledger.note(want.name, entry)
        return FileReport(name=want.name, size_bytes=entry.bytes, state="downloaded")
    return FileReport(name=want.name, size_bytes=want.size_bytes, state="failed", error=str(failure))


def is_untouched(path: Path, entry: Entry) -> bool:
    """Whether a file has the size and the time that it got when it was checked."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return found.st_size == entry.bytes and found.st_mtime_ns == VERIFIED_MTIME_NS


def is_kept(want: Wanted, path: Path, ledger: Ledger) -> bool:
    """Whether a file is here, untouched since it was checked against all that is published today."""
    entry = ledger.files.get(want.name)
    if entry is None or not is_untouched(path, entry):
        return False
    held = {f"sha256:{entry.sha256}", *entry.checksums}
    return want.size_bytes in (None, entry.bytes) and held.issuperset(want.checksums)


def held_bytes(path: Path) -> int:
    """What an earlier run left of a file, and need not come again or makes room for what comes."""
    held = 0
    for left in (path, path.with_name(f"{path.name}{PART_SUFFIX}")):
        with suppress(FileNotFoundError):
            held += left.lstat().st_size
    return held


def _adopt(want: Wanted, path: Path) -> Entry | None:
    """A file that lies under its final name, though the ledger does not vouch for it: checked, and kept or removed."""
    if not path.is_file() or path.is_symlink():
        return None
    found = path.stat()
    if not want.checksums and (found.st_mtime_ns != VERIFIED_MTIME_NS or found.st_size < SMALL_BYTES):
        path.unlink()  # nothing could prove it: changed since, or not known to have reached the disk before a power cut
        return None
    try:
        sha256 = check_file(path, want.name, want.size_bytes, want.checksums, pinned=want.pinned)
    except ChecksumMismatch as error:
        if want.remote.source == BY_HAND:  # then `error` compares with the user's own file, which would mislead
            logger.warning("%s: what lies here is another file; what --from names takes its place", want.name)
        else:
            logger.warning("%s; fetching it again", error)
        path.unlink()
        return None
    forget_traces(path)  # a kill just after the renaming leaves them
    return _entry(want, want.remote.source, path.stat().st_size, sha256)


def _take(want: Wanted, place: RemoteFile | Download, path: Path, engine: Engine) -> Entry:
    remote = place if isinstance(place, RemoteFile) else _find(want, place, engine)
    if remote.local is not None:
        if not remote.local.is_file():
            raise SourceRefused(
                "there is no such file", where=want.name, next_step="see what the folder or mirror holds"
            )
        sha256 = copy_file(remote.local, path, want.size_bytes, want.checksums, pinned=want.pinned)
        return _entry(want, remote.source, path.stat().st_size, sha256)
    got = engine.download(
        Job(
            url=remote.url,
            target=path,
            source=remote.source,
            size_bytes=want.size_bytes,
            checksums=want.checksums,
            pinned=want.pinned,
            credentials=remote.credentials,
            through_page=remote.through_page,
        )
    )
    return _entry(want, remote.source, got.size_bytes, got.sha256)


def _find(want: Wanted, place: Download, engine: Engine) -> RemoteFile:
    """The same file at a mirror of the card."""
    found = source_of(place.source).list(place, engine.client)
    if len(found) == 1:
        return found[0]
    return next((f for f in found if f.filename == want.name), found[0])


def _entry(want: Wanted, url: str, size: int, sha256: str) -> Entry:
    return Entry(
        url=url,
        bytes=size,
        sha256=sha256,
        state="pinned" if want.pinned or not want.checksums else "verified",
        checksums=() if want.pinned else want.checksums,
    )
