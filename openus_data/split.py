"""Which sample may be used for what: a pure function of ids, so that adding data moves nobody.

1. A published split stands; a dataset for pretraining goes to `pretrain`, but for what it published as held out.
2. Every other subject goes where its keyed hash falls. Near-duplicates within a dataset tie subjects together: the tied
   subjects go where the smallest of their hashes falls.
3. Where a subject, or a group of near-duplicates, would still lie in two splits (a published split that is not made by
   subject, a copy in another dataset), the part in the less protected split is dropped, never moved. The order of
   protection is test, val, train, pretrain. So nothing near a test image is left in `pretrain`.
4. Of pictures with the same pixels in `pretrain`, one is kept.

    assignment = assign(samples, SplitSettings())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_data.duplicates import join
from openus_data.schema import SPLITS

PRETRAIN, TRAIN, VAL, TEST = range(len(SPLITS))
UNPUBLISHED: Final = -1
ROLES: Final = ("pretrain", "evaluate", "both")

_KEPT, _SUBJECT_CLASH, _NEAR_CLASH, _SAME_PIXELS, _NEAR_COPY = range(5)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSettings:
    """How subjects are shared out.

    Args:
        val, test: parts of the subjects of an evaluation dataset; the rest is `train`.
        train_of_both: where the training part of datasets with role `both` goes.
        drop_exact: keep one of several pictures with the same pixels in `pretrain`.
        drop_near: keep one of several near-duplicates of different subjects in `pretrain`.
    """

    val: float = 0.1
    test: float = 0.2
    train_of_both: str = "train"
    drop_exact: bool = True
    drop_near: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitInput:
    """The columns that decide, all (N,) and in the order of the samples' ids.

    Args:
        subject: number of the subject; the same number means the same person, also across datasets.
        dataset: number of the dataset.
        role: index into ROLES.
        published: index into SPLITS, or UNPUBLISHED.
        near: label of the group of near-duplicates, as duplicates.group gives it.
        exact: the same for pictures with the same pixels.
        chance: keyed hash of the subject, in [0, 1); the same for all samples of a subject.
    """

    subject: Integers
    dataset: Integers
    role: Integers
    published: Integers
    near: Integers
    exact: Integers
    chance: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A sample that no split may hold.

    Args:
        index: of the sample.
        stage, reason: for the rejects.
        because_of: index of a sample that it clashes with.
    """

    index: int
    stage: str
    reason: str
    because_of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where every sample goes.

    Args:
        split: int64 (N,), index into SPLITS; of a dropped sample, where it would have gone.
        is_kept: bool (N,).
        dropped: one entry for each sample that is not kept, by index.
    """

    split: Integers
    is_kept: NDArray[np.bool_]
    dropped: tuple[Dropped, ...]


def assign(samples: SplitInput, settings: SplitSettings) -> Assignment:
    """Give every sample a split, or a reason why it has none."""
    split = _wanted(samples, settings)
    fate = np.full(len(split), _KEPT)
    because = np.arange(len(split))
    _drop_clashes(samples.subject, split, fate, because, _SUBJECT_CLASH)
    _drop_clashes(samples.near, split, fate, because, _NEAR_CLASH)
    if settings.drop_exact:
        _drop_copies(samples.exact, split, fate, because, _SAME_PIXELS)
    if settings.drop_near:
        _drop_copies(samples.near, split, fate, because, _NEAR_COPY, subject=samples.subject)
    return Assignment(
        split=split,
        is_kept=fate == _KEPT,
        dropped=tuple(
            _dropped(int(i), int(fate[i]), SPLITS[split[because[i]]], int(because[i])) for i in np.flatnonzero(fate)
        ),
    )


def _wanted(samples: SplitInput, settings: SplitSettings) -> Integers:
    """The split of each sample before clashes are looked for."""
    chance = _tied_chance(samples)
    free = np.select([chance < settings.test, chance < settings.test + settings.val], [TEST, VAL], TRAIN)
    if settings.train_of_both == "pretrain":
        free = np.where((free == TRAIN) & (samples.role == ROLES.index("both")), PRETRAIN, free)
    is_pretraining = samples.role == ROLES.index("pretrain")
    published = np.where(is_pretraining & (samples.published == TRAIN), PRETRAIN, samples.published)
    return np.asarray(
        np.where(samples.published != UNPUBLISHED, published, np.where(is_pretraining, PRETRAIN, free)), dtype=np.int64
    )


def _tied_chance(samples: SplitInput) -> NDArray[np.float64]:
    """The smallest hash among the subjects that near-duplicates tie together within a dataset."""
    is_free = (samples.published == UNPUBLISHED) & (samples.role != ROLES.index("pretrain"))
    free = np.flatnonzero(is_free)
    labels = np.arange(len(is_free), dtype=np.int64)
    for keys in (samples.subject, samples.near):
        order = free[np.lexsort((free, keys[free], samples.dataset[free]))]
        same = (keys[order][1:] == keys[order][:-1]) & (samples.dataset[order][1:] == samples.dataset[order][:-1])
        join(labels, order[:-1][same], order[1:][same])
    least = np.full(len(labels), np.inf)
    np.minimum.at(least, labels, samples.chance)
    return np.asarray(least[labels], dtype=np.float64)


def _drop_clashes(keys: Integers, split: Integers, fate: Integers, because: Integers, why: int) -> None:
    """Of the samples with one key, keep those in the most protected split, in place."""
    kept = np.flatnonzero(fate == _KEPT)
    order = kept[np.lexsort((kept, -split[kept], keys[kept]))]
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
    winner = np.repeat(order[starts], np.diff(np.r_[starts, len(order)])) if len(order) else order
    loses = split[order] < split[winner]
    fate[order[loses]] = why
    because[order[loses]] = winner[loses]


def _drop_copies(
    keys: Integers, split: Integers, fate: Integers, because: Integers, why: int, *, subject: Integers | None = None
) -> None:
    """Of the samples of `pretrain` with one key, keep the first, in place; with `subject`, all of that subject."""
    kept = np.flatnonzero((fate == _KEPT) & (split == PRETRAIN))
    _, first, which = np.unique(keys[kept], return_index=True, return_inverse=True)
    winner = kept[first][which]
    loses = kept != winner if subject is None else subject[kept] != subject[winner]
    fate[kept[loses]] = why
    because[kept[loses]] = winner[loses]


def _dropped(index: int, fate: int, other_split: str, because_of: int) -> Dropped:
    stage, reason = {
        _SUBJECT_CLASH: ("split", f"subject_in_{other_split}"),
        _NEAR_CLASH: ("split", f"near_{other_split}"),
        _SAME_PIXELS: ("duplicate", "same_pixels"),
        _NEAR_COPY: ("duplicate", "near_copy"),
    }[fate]
    return Dropped(index=index, stage=stage, reason=reason, because_of=because_of)
