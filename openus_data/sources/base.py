"""What a source is: it lists files, with sizes and checksums where the host publishes them, and moves no bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused


class Ask(Protocol):
    """The listing side of a client: small answers, tried again where that may help."""

    def json(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> object:
        """The parsed body."""
        ...

    def text(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> str:
        """The body as text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file that a source offers.

    Args:
        filename: path below archives/, with forward slashes; judged by the name rule before use.
        url: where its bytes are. Never shown, since it may be signed.
        source: the URL as it may be written down.
        size_bytes: as published.
        checksums: "<algorithm>:<hex>", as published.
        credentials: headers for the first host alone.
        through_page: the URL behind a web page that comes in place of the file, for hosts that ask to confirm.
        local: where the file lies on this machine, for sources that need no network.
    """

    filename: str
    url: str = field(default="", repr=False)
    source: str = ""
    size_bytes: int | None = None
    checksums: tuple[str, ...] = ()
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    through_page: Callable[[str, str], str] | None = None
    local: Path | None = field(default=None, repr=False)


class Source(Protocol):
    """A kind of host."""

    @property
    def kind(self) -> str:
        """As a card's `source` names it."""
        ...

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The files that a card's download stands for.

        Raises:
            SourceError: the host does not list them, or only a person can get them.
        """
        ...


def pick(files: Iterable[RemoteFile], download: Download) -> tuple[RemoteFile, ...]:
    """The file that the card names, or all of them, in the order of their names.

    Raises:
        SourceRefused: the host has no such file.
    """
    found = sorted(files, key=lambda f: f.filename)
    if download.filename is not None:
        found = [f for f in found if f.filename == download.filename]
    if not found:
        raise SourceRefused(
            "the host's listing has no such file",
            where=f"{download.source} {download.locator}",
            expected=download.filename or "at least one file",
            next_step="see whether the dataset has a new version",
        )
    return tuple(found)


def as_record(value: object, where: str) -> Mapping[str, Any]:
    """A JSON object, or the host changed its answers.

    Raises:
        SourceRefused: it is not an object.
    """
    if not isinstance(value, dict):
        raise SourceRefused("the host's listing has another form than it used to", where=where)
    return cast(Mapping[str, Any], value)


def as_records(value: object, where: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects, or the host changed its answers."""
    if not isinstance(value, list):
        raise SourceRefused("the host's listing has another form than it used to", where=where)
    return [as_record(v, where) for v in value]


def as_size(value: object) -> int | None:
    """A size in bytes, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def split_locator(download: Download, separator: str, form: str) -> tuple[str, str]:
    """The two halves of a locator.

    Raises:
        SourceRefused: it does not have two.
    """
    first, found, second = download.locator.partition(separator)
    if not (first and found and second):
        raise SourceRefused("a locator of another form", where=download.source, expected=form, got=download.locator)
    return first, second
