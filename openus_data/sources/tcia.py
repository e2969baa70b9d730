"""The Cancer Imaging Archive: files attached to a collection's page (zip, xlsx), not its DICOM in NBIA.

Source: the fields that tcia_utils reads from the same API (`collection_downloads`, `download_url`). Not tried against
the live host, and no size or checksum is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from openus_data.card_fields import Download
from openus_data.sources.base import Ask, RemoteFile, as_record, as_records, pick
from openus_data.sources.http import public

API: Final = "https://www.cancerimagingarchive.net/api/v1"


@dataclass(frozen=True, slots=True)
class Tcia:
    """The locator is the collection's slug."""

    kind: str = "tcia"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The plain files of the collection."""
        slug, where = download.locator.lower().replace("_", "-"), f"tcia {download.locator}"
        collections = as_records(
            ask.json(f"{API}/collections/?slug={quote(slug)}&_fields=id,slug,collection_downloads", where=where), where
        )
        numbers = [n for c in collections for n in c.get("collection_downloads") or [] if isinstance(n, int)]
        files = []
        for number in numbers:
            fields = as_record(ask.json(f"{API}/downloads/{number}?_fields=id,download_url", where=where), where)
            url = str(fields.get("download_url") or "")
            name = unquote(urlsplit(url).path.rpartition("/")[2])
            if url.startswith("https://") and "." in name and not name.endswith(".tcia"):
                files.append(RemoteFile(filename=name, url=url, source=public(url)))
        return pick(files, download)
