"""Plain files on the web: an http(s) URL. Also Girder's collections, which are one such file made on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused
from openus_data.sources.base import Ask, RemoteFile


def public(url: str) -> str:
    """A URL without user, query and fragment, fit to be written down.

    Raises:
        SourceRefused: its host or port cannot be one.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SourceRefused("not a web address", expected="http or https, a host and a port") from error
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


@dataclass(frozen=True, slots=True)
class Http:
    """The locator is the URL; there is nothing to list."""

    kind: str = "http"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """The one file."""
        name = download.filename or unquote(urlsplit(download.locator).path.rpartition("/")[2])
        if urlsplit(download.locator).scheme not in ("http", "https") or not name:
            raise SourceRefused("a locator of another form", where="http", expected="the URL of a file")
        return (RemoteFile(filename=name, url=download.locator, source=public(download.locator)),)
