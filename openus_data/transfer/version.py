"""Which version of which object a body belongs to, as its headers say it: what a resume must agree with."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which version of which object the held bytes belong to.

    Args:
        source: the public URL, free of signatures.
        etag: entity tag, strong or weak.
        last_modified: as sent.
        date: the server's clock when it said so.
        total: bytes of the whole object, if stated.
        encoding: Content-Encoding, "" for none.
        md5: of the whole body where the server states it (Content-MD5, x-goog-hash), in hexadecimal.
    """

    source: str
    etag: str = ""
    last_modified: str = ""
    date: str = ""
    total: int | None = None
    encoding: str = ""
    md5: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], *, source: str, total: int | None) -> Version:
        """Read from the headers of an answer."""
        encoding = headers.get("Content-Encoding", "").strip().lower()
        return cls(
            source=source,
            etag=headers.get("ETag", ""),
            last_modified=headers.get("Last-Modified", ""),
            date=headers.get("Date", ""),
            total=total,
            encoding="" if encoding == "identity" else encoding,
            md5="" if "Content-Range" in headers else _stated_md5(headers),
        )

    @property
    def validator(self) -> str:
        """What may stand in If-Range: a strong tag, or a date strong by RFC 9110 section 8.8.2.2; "" if neither."""
        if self.etag:
            return self.etag if self.etag.startswith('"') else ""
        try:
            age = parsedate_to_datetime(self.date) - parsedate_to_datetime(self.last_modified)
        except (ValueError, TypeError, OverflowError):
            return ""
        return self.last_modified if age.total_seconds() >= 60 else ""

    def agrees_with(self, other: Version) -> bool:
        """Whether nothing says that the two are different versions."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified), (self.total, other.total))
        return self.encoding == other.encoding and all(a == b for a, b in pairs if a and b)


def _stated_md5(headers: Mapping[str, str]) -> str:
    stated = re.search(r"md5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash", ""))
    try:
        digest = base64.b64decode(stated[1] if stated else headers.get("Content-MD5", ""), validate=True)
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 16 else ""
