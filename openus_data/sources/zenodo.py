"""Zenodo: a record id names one version; the API lists sizes and MD5 sums.

Source: the legacy serializer of zenodo-rdm (`files[]` with `key`, `size`, `checksum`, `links.self`); older answers have
`filename` and a checksum without its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.sources.base import Ask, RemoteFile, as_record, as_records, as_size, pick

API = "https://zenodo.org/api/records"


@dataclass(frozen=True, slots=True)
class Zenodo:
    """The locator is the record's id."""

    kind: str = "zenodo"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The record's files."""
        where = f"zenodo {download.locator}"
        record = as_record(ask.json(f"{API}/{quote(download.locator, safe='')}", where=where), where)
        files = []
        for entry in as_records(record.get("files"), where):
            name = str(entry.get("key") or entry.get("filename") or "")
            checksum = str(entry.get("checksum") or "")
            url = f"{API}/{quote(download.locator, safe='')}/files/{quote(name)}/content"
            files.append(
                RemoteFile(
                    filename=name,
                    url=url,
                    source=url,
                    size_bytes=as_size(entry.get("size") or entry.get("filesize")),
                    checksums=(checksum if ":" in checksum else f"md5:{checksum}",) if checksum else (),
                )
            )
        return pick(files, download)
