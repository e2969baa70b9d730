"""What only a person can obtain: registration, an agreement, a form. The card's `obtain` has the steps."""

from __future__ import annotations

from dataclasses import dataclass

from openus_data.card_fields import Download
from openus_data.errors import NeedsPerson
from openus_data.sources.base import Ask, RemoteFile


@dataclass(frozen=True, slots=True)
class Manual:
    """The locator is the page where a person begins."""

    kind: str = "manual"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """Never lists anything."""
        raise NeedsPerson(
            "only a person can obtain this", where=download.filename or "", next_step=f"begin at {download.locator}"
        )
