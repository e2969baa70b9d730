"""What an evaluation would do, without doing it: images and subjects per part, classes, contamination, recipe.

`open_dataset` is where a dataset that is not in the corpus is named, with the way to get it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openus_model.corpus import Corpus
from openus_model.errors import DataError
from openus_model.evaluate.task import Fold, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunReport:
    """What would be done.

    Args:
        facts: one JSON object.
    """

    facts: Mapping[str, Any]
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return dict(self.facts)

    def to_text(self) -> str:
        """A line per fold, then what is known of contamination."""
        f = self.facts
        lines = [
            f"{f['protocol']} of {f['model']} on {f['dataset']}, target {f['target']}: "
            f"{', '.join(f['classes'])}; {f['unlabelled']} images are left out"
        ]
        for fold in f["folds"]:
            parts = (f"{name} {fold[name]['images']} images of {fold[name]['subjects']} subjects" for name in PARTS)
            lines.append(f"  {fold['fold']}: {', '.join(parts)}")
        seen = f["contamination"]
        known = (
            "contamination not known" if seen["images"] is None else f"{seen['images']} test images were pretrained on"
        )
        lines.append(f"  {known}; nothing was computed")
        return "\n".join(lines)


PARTS = ("train", "val", "test")


def describe_folds(task: Task, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """Images, subjects and classes of each part of each fold."""
    found = []
    for fold in folds:
        facts: dict[str, Any] = {"fold": fold.name}
        for name in PARTS:
            rows = getattr(fold, name)
            counts = Counter(task.truth_of(rows).tolist())
            facts[name] = {
                "images": len(rows),
                "subjects": len(set(task.subjects(rows))),
                "classes": {kind: counts.get(k, 0) for k, kind in enumerate(task.classes)},
            }
        found.append(facts)
    return found


def open_dataset(data: Path, dataset: str) -> Corpus:
    """The rows of one dataset.

    Raises:
        DataError: no manifest, a torn shard, or the dataset is not in this corpus.
    """
    try:
        return Corpus.open(data, dataset=dataset)
    except DataError:
        held = sorted(set(Corpus.open(data, allow_missing=True).column("dataset")))
        if dataset in held:
            raise
    raise DataError(
        "no such dataset in this corpus", where=data.name, expected=_listed(held), got=dataset,
        next_step=f"openus-data show {dataset} says how to obtain it; then fetch and build it into this corpus",
    )  # fmt: skip


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most]) or "a dataset"
    return shown if len(names) <= most else f"{shown} or one of {len(names) - most} others"
