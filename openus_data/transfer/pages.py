"""Web pages that come in place of a file: a login, a licence to accept, a confirm form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_BEFORE_MARKUP: Final = b"\xef\xbb\xbf \t\r\n"
_PAGE: Final = re.compile(
    rb"(?:\s|<!--(?:(?!-->).)*-->|<\?xml[^>]*>)*<(?:!doctype\s+html|html|head|body|title|meta|script)\b",
    re.I | re.DOTALL,
)
_PAGE_HEAD_BYTES: Final = 1024
_PAGE_LOOK_BYTES: Final = 1 << 14
_PAGE_SUFFIXES: Final = (".html", ".htm", ".xhtml")
_TEXT_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".json", ".xml", ".md")
_PAGE_CAP_BYTES: Final = 4 << 20


def first_piece(body: Iterator[bytes]) -> bytes:
    """The first bytes of a body; as many as tell a web page, where they may be one and come in crumbs."""
    head = next(body, b"")
    while len(head) < _PAGE_HEAD_BYTES and head.lstrip(_BEFORE_MARKUP)[:1] in (b"", b"<"):
        piece = next(body, b"")
        if not piece:
            break
        head += piece
    return head


def is_page(head: bytes, content_type: str, name: str, *, is_proven: bool) -> bool:
    """Whether a web page came in place of a file: by how it begins, or by what the server calls it.

    Args:
        head: of `first_piece`.
        content_type: what the server calls it.
        name: of the file that was asked for.
        is_proven: a checksum will tell, so that the server's word is not needed.
    """
    if name.lower().endswith(_PAGE_SUFFIXES):
        return False
    text = head[:_PAGE_LOOK_BYTES].lstrip(_BEFORE_MARKUP)
    if _PAGE.match(text):
        return True
    called_page = "html" in content_type.lower() and not name.lower().endswith(_TEXT_SUFFIXES)
    return called_page and bool(head) and b"\0" not in head[:_PAGE_HEAD_BYTES] and not is_proven


def page_text(head: bytes, body: Iterator[bytes]) -> str:
    """A page whose first piece has been read; cut at 4 MiB."""
    page = bytearray(head)
    for piece in body:
        page += piece
        if len(page) > _PAGE_CAP_BYTES:
            break
    return page.decode("utf-8", errors="replace")
