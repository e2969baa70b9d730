"""Figshare, API v2: a version of an article lists sizes and MD5 sums.

Source: figshare/user_documentation, schema PublicFile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.errors import NeedsPerson
from openus_data.sources.base import Ask, RemoteFile, as_record, as_records, as_size, pick, split_locator
from openus_data.sources.http import public

API: Final = "https://api.figshare.com/v2/articles"


@dataclass(frozen=True, slots=True)
class Figshare:
    """The locator is `article/version`."""

    kind: str = "figshare"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The version's files."""
        article, version = split_locator(download, "/", "article/version")
        where = f"figshare {download.locator}"
        record = as_record(ask.json(f"{API}/{quote(article)}/versions/{quote(version)}", where=where), where)
        files = []
        for entry in as_records(record.get("files"), where):
            if entry.get("is_link_only"):
                raise NeedsPerson(
                    "the record only links to another site",
                    where=where,
                    next_step="follow the link by hand and use --from",
                )
            url, digest = str(entry.get("download_url") or ""), entry.get("computed_md5") or entry.get("supplied_md5")
            files.append(
                RemoteFile(
                    filename=str(entry.get("name") or ""),
                    url=url,
                    source=public(url),
                    size_bytes=as_size(entry.get("size")),
                    checksums=(f"md5:{digest}",) if digest else (),
                )
            )
        return pick(files, download)
