"""Figshare, API v2: a version of an article lists sizes and MD5 sums, a thousand files to a page.

The article itself names ten of its files at most, so it is not asked. Source: figshare/user_documentation, operation
article_version_files and schema PublicFile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.errors import NeedsPerson, SourceRefused
from openus_data.sources.base import Ask, RemoteFile, as_records, as_size, pick, split_locator
from openus_data.sources.http import public

API: Final = "https://api.figshare.com/v2/articles"
PAGE_FILES: Final = 1000
MOST_PAGES: Final = 100


@dataclass(frozen=True, slots=True)
class Figshare:
    """The locator is `article/version`."""

    kind: str = "figshare"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The version's files."""
        article, version = split_locator(download, "/", "article/version")
        where = f"figshare {download.locator}"
        files = []
        for entry in _entries(ask, f"{API}/{quote(article)}/versions/{quote(version)}/files", where):
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


def _entries(ask: Ask, url: str, where: str) -> Iterator[Mapping[str, Any]]:
    """The files of all pages.

    Raises:
        SourceRefused: the pages do not end.
    """
    for page in range(1, MOST_PAGES + 1):
        entries = as_records(ask.json(f"{url}?page_size={PAGE_FILES}&page={page}", where=where), where)
        yield from entries
        if len(entries) < PAGE_FILES:
            return
    raise SourceRefused("the listing has no end", where=where, expected=f"at most {MOST_PAGES * PAGE_FILES:,} files")
