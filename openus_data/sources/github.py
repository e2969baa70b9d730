"""GitHub: the zip of a repository at one commit.

GitHub makes it on the fly: no size, no checksum, no resume. What a repository keeps in Git LFS is not in it; `fetch`
finds the pointer files after unpacking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused
from openus_data.sources.base import Ask, RemoteFile, split_locator


@dataclass(frozen=True, slots=True)
class GitHub:
    """The locator is `owner/repository@commit`."""

    kind: str = "github"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """The one zip."""
        repository, commit = split_locator(download, "@", "owner/repository@commit")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or not re.fullmatch(r"[0-9A-Za-z._/-]+", commit):
            raise SourceRefused(
                "a locator of another form", where="github", expected="owner/repository@commit", got=download.locator
            )
        url = f"https://codeload.github.com/{repository}/zip/{commit}"
        name = download.filename or f"{repository.rpartition('/')[2]}-{commit.replace('/', '-')[:40]}.zip"
        return (RemoteFile(filename=name, url=url, source=url),)
