"""`fetch(cards, root)`: reads top to bottom as what happens to one dataset.

    permission -> plan (listings) -> downloads in parallel -> ledger -> tree

Every step may be stopped or killed; the next run goes on from what is whole.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from openus_data.archive import Limits, is_about
from openus_data.card import Card
from openus_data.errors import (
    DamagedArchive,
    NeedsPerson,
    NoSpace,
    OpenUSDataError,
    UsageError,
)
from openus_data.fetch.ledger import Ledger, load_ledger
from openus_data.fetch.meter import Meter
from openus_data.fetch.one_file import held_bytes, is_kept, is_untouched, move_file
from openus_data.fetch.plan import (
    BY_HAND,
    Wanted,
    make_plan,
    plan_from_archive,
    plan_from_folder,
    require_permission,
)
from openus_data.fetch.report import DatasetReport, FetchReport, FileReport
from openus_data.fetch.tree import FILES_DIR, build_tree, build_tree_from_folder, is_intact
from openus_data.fetch.workers import Workers
from openus_data.store import PART_SUFFIX, folder_lock, free_bytes
from openus_data.transfer import BAD_SUFFIX, Engine, Policy

logger = logging.getLogger(__name__)

ARCHIVES_DIR: Final = "archives"
_OTHER_ROOT: Final = "name a --root that you may write to"
_IN_THE_WAY: Final = "something else stands where fetch writes; move it away"
_MAY_NOT_WRITE: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_NEXT_STEPS: Final = {
    **dict.fromkeys(_MAY_NOT_WRITE, _OTHER_ROOT),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), _IN_THE_WAY),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and run this again"),
}
_LAST_WORDS_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What all datasets of one call share."""

    root: Path
    mirror: str | None
    accept: frozenset[str]
    dry_run: bool
    engine: Engine
    transfers: Workers
    stop: threading.Event
    limits: Limits
    meter: Meter


def fetch(
    cards: Sequence[Card],
    root: Path,
    *,
    from_path: Path | None = None,
    mirror: str | None = None,
    accept: Collection[str] = (),
    jobs: int = 4,
    dry_run: bool = False,
    quiet: bool = False,
    policy: Policy | None = None,
    limits: Limits | None = None,
) -> FetchReport:
    """Download, verify and unpack datasets into `root/<id>/`.

    Args:
        cards: the datasets; the report keeps their order.
        root: where they go.
        from_path: an archive or a folder that the user has; with several cards, a folder with one of these per id.
        mirror: take each file from `mirror/<id>/<filename>`, a URL or a folder.
        accept: ids whose terms a person has accepted.
        jobs: downloads at once.
        dry_run: only list.
        quiet: no progress bar.
        policy, limits: bounds of transfers and of unpacking.

    Raises:
        UsageError: the call cannot be carried out as written; nothing was done.
        KeyboardInterrupt: what was finished stays, the rest is left as `.part` for the next run.
    """
    if not cards:
        raise UsageError("nothing to fetch", next_step="name datasets, or give --all-open; openus-data list shows them")
    sources = _given(cards, from_path)
    stop = threading.Event()
    meter = Meter(quiet=quiet or dry_run)
    engine = Engine(policy or Policy(), stop, meter)
    transfers, datasets = Workers(jobs, "transfer"), Workers(min(jobs, max(1, len(cards))), "dataset")
    run = _Run(
        root=root,
        mirror=mirror,
        accept=frozenset(accept),
        dry_run=dry_run,
        engine=engine,
        transfers=transfers,
        stop=stop,
        limits=limits or Limits(),
        meter=meter,
    )
    try:
        with meter:
            futures = [datasets.submit(partial(_fetch_one, card, sources.get(card.id), run)) for card in cards]
            reports = tuple(f.result() for f in futures)
    except BaseException:
        stop.set()
        for workers in (datasets, transfers):
            workers.close(_LAST_WORDS_S)
        raise
    for workers in (datasets, transfers):
        workers.close()
    return FetchReport(datasets=reports, free_bytes=free_bytes(root) if dry_run else None)


def _given(cards: Sequence[Card], from_path: Path | None) -> dict[str, Path]:
    """What the user has, by dataset.

    Raises:
        UsageError: it is not there.
    """
    if from_path is None:
        return {}
    paths = {card.id: from_path / card.id if len(cards) > 1 else from_path for card in cards}
    for identifier, path in paths.items():
        if not (path.is_file() or path.is_dir()):
            raise UsageError("--from names nothing that exists", where=identifier, expected="an archive or a folder")
    return {str(i): p for i, p in paths.items()}


def _fetch_one(card: Card, given: Path | None, run: _Run) -> DatasetReport:
    """One dataset to its report; whatever goes wrong ends here."""
    report = partial(DatasetReport, id=card.id, warnings=card.warnings)
    try:
        if run.dry_run:
            return _dry_run(card, given, run)
        with folder_lock(run.root / card.id):
            return _fetch_locked(card, given, run)
    except NeedsPerson as error:
        return report(state="needs-person", error=str(error), obtain=card.obtain)
    except OpenUSDataError as error:
        return report(state="failed", error=str(error))
    except OSError as error:
        if error.errno in _MAY_NOT_WRITE and given is None and (there := _there_already(card, run)) is not None:
            return there
        return report(state="failed", error=_os_line(error, run.root))
    except Exception as error:  # the edge of one dataset: a fault of ours must not stop the others
        return report(state="failed", error=f"a fault in openus-data itself: {type(error).__name__}; please report it")


def _there_already(card: Card, run: _Run) -> DatasetReport | None:
    """The report of a dataset that is complete in a place that we may only read, such as a shared copy."""
    folder = run.root / card.id
    ledger = load_ledger(folder, card.id)
    try:
        return _report(card, "unchanged", ledger) if _is_complete(card, folder, ledger) else None
    except OSError:
        return None


def _os_line(error: OSError, root: Path) -> str:
    """What the system refused, where below ROOT, and what to do about it."""
    words = os.strerror(error.errno).lower() if error.errno else type(error).__name__
    place = os.path.relpath(error.filename, root) if isinstance(error.filename, str) else ""
    where = "ROOT" if place.startswith(os.curdir) else place
    parts = [f"{where}: {words}" if where else words, _NEXT_STEPS.get(error.errno or 0, "")]
    return "; ".join(p for p in parts if p)


def _dry_run(card: Card, given: Path | None, run: _Run) -> DatasetReport:
    ledger = load_ledger(run.root / card.id, card.id)
    if given is not None:
        return DatasetReport(id=card.id, state="planned", warnings=card.warnings)
    wanted = [_with_size(w, run) for w in _plan(card, ledger, run)]
    archives = run.root / card.id / ARCHIVES_DIR
    files = tuple(
        FileReport(
            name=w.name, size_bytes=w.size_bytes, state="kept" if is_kept(w, archives / w.name, ledger) else "missing"
        )
        for w in wanted
    )
    return DatasetReport(id=card.id, state="planned", files=files, warnings=card.warnings)


def _with_size(want: Wanted, run: _Run) -> Wanted:
    """For a dry run: what the host says of a file that is not listed anywhere."""
    if want.size_bytes is not None or want.remote.through_page is not None:
        return want
    if want.remote.local is not None:
        return replace(want, size_bytes=want.remote.local.stat().st_size if want.remote.local.is_file() else None)
    size = run.engine.client.size(want.remote.url, where=want.name, credentials=want.remote.credentials)
    return replace(want, size_bytes=size)


def _fetch_locked(card: Card, given: Path | None, run: _Run) -> DatasetReport:
    folder = run.root / card.id
    for left in folder.glob(f"*.json.*{PART_SUFFIX}"):
        left.unlink()  # a ledger that a killed run was writing
    ledger = load_ledger(folder, card.id)
    if given is not None and given.is_dir() and (wanted := plan_from_folder(card, given)) is None:
        return _take_folder(card, given, ledger, run)
    if given is None and _is_complete(card, folder, ledger):
        return _report(card, "unchanged", ledger)
    if given is None:
        wanted = _plan(card, ledger, run)
    elif not given.is_dir():
        wanted = (plan_from_archive(card, given),)
    assert wanted is not None
    ledger.complete, ledger.card_sha256 = False, card.sha256
    files = _move_all(wanted, folder / ARCHIVES_DIR, ledger, run)
    for name in set(ledger.files) - {w.name for w in wanted}:
        del ledger.files[name]  # of an older card
    if failed := [f for f in files if f.state == "failed"]:
        ledger.save()
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return DatasetReport(
            id=card.id, state="failed", files=files, error=failed[0].error + more, warnings=card.warnings
        )
    try:
        made = build_tree(wanted, folder, ledger, run.limits, run.stop)
    except DamagedArchive as error:
        raise _put_aside(error, wanted, folder / ARCHIVES_DIR, ledger) from error
    ledger.complete = True
    ledger.save()
    is_new = made or any(f.state == "downloaded" for f in files)
    return replace(_report(card, "done" if is_new else "unchanged", ledger), files=files)


def _put_aside(error: DamagedArchive, wanted: Sequence[Wanted], archives: Path, ledger: Ledger) -> DamagedArchive:
    """Take away the good name of what cannot be unpacked and no published checksum vouches for; the next run asks anew.

    Returns:
        The error, with that as the next step.
    """
    unproven = [w for w in wanted if w.download.unpack and ledger.files[w.name].state == "pinned"]
    named = [w for w in unproven if is_about(error, PurePosixPath(w.name).name)]
    guilty = named or [w for w in unproven if w.download.inner]
    if not guilty:
        return error
    for want in guilty:
        path = archives / want.name
        path.replace(path.with_name(f"{path.name}{BAD_SUFFIX}"))
        del ledger.files[want.name]
    ledger.save()
    aside = ", ".join(f"{w.name}{BAD_SUFFIX}" for w in guilty)
    by_hand = any(w.remote.source == BY_HAND for w in guilty)
    next_step = f"kept as {aside}; " + ("see what --from names" if by_hand else "run this again to fetch it anew")
    return DamagedArchive(error.what, where=error.where, expected=error.expected, got=error.got, next_step=next_step)


def _plan(card: Card, ledger: Ledger, run: _Run) -> tuple[Wanted, ...]:
    require_permission(card, run.accept, mirrored=run.mirror is not None)
    return make_plan(card, ledger, run.engine.client, run.mirror)


def _report(card: Card, state: str, ledger: Ledger) -> DatasetReport:
    files = tuple(FileReport(name=n, size_bytes=e.bytes, state="kept") for n, e in sorted(ledger.files.items()))
    return DatasetReport(
        id=card.id,
        state="done" if state == "done" else "unchanged",
        files=files,
        unpacked_files=ledger.tree.files if ledger.tree else None,
        warnings=card.warnings,
    )


def _is_complete(card: Card, folder: Path, ledger: Ledger) -> bool:
    """Whether the ledger says that all is done for this very card, and the disk agrees."""
    archives = folder / ARCHIVES_DIR
    return (
        ledger.complete
        and ledger.card_sha256 == card.sha256
        and all(is_untouched(archives / name, entry) for name, entry in ledger.files.items())
        and is_intact(folder / FILES_DIR, ledger.tree)
    )


def _take_folder(card: Card, given: Path, ledger: Ledger, run: _Run) -> DatasetReport:
    """The user's own folder becomes the tree; there are no archives to keep."""
    folder = run.root / card.id
    if given.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(
            "--from names a folder that fetch itself fills", where=card.id, expected="an archive, or a folder elsewhere"
        )
    ledger.complete, ledger.files, ledger.card_sha256 = False, {}, card.sha256
    made = build_tree_from_folder(given, folder, ledger, run.limits, run.stop)
    ledger.complete = True
    ledger.save()
    return _report(card, "done" if made else "unchanged", ledger)


def _move_all(wanted: Sequence[Wanted], archives: Path, ledger: Ledger, run: _Run) -> tuple[FileReport, ...]:
    archives.mkdir(parents=True, exist_ok=True)
    places = [(want, archives / want.name) for want in wanted]
    missing = [(want.size_bytes or 0, path) for want, path in places if not is_kept(want, path, ledger)]
    expected, free = sum(size for size, _ in missing), free_bytes(archives)
    if expected > free and (needed := sum(max(0, size - held_bytes(path)) for size, path in missing)) > free:
        raise NoSpace("the disk is too small for the archives", expected=f"{needed:,} bytes free", got=f"{free:,}")
    for parent in {path.parent for _, path in places}:
        parent.mkdir(parents=True, exist_ok=True)
    run.meter.expect(expected)
    return tuple(run.transfers.map(lambda place: _move_one(*place, ledger, run), places))


def _move_one(want: Wanted, path: Path, ledger: Ledger, run: _Run) -> FileReport:
    try:
        return move_file(want, path, ledger, run.engine, run.stop)
    except OSError as error:
        line = f"{want.name}: {_os_line(error, run.root)}"
        return FileReport(name=want.name, size_bytes=want.size_bytes, state="failed", error=line)
