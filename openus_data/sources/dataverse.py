"""Dataverse: the latest published version of a data set, with sizes and checksums.

A table (csv, xlsx, sav) is kept as a tab-separated file of Dataverse's own, with another name and size; asked for here
is the file that was uploaded. The checksum listed with it belongs to neither for certain (IQSS/dataverse issues 5321,
8449 and 9501), so it is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.sources.base import Ask, RemoteFile, as_record, as_records, as_size, pick, split_locator

_ALGORITHMS: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}


@dataclass(frozen=True, slots=True)
class Dataverse:
    """The locator is `https://host|doi:...`."""

    kind: str = "dataverse"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The version's files, each below the folder that the data set gives it."""
        base, identifier = split_locator(download, "|", "https://host|doi:...")
        base, where = base.rstrip("/"), f"dataverse {identifier}"
        url = f"{base}/api/datasets/:persistentId/versions/:latest-published?persistentId={quote(identifier)}"
        version = as_record(as_record(ask.json(url, where=where), where).get("data"), where)
        files = []
        for entry in as_records(version.get("files"), where):
            data = as_record(entry.get("dataFile"), where)
            folder = str(entry.get("directoryLabel") or "").strip("/")
            link = f"{base}/api/access/datafile/{data.get('id')}"
            is_table = bool(data.get("originalFileFormat"))
            name = str((is_table and data.get("originalFileName")) or data.get("filename") or "")
            files.append(
                RemoteFile(
                    filename=f"{folder}/{name}" if folder else name,
                    url=f"{link}?format=original" if is_table else link,
                    source=link,
                    size_bytes=as_size(data.get("originalFileSize" if is_table else "filesize")),
                    checksums=() if is_table else _checksums(dict(data)),
                )
            )
        return pick(files, download)


def _checksums(data: dict[str, object]) -> tuple[str, ...]:
    checksum = data.get("checksum")
    if isinstance(checksum, dict) and checksum.get("type") in _ALGORITHMS:
        return (f"{_ALGORITHMS[checksum['type']]}:{checksum.get('value')}",)
    return (f"md5:{data['md5']}",) if data.get("md5") else ()
