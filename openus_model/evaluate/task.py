"""What is to be predicted, from which images to which: labels, splits, folds and label fractions, all by subject."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openus_model.corpus import Corpus
from openus_model.errors import DataError, UsageError

Indices = NDArray[np.int64]
COLUMNS: Final = ("pathology", "view", "anatomy", "organ")
"""Manifest columns that can be a target, the most specific first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A labelled part of a corpus.

    Args:
        corpus: the dataset's rows.
        target: label or column that is predicted.
        classes: names, sorted.
        rows: indices of the corpus that have a label.
        truth: class of each of `rows`.
        unlabelled: rows without a label.
    """

    corpus: Corpus
    target: str
    classes: tuple[str, ...]
    rows: Indices
    truth: Indices
    unlabelled: int

    def subjects(self, rows: Indices) -> list[str]:
        """The subject of each row."""
        names = self.corpus.column("subject_id")
        return [names[i] for i in rows]

    def truth_of(self, rows: Indices) -> Indices:
        """The class of each row."""
        place = {int(r): k for k, r in enumerate(self.rows)}
        return self.truth[[place[int(r)] for r in rows]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One way to train and test.

    Args:
        name: "published", or "fold 1 of 5".
        train, val, test: rows of the corpus; no subject stands in two of them.
    """

    name: str
    train: Indices
    val: Indices
    test: Indices


def make_task(corpus: Corpus, target: str | None) -> Task:
    """The labels of a corpus.

    Raises:
        UsageError: no such label, or several and none was named.
        DataError: fewer than two classes.
    """
    labels = [json.loads(text or "{}") for text in corpus.column("labels")]
    name = target or _only_target(corpus, labels)
    values = _values(corpus, labels, name)
    rows = np.array([i for i, v in enumerate(values) if v is not None], np.int64)
    classes = tuple(sorted({v for v in values if v is not None}))
    if len(classes) < 2:
        got = f"only {classes[0]!r}" if classes else "no label"
        raise DataError("nothing to tell apart", where=name, expected="two classes or more", got=got)
    truth = np.array([classes.index(str(values[i])) for i in rows], np.int64)
    return Task(corpus=corpus, target=name, classes=classes, rows=rows, truth=truth, unlabelled=len(values) - len(rows))


def _values(corpus: Corpus, labels: Sequence[dict[str, object]], name: str) -> list[str | None]:
    if any(name in found for found in labels):
        return [None if found.get(name) in (None, "") else str(found[name]) for found in labels]
    if name in corpus.table.column_names:
        return [None if v is None else str(v) for v in corpus.column(name)]
    known = sorted({key for found in labels for key in found})
    raise UsageError("no such label or column", where="--target", got=name, expected=", ".join([*known, *COLUMNS]))


def _only_target(corpus: Corpus, labels: Sequence[dict[str, object]]) -> str:
    keys = sorted({key for found in labels for key in found})
    useful = [k for k in keys if 2 <= len({str(f[k]) for f in labels if f.get(k) is not None}) <= 50]
    if len(useful) == 1:
        return useful[0]
    columns = [c for c in COLUMNS if len({v for v in corpus.column(c) if v is not None}) >= 2]
    if columns:
        return columns[0]
    if not useful:
        raise DataError("no label with two classes or more", next_step="does the card map labels?")
    raise UsageError("several labels could be meant", where="--target", expected=f"one of {', '.join(useful)}")


def make_folds(task: Task, folds: int, seed: int) -> Iterator[Fold]:
    """The published split, or `folds` cross-validation folds by subject.

    Raises:
        DataError: there is no published split, or fewer subjects than folds.
    """
    split = task.corpus.column("split")
    if folds == 1:
        parts = {name: task.rows[[split[i] == name for i in task.rows]] for name in ("train", "val", "test")}
        for name in ("train", "test"):
            if len(parts[name]) == 0:
                raise DataError(f"no labelled image in the {name} split", next_step="cross-validate with --folds 5")
        yield Fold(name="published", train=parts["train"], val=parts["val"], test=parts["test"])
        return
    subjects = task.subjects(task.rows)
    number = assign_folds(subjects, task.truth, folds, seed)
    for k in range(folds):
        val = number == (k + 1) % folds if folds > 2 else np.zeros(len(number), bool)
        test = number == k
        yield Fold(
            name=f"fold {k + 1} of {folds}", train=task.rows[~test & ~val], val=task.rows[val], test=task.rows[test]
        )


def assign_folds(subjects: Sequence[str], truth: Indices, folds: int, seed: int) -> Indices:
    """Fold of each image: subjects whole, classes spread evenly, a pure function of ids and seed.

    Raises:
        DataError: fewer subjects than folds.
    """
    names = sorted(set(subjects))
    if len(names) < folds:
        raise DataError("fewer subjects than folds", expected=f"at most {len(names)}", got=str(folds))
    seen: dict[str, Counter[int]] = {}
    for subject, kind in zip(subjects, truth.tolist(), strict=True):
        seen.setdefault(subject, Counter())[kind] += 1
    order = sorted(names, key=lambda s: (seen[s].most_common(1)[0][0], _mixed(seed, s)))
    fold_of = {subject: k % folds for k, subject in enumerate(order)}
    return np.array([fold_of[s] for s in subjects], np.int64)


def take_fraction(task: Task, rows: Indices, fraction: float, seed: int) -> Indices:
    """A share of the training subjects, nested: those of a smaller share are in every larger one.

    Subjects are ordered by a hash of (seed, subject) within their commonest class, and the first of each class are
    taken, at least one, so that no class vanishes.
    """
    if not 0 < fraction <= 1:
        raise UsageError("not a share", where="--label-fraction", expected="above 0, at most 1", got=str(fraction))
    subjects, truth = task.subjects(rows), task.truth_of(rows)
    kinds: dict[str, Counter[int]] = {}
    for subject, kind in zip(subjects, truth.tolist(), strict=True):
        kinds.setdefault(subject, Counter())[kind] += 1
    by_class: dict[int, list[str]] = {}
    for subject in sorted(kinds, key=lambda s: _mixed(seed, s)):
        by_class.setdefault(kinds[subject].most_common(1)[0][0], []).append(subject)
    taken = {s for names in by_class.values() for s in names[: max(1, math.ceil(fraction * len(names) - 1e-9))]}
    return rows[[s in taken for s in subjects]]


def _mixed(seed: int, subject: str) -> str:
    return hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest()
