"""Google Drive: public files and folders without an account.

A large file answers with a page that asks to confirm; its form leads to the bytes. A page that says something else is a
quota or a permission. No size or checksum is published. Source: the observed pages, as gdown a59d00d reads them.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final
from urllib.parse import quote, urlencode, urljoin

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused, SourceUnavailable
from openus_data.sources.base import Ask, RemoteFile, pick

FILE: Final = "https://drive.google.com/uc"
FOLDER: Final = "https://drive.google.com/embeddedfolderview"
DEEPEST: Final = 8
_ENTRY: Final = re.compile(
    r'<div[^>]*\bid="entry-([\w-]+)"(?:(?!\bid="entry-).)*?href="([^"]+)"(?:(?!\bid="entry-).)*?flip-entry-title"?[^>]*>([^<]*)<',
    re.DOTALL,
)
_OLD_LINK: Final = re.compile(r'href="(/uc\?export=download[^"]+)"')
_FAULT: Final = re.compile(r'class="uc-error-subcaption"[^>]*>(.*?)</p>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class DriveFile:
    """The locator is the file's id."""

    kind: str = "gdrive_file"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """The one file."""
        return (_file(download.locator, download.filename or f"{download.locator}.bin"),)


@dataclass(frozen=True, slots=True)
class DriveFolder:
    """The locator is the folder's id."""

    kind: str = "gdrive_folder"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:
        """Every file in the folder and below."""
        return pick(_walk(download.locator, "", ask, DEEPEST), download)


def _file(identifier: str, name: str) -> RemoteFile:
    url = f"{FILE}?id={quote(identifier)}"
    return RemoteFile(filename=name, url=f"{url}&export=download", source=url, through_page=_through_page)


def _walk(identifier: str, prefix: str, ask: Ask, depth: int) -> list[RemoteFile]:
    if depth == 0:
        raise SourceRefused("folders within folders without end", where="google drive")
    page = ask.text(f"{FOLDER}?id={quote(identifier)}", where="google drive folder")
    files: list[RemoteFile] = []
    for entry, link, title in _ENTRY.findall(page):
        name = prefix + html.unescape(title).strip().replace("/", "_")
        if "/folders/" in link:
            files += _walk(entry, f"{name}/", ask, depth - 1)
        else:
            files.append(_file(entry, name))
    return files


class _Form(HTMLParser):
    """The action and the hidden fields of the form `download-form`."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action")
        elif tag == "input" and self.action and values.get("type") == "hidden":
            self.fields[values.get("name", "")] = values.get("value", "")


def _through_page(page: str, url: str) -> str:
    """The URL behind the confirm page.

    Raises:
        SourceUnavailable: the day's quota is used up.
        SourceRefused: no permission, or a page of unknown form.
    """
    form = _Form()
    form.feed(page)
    if form.action:
        joined = urljoin(url, form.action)
        return f"{joined}{'&' if '?' in joined else '?'}{urlencode(form.fields)}"
    if link := _OLD_LINK.search(page):
        return urljoin(url, html.unescape(link[1]))
    fault = _FAULT.search(page)
    words = re.sub(r"<[^>]*>", "", html.unescape(fault[1])).strip()[:200] if fault else ""
    if "quota" in page.lower() or "too many users" in page.lower():
        raise SourceRefused(
            "Google Drive's quota for this file is used up for today",
            where="google drive",
            next_step="run this again tomorrow, or fetch it by hand and use --from",
        )
    if words:
        raise SourceRefused("Google Drive does not hand out this file", where="google drive", got=words)
    raise SourceUnavailable("Google Drive sent a page of unknown form", where="google drive")
