"""Keyed pseudonyms: the same source always gets the same name, and nobody without the key can go back.

A pseudonym is HMAC-SHA256 over (kind, dataset, value). Public datasets use a published key, so that two labs that build
one recipe get the same bytes; private data uses a secret key that the user keeps (DESIGN contract, section 3).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from openus_data.errors import UsageError

PUBLIC_KEY = hashlib.sha256(b"openus public datasets, key 1").digest()
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pseudonymizer:
    """Names derived under one key.

    Args:
        key: 32 bytes. Never shown, never written beside an output.
    """

    key: bytes = field(repr=False)

    def digest(self, kind: str, *parts: str) -> bytes:
        """HMAC-SHA256 of the parts, 32 bytes; `kind` keeps the name spaces of ids apart.

        A file's name may be no UTF-8: its odd bytes, which Python holds as lone surrogates, count as they are.
        """
        encoded = [part.encode("utf-8", "surrogateescape") for part in (kind, *parts)]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.digest(self.key, message, "sha256")

    def identifier(self, kind: str, *parts: str, length: int = 20) -> str:
        """A hexadecimal id of `length` digits, of `[0-9a-f]` only."""
        return self.digest(kind, *parts).hex()[:length]

    def sample_id(self, dataset: str, *parts: str) -> str:
        """`<dataset>-<20 hex digits>`, of `[a-z0-9_-]` only, so that WebDataset does not cut the key at a dot."""
        return f"{dataset}-{self.identifier('sample', dataset, *parts)}"

    def uid(self, original: str) -> str:
        """A DICOM UID `2.25.<integer>` in place of `original` (PS3.5 section B.2); equal in, equal out."""
        return f"2.25.{int.from_bytes(self.digest('uid', original)[:16], 'big')}"

    def date_offset_days(self, dataset: str, patient: str) -> int:
        """Whole weeks into the past, one offset per patient, between 1 and 10 years, in days (negative)."""
        weeks = 53 + int.from_bytes(self.digest("date", dataset, patient)[:4], "big") % 468
        return -7 * weeks

    def unit_interval(self, kind: str, *parts: str) -> float:
        """A number in [0, 1) that only the key holder can predict; decides splits."""
        return int.from_bytes(self.digest(kind, *parts)[:8], "big") / 2**64


def public_pseudonymizer() -> Pseudonymizer:
    """The published key, for public datasets."""
    return Pseudonymizer(key=PUBLIC_KEY)


def load_or_create_key(path: Path) -> Pseudonymizer:
    """Read the secret key of private data, or make it (64 hex digits, mode 0600) on first use.

    Raises:
        UsageError: the path holds something else, or others can read the key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.part")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_hex(KEY_BYTES) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        with suppress(FileExistsError):  # another run was first: its key stands
            os.link(aside, path)
        aside.unlink()
    return _read_key(path)


def _read_key(path: Path) -> Pseudonymizer:
    if not path.is_file():
        raise UsageError("not a key file", where=path.name, expected="a file, or nothing yet")
    if path.stat().st_mode & 0o077:
        raise UsageError(
            "the key file can be read by others",
            where=path.name,
            expected="mode 0600",
            next_step=f"chmod 600 {path.name}",
        )
    text = path.read_text().strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError("not a key file", where=path.name, expected=f"{2 * KEY_BYTES} hexadecimal digits")
    return Pseudonymizer(key=key)
