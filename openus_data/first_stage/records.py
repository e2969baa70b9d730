"""What goes into the first stage of a build and what comes out of it, for one source file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openus_data.card import Card
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.recipe import BuildRecipe, Policy
from openus_data.records import Candidate, Cone, Item, Reject, quick_pickle


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTerms:
    """What holds for every file of one dataset.

    Args:
        dataset: its id.
        role: pretrain, evaluate or both.
        license, redistributable, card_sha256: as the manifest says them.
        is_private: whether the secret key names things.
        header_subject: whether the file's own header names the subject.
        family: leak family; the subjects `family X` of its datasets are one.
        policy: what happens to burned-in text.
        pseudonymizer: makes the names.
        card: the card; None for a private folder.
        settings: `settings_digest` of recipe and terms.
    """

    dataset: str
    role: str
    license: str | None
    redistributable: bool
    card_sha256: str
    is_private: bool
    header_subject: bool
    family: str | None
    policy: Policy
    pseudonymizer: Pseudonymizer
    card: Card | None = None
    settings: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOne:
    """Everything that the first stage depends on beside the file.

    Args:
        recipe: the choices of the build.
        datasets: terms by dataset id.
    """

    recipe: BuildRecipe
    datasets: Mapping[str, DatasetTerms]


@quick_pickle
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTask:
    """One file to work on.

    Args:
        item: the file.
        known: fingerprint of the work that was done on it before, or None.
        prior: scan area that is taken in place of what the file shows (see `votes`), or None.
        ballot: what the file said when it was worked on without one, or None.
    """

    item: Item
    known: str | None = None
    prior: Cone | None = None
    ballot: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSample:
    """A candidate and its bytes.

    Args:
        candidate: its row without split and shard, its thumbnail, what ties it to others.
        chance: keyed hash of its subject, in [0, 1).
        suffix: of the image member.
        image: the encoded picture.
        mask: the encoded mask, or None.
    """

    candidate: Candidate
    chance: float
    suffix: str
    image: bytes = field(repr=False)
    mask: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceResult:
    """What became of one file.

    Args:
        fingerprint: of the file's bytes, its masks', the card's rules for it and the recipe.
        is_unchanged: the fingerprint is the known one, and nothing else was looked at.
        samples: in the order of frames and panels.
        rejects: why frames, panels or the whole file gave none.
        frames: frames that the file holds; 0 when that could not be found out.
        skipped: frames left out by the frame policy.
        ballot: what the file says of its device's scan area (see `votes`), or None.
        prior: digest of the scan area that was taken in place of the file's own, or None.
        seen: key under which the file need not be read again while its size and times stay (see `seen`), or None.
    """

    fingerprint: str
    is_unchanged: bool = False
    samples: tuple[EncodedSample, ...] = ()
    rejects: tuple[Reject, ...] = ()
    frames: int = 0
    skipped: int = 0
    ballot: dict[str, Any] | None = field(default=None, repr=False)
    prior: str | None = None
    seen: int | None = None


@quick_pickle
@dataclass(frozen=True, slots=True, kw_only=True)
class StagedResult:
    """What became of one file, ready for the journal.

    Args:
        item: keyed id of the file.
        fingerprint, is_unchanged, rejects, ballot, seen: as in `SourceResult`.
        parts: the record (see `journal.record_parts`); empty where nothing changed.
    """

    item: str
    fingerprint: str
    is_unchanged: bool = False
    rejects: tuple[Reject, ...] = ()
    ballot: dict[str, Any] | None = field(default=None, repr=False)
    seen: int | None = None
    parts: tuple[bytes, ...] = field(default=(), repr=False)


def item_text(item: Item) -> str:
    """What the listing says of a file; part of its fingerprint."""
    parts = [
        item.relative, item.subject, item.study, item.split, item.frames, sorted(item.facts.items(), key=repr),
        sorted(item.labels.items()),
    ]  # fmt: skip
    return repr(parts)


def item_id(item: Item, terms: DatasetTerms) -> str:
    """Keyed pseudonym of a source file, as rejects and logs name it; the same that `items` gives."""
    return terms.pseudonymizer.identifier("item", item.dataset, item.relative)


def reject_of(item: Item, terms: DatasetTerms, stage: str, reason: str, detail: str = "") -> Reject:
    """A reject that names the file by its pseudonym."""
    return Reject(dataset=item.dataset, item=item_id(item, terms), stage=stage, reason=reason, detail=detail)
