"""The errors of openus_data, as a tree.

    OpenUSDataError
    |- UsageError            the call cannot be carried out as written (exit 2)
    |  |- CardError          a card in manifests/ or --cards is wrong: file and key
    |  |- RecipeError        a build recipe is wrong: file and key
    |  `- MissingExtra       an optional dependency is not installed: what to install
    |- SourceError           bytes could not be had
    |  |- SourceUnavailable  may pass if tried again: connection, 429, 5xx, silence
    |  |- SourceRefused      will not pass: 401, 403, 404, a web page in place of an archive
    |  |- ChecksumMismatch   the bytes are not the published ones
    |  |- NeedsPerson        behind registration or an agreement: how to obtain it by hand
    |  `- NoSpace            the disk is too small
    |- ArchiveError          an archive could not be unpacked
    |  |- UnsafeArchive      a member would leave its folder, or is a link or a device
    |  |- ArchiveLimit       members, bytes, ratio or depth beyond the stated bound
    |  |- DamagedArchive     truncated, failing its checksum, or losing members
    |  `- UnsupportedArchive encrypted, or of a kind that no installed tool reads
    |- DecodeError           one file is not a readable picture
    |  |- UnsupportedFormat  no decoder here reads this kind
    |  |- NotUltrasound      a DICOM object of another class (report, CT, directory)
    |  `- DecodeLimit        declared size beyond the stated bound
    |- DeidError             a file cannot be judged free of identity
    |- LockedError           another run holds the folder
    `- CorpusError           shards, sidecars and manifest do not agree

A message is one line: what, where, expected, got, next step. It never holds a patient's name, an original UID, a date
or a private path: those who raise name the file by its place in the card's rules or by its keyed digest.
"""

from __future__ import annotations


class OpenUSDataError(Exception):
    """Root of every error that openus_data raises on purpose.

    Args:
        what: the fault in a few words.
        where: the file, key or member at fault, already fit to be shown.
        expected: what would have been right.
        got: what was found.
        next_step: what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", got: str = "", next_step: str = "") -> None:
        self.what, self.where, self.expected, self.got, self.next_step = what, where, expected, got, next_step
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.got:
            parts.append(f"got {self.got}")
        if self.next_step:
            parts.append(self.next_step)
        return "; ".join(parts).replace("\n", " ")


class UsageError(OpenUSDataError):
    """The call cannot be carried out as written."""


class CardError(UsageError):
    """A dataset card is wrong."""


class RecipeError(UsageError):
    """A build recipe is wrong."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class SourceError(OpenUSDataError):
    """Bytes could not be had."""


class SourceUnavailable(SourceError):
    """The source failed in a way that may pass.

    Args:
        retry_after_s: how long the server asked to wait, in seconds; None if it did not say.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        next_step: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, where=where, expected=expected, got=got, next_step=next_step)
        self.retry_after_s = retry_after_s


class SourceRefused(SourceError):
    """The source said no, and would again."""


class ChecksumMismatch(SourceError):
    """The bytes are not the published ones."""


class NeedsPerson(SourceError):
    """Only a person can obtain this dataset."""


class NoSpace(SourceError):
    """The disk is too small."""


class ArchiveError(OpenUSDataError):
    """An archive could not be unpacked."""


class UnsafeArchive(ArchiveError):
    """A member would leave its folder, or is a link or a device."""


class ArchiveLimit(ArchiveError):
    """Beyond the stated bound of members, bytes, ratio or depth."""


class DamagedArchive(ArchiveError):
    """Truncated, failing its checksum, or losing members."""


class UnsupportedArchive(ArchiveError):
    """Encrypted, or of a kind that no installed tool reads."""


class DecodeError(OpenUSDataError):
    """A file is not a readable picture."""


class UnsupportedFormat(DecodeError):
    """No decoder here reads this kind of file."""


class NotUltrasound(DecodeError):
    """A DICOM object of another class."""


class DecodeLimit(DecodeError):
    """Declared size beyond the stated bound."""


class DeidError(OpenUSDataError):
    """A file cannot be judged free of identity."""


class LockedError(OpenUSDataError):
    """Another run holds the folder."""


class CorpusError(OpenUSDataError):
    """Shards, sidecars and manifest do not agree."""
