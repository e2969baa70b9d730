"""Kaggle: data sets and competitions as one zip each, with the user's own token.

Through its public API and the common engine rather than kagglehub, which unpacks by itself and keeps a second copy in
its cache. The token comes from where Kaggle's own clients keep it: KAGGLE_API_TOKEN, ~/.kaggle/access_token,
KAGGLE_USERNAME with KAGGLE_KEY, ~/.kaggle/kaggle.json. It is sent to Kaggle alone.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from openus_data.card_fields import Download
from openus_data.errors import NeedsPerson
from openus_data.sources.base import Ask, RemoteFile, as_record, as_size, split_locator

API: Final = "https://www.kaggle.com/api/v1"


@dataclass(frozen=True, slots=True)
class KaggleDataset:
    """The locator is `owner/name`."""

    kind: str = "kaggle_dataset"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """The zip of the whole data set."""
        owner, name = split_locator(download, "/", "owner/name")
        where, credentials = f"kaggle {download.locator}", _credentials(download.locator)
        record = as_record(
            ask.json(f"{API}/datasets/view/{quote(owner)}/{quote(name)}", where=where, credentials=credentials), where
        )
        version = as_size(record.get("currentVersionNumber"))
        url = f"{API}/datasets/download/{quote(owner)}/{quote(name)}"
        return (
            RemoteFile(
                filename=download.filename or f"{name}.zip",
                url=f"{url}?datasetVersionNumber={version}" if version else url,
                source=url,
                credentials=credentials,
            ),
        )


@dataclass(frozen=True, slots=True)
class KaggleCompetition:
    """The locator is the competition's slug; its rules must have been accepted on the site."""

    kind: str = "kaggle_competition"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """The zip of the whole."""
        url = f"{API}/competitions/data/download-all/{quote(download.locator)}"
        return (
            RemoteFile(
                filename=download.filename or f"{download.locator}.zip",
                url=url,
                source=url,
                credentials=_credentials(download.locator),
            ),
        )


def _credentials(locator: str) -> Mapping[str, str]:
    """The Authorization header.

    Raises:
        NeedsPerson: there is no token on this machine.
    """
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    token = os.environ.get("KAGGLE_API_TOKEN") or _read(folder / "access_token")
    if token:
        return {"Authorization": f"Bearer {token.strip()}"}
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if not (user and key):
        try:
            stored = json.loads(_read(folder / "kaggle.json") or "{}")
            user, key = stored.get("username"), stored.get("key")
        except (ValueError, AttributeError):
            user = key = None
    if not (user and key):
        raise NeedsPerson(
            "Kaggle needs your token",
            where=f"kaggle {locator}",
            next_step="make one on kaggle.com and set KAGGLE_API_TOKEN, or download by hand and use --from",
        )
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
