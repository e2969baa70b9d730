"""Girder, for example CAMUS: a collection or folder comes as a zip that the server makes on the fly.

Such a zip has no published size or checksum, and the server cannot go on in the middle of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from openus_data.card_fields import Download
from openus_data.sources.base import Ask, RemoteFile
from openus_data.sources.http import Http


@dataclass(frozen=True, slots=True)
class Girder:
    """The locator is the URL that ends in /download."""

    kind: str = "girder"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The one zip."""
        named = download if download.filename else replace(download, filename="girder.zip")
        return Http().list(named, ask)
