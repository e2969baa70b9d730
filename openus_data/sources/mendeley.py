"""Mendeley Data: the public API lists sizes and SHA-256 sums of the files in a version's root folder.

A folder lists a thousand files at most; beyond that, and for sets with folders, there is a zip of the whole version,
which has no published checksum. Source: datahugger's reader of the same API; BUS-UCLM's README for the zip. The list of
folders is as other people's programs ask for it; where it is refused, the zip is taken, which holds everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused
from openus_data.sources.base import Ask, RemoteFile, as_record, as_records, as_size, pick, split_locator
from openus_data.sources.http import public

API: Final = "https://data.mendeley.com/public-api/datasets"
ZIPS: Final = "https://prod-dcd-datasets-cache-zipfiles.s3.eu-west-1.amazonaws.com"
LISTED_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Mendeley:
    """The locator is `id/version`."""

    kind: str = "mendeley"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The version's files, or the zip of the whole where the card names that or the listing is not complete."""
        dataset, version = split_locator(download, "/", "id/version")
        zip_name = f"{dataset}-{version}.zip"
        whole = (RemoteFile(filename=zip_name, url=f"{ZIPS}/{quote(zip_name)}", source=f"{ZIPS}/{zip_name}"),)
        if download.filename == zip_name:
            return whole
        where = f"mendeley {download.locator}"
        url = f"{API}/{quote(dataset)}/files?folder_id=root&version={quote(version)}"
        entries = as_records(ask.json(url, where=where), where)
        if download.filename is None and (
            not entries or len(entries) >= LISTED_AT_MOST or _has_folders(ask, dataset, version, where)
        ):
            return whole
        return pick((_file(e, where) for e in entries), download)


def _has_folders(ask: Ask, dataset: str, version: str, where: str) -> bool:
    """Whether there may be more than the root folder lists."""
    try:
        return bool(ask.json(f"{API}/{quote(dataset)}/folders/{quote(version)}", where=where))
    except SourceRefused:
        return True


def _file(entry: Any, where: str) -> RemoteFile:
    details = as_record(entry.get("content_details"), where)
    url, digest = str(details.get("download_url") or ""), details.get("sha256_hash")
    return RemoteFile(
        filename=str(entry.get("filename") or ""),
        url=url,
        source=public(url),
        size_bytes=as_size(entry.get("size")),
        checksums=(f"sha256:{digest}",) if digest else (),
    )
