"""What to download for a card: files with sizes and checksums, decided before anything is moved."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from openus_data.archive.names import Names, safe_parts, shown
from openus_data.card import Card, Download
from openus_data.errors import ChecksumMismatch, NeedsPerson, SourceError, SourceRefused, UnsafeArchive, UsageError
from openus_data.fetch.ledger import Ledger
from openus_data.sources import Ask, RemoteFile, source_of
from openus_data.sources.http import public
from openus_data.store import digest_file, sha256_file

logger = logging.getLogger(__name__)

BY_HAND: Final = "by hand"
_ALGORITHMS: Final = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file that the dataset needs.

    Args:
        name: path below archives/.
        download: the card's entry it belongs to.
        remote: where its bytes are.
        others: further entries (mirrors), tried when the first fails.
        size_bytes: published size, from the card or the host.
        checksums: published checksums, or our own pin.
        pinned: the checksum is our own.
    """

    name: str
    download: Download
    remote: RemoteFile
    others: tuple[Download, ...] = ()
    size_bytes: int | None = None
    checksums: tuple[str, ...] = ()
    pinned: bool = False


def require_permission(card: Card, accept: Collection[str], *, mirrored: bool) -> None:
    """See to it that nothing behind terms is fetched without a person who agreed to them.

    Args:
        accept: ids whose terms a person has accepted.
        mirrored: the bytes come from the user's own mirror, so that no host has to be dealt with by hand.

    Raises:
        NeedsPerson: registration, an agreement or a request stands before the data.
    """
    if card.needs_person and not mirrored:
        raise NeedsPerson("only a person can obtain this dataset", next_step=f"begin at {card.homepage}")
    if card.access == "open" or card.id in accept:
        return
    raise NeedsPerson(
        f"its terms ask for {card.access.replace('-', ' ')}",
        next_step=f"read and accept them at {card.homepage}, then add --accept {card.id}",
    )


def make_plan(card: Card, ledger: Ledger, ask: Ask, mirror: str | None) -> tuple[Wanted, ...]:
    """The files of a card, in the card's order.

    Raises:
        SourceError: a listing failed, two names are one, or the host lists another checksum than the card.
        UnsafeArchive: a name is unsafe.
    """
    wanted = tuple(w for download in card.downloads for w in _plan_download(card, download, ledger, ask, mirror))
    names = Names()
    for want in wanted:
        try:
            names.add_file(tuple(want.name.split("/")))
        except UnsafeArchive as error:
            words = "two downloads whose names are one on some file system"
            raise SourceRefused(words, where=want.name, got=error.got, next_step="correct the card") from error
    return wanted


def _plan_download(card: Card, download: Download, ledger: Ledger, ask: Ask, mirror: str | None) -> Iterator[Wanted]:
    others: tuple[Download, ...] = ()
    if mirror is not None:
        remotes = _from_mirror(card, download, ask, mirror)
    else:
        remotes, others = _first_listing([download, *mirrors_of(download)], ask)
    for remote in remotes:
        name = "/".join(safe_parts(remote.filename))
        yield _settle(Wanted(name=name, download=download, remote=remote, others=others), ledger)


def mirrors_of(download: Download) -> list[Download]:
    """The mirrors of a download as downloads of their own."""
    return [replace(download, source=m.source, locator=m.locator, mirrors=()) for m in download.mirrors]


def _first_listing(places: list[Download], ask: Ask) -> tuple[tuple[RemoteFile, ...], tuple[Download, ...]]:
    failure: SourceError | None = None
    for index, place in enumerate(places):
        try:
            return source_of(place.source).list(place, ask), tuple(places[index + 1 :])
        except SourceError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _from_mirror(card: Card, download: Download, ask: Ask, base: str) -> tuple[RemoteFile, ...]:
    """The same files, but with their bytes from BASE/<id>/<filename>; published checksums stay in force."""
    if base.startswith(("http://", "https://")):
        listed = (
            [RemoteFile(filename=download.filename)]
            if download.filename
            else source_of(download.source).list(download, ask)
        )
        return tuple(_at(f, f"{base.rstrip('/')}/{quote(card.id)}/{quote(f.filename)}") for f in listed)
    folder = Path(base) / card.id
    if not folder.is_dir():
        raise SourceRefused("the mirror has no folder of this dataset", where=card.id)
    names = [download.filename] if download.filename else sorted(p.name for p in folder.iterdir() if p.is_file())
    return tuple(RemoteFile(filename=n, source="mirror", local=folder.joinpath(*safe_parts(n))) for n in names)


def _at(file: RemoteFile, url: str) -> RemoteFile:
    return replace(file, url=url, source=public(url), credentials={}, through_page=None, local=None)


def _settle(want: Wanted, ledger: Ledger) -> Wanted:
    """Bring together what the card, the host and the ledger say about size and checksum; the card wins."""
    remote, of_card = want.remote, want.download if want.download.filename else None
    card_sum = (str(of_card.checksum),) if of_card and of_card.checksum else ()
    published = tuple(c for c in remote.checksums if _is_known(c, want.name))
    for theirs in published:
        ours = next((c for c in card_sum if c.partition(":")[0] == theirs.partition(":")[0]), theirs)
        if ours.lower() != theirs.lower():
            raise ChecksumMismatch(
                "the host lists another checksum than the card",
                where=want.name,
                expected=ours,
                got=theirs,
                next_step="see whether the dataset has a new version",
            )
    checksums = tuple(dict.fromkeys(c.lower() for c in (*card_sum, *published)))
    size = of_card.bytes if of_card and of_card.bytes is not None else remote.size_bytes
    entry = ledger.files.get(want.name)
    if not checksums and entry is not None:
        return replace(want, size_bytes=size, checksums=(f"sha256:{entry.sha256}",), pinned=True)
    return replace(want, size_bytes=size, checksums=checksums)


def _is_known(checksum: str, name: str) -> bool:
    """Whether a checksum that a host publishes can be worked out here; said where it cannot."""
    algorithm = checksum.partition(":")[0].lower()
    if algorithm in _ALGORITHMS:
        return True
    logger.warning("%s: the host's checksum is of a kind that is not known here (%s)", name, shown(algorithm))
    return False


def plan_from_archive(card: Card, path: Path) -> Wanted:
    """The one archive that the user has, as the download of the card that it stands for.

    Raises:
        UsageError: the card has several downloads, and none of this name.
    """
    named = [d for d in card.downloads if d.filename == path.name]
    if not named and len(card.downloads) > 1:
        raise UsageError(
            "the card has several downloads, and none of this name",
            where=card.id,
            expected=", ".join(d.filename or "?" for d in card.downloads),
            next_step="put them into one folder and name that with --from",
        )
    download = (named or list(card.downloads))[0]
    return _by_hand(download, download.filename or path.name, path)


def plan_from_folder(card: Card, folder: Path) -> tuple[Wanted, ...] | None:
    """The card's downloads where the folder holds them all under their names; None if it holds something else."""
    names = [d.filename for d in card.downloads]
    if any(n is None or not folder.joinpath(*safe_parts(n)).is_file() for n in names):
        return None
    return tuple(_by_hand(d, str(d.filename), folder.joinpath(*safe_parts(str(d.filename)))) for d in card.downloads)


def _by_hand(download: Download, name: str, path: Path) -> Wanted:
    """The user's own copy: another release or packing than the published one is said and taken, not refused."""
    held = f"sha256:{sha256_file(path)}"
    algorithm, _, published = (download.checksum or "").partition(":")
    is_published = bool(published) and digest_file(path, algorithm) == published.lower()
    if published and not is_published:
        logger.warning("%s: not the published file, taken as given; expected %s, got %s", name, download.checksum, held)
    return Wanted(
        name="/".join(safe_parts(name)),
        download=download,
        remote=RemoteFile(filename=name, source=BY_HAND, local=path),
        size_bytes=path.stat().st_size,
        checksums=(str(download.checksum),) if is_published else (held,),
        pinned=not is_published,
    )
