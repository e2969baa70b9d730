"""An evaluation from beginning to end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_model import __version__
from openus_model.corpus import Corpus
from openus_model.errors import UsageError
from openus_model.evaluate.contamination import refuse_contaminated, seen_in_pretraining
from openus_model.evaluate.frozen import Features, features, knn, linear
from openus_model.evaluate.metrics import Scores, score_classes
from openus_model.evaluate.model import Model, load_model
from openus_model.evaluate.task import Fold, Task, make_folds, make_task, take_fraction
from openus_model.saved import weights_sha256

SCORES: Final = "scores.json"
SCHEMA: Final = "openus-scores/1"
BROKEN_DOWN: Final = ("device_manufacturer", "device_model", "organ")
PROBES: Final[Mapping[str, Callable[[Task, Fold, Features], tuple[Scores, dict[str, Any]]]]] = {
    "knn": knn,
    "linear": linear,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """One evaluation.

    Args:
        protocol: knn, linear, finetune or segment.
        weights: see `model.load_model`.
        data: an OUT that `openus-data build` made.
        dataset: id of the dataset in it.
        out: folder for scores.json and what goes with it.
        recipe: an evaluation recipe; None for the protocol's own.
        overrides: `key=value` changes of the recipe.
        target: label or manifest column to predict.
        label_fraction: share of the training subjects.
        folds: 1 for the published split.
        seed: of folds, fractions and training.
        allow_contaminated: go on although the weights have seen the test images.
        quiet: no progress bar.
    """

    protocol: str
    weights: str
    data: Path
    dataset: str
    out: Path
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    target: str | None = None
    label_fraction: float = 1.0
    folds: int = 1
    seed: int = 0
    allow_contaminated: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReport:
    """Scores, and all that one must know to believe them.

    Args:
        scores: the content of scores.json.
        path: where it was written.
    """

    scores: Mapping[str, Any]
    path: Path
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """The content of scores.json."""
        return dict(self.scores)

    def to_text(self) -> str:
        """A table of metrics with intervals, then what limits them."""
        s = self.scores
        lines = [
            f"{s['protocol']} of {s['model']} on {s['dataset']}, "
            f"{s['test_images']} test images of {s['test_subjects']} subjects"
        ]
        for name, value in s["metrics"].items():
            lines.append(f"  {name:<12}{_shown(value)}")
        lines += [f"note: {note}" for note in s["notes"]]
        lines.append(f"scores: {self.path}")
        return "\n".join(lines)


def _shown(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "not defined"
    if value["low"] is None:
        return f"{value['value']:.4f}"
    return f"{value['value']:.4f}  95 % interval {value['low']:.4f} to {value['high']:.4f}"


def evaluate(request: EvaluateRequest) -> EvaluateReport:
    """Score a model on a dataset and write scores.json.

    Raises:
        UsageError: an unknown protocol or target, or one that must be named.
        DataError: no labels, no split, or shards that do not agree with the manifest.
        WeightsError: the weights cannot be read.
        ContaminatedError: the weights have seen the test images, and that was not allowed.
    """
    if request.protocol not in PROBES:
        raise UsageError("no such protocol", expected=", ".join(PROBES), got=request.protocol)
    model = load_model(request.weights, request.seed)
    corpus = Corpus.open(request.data, dataset=request.dataset)
    task = make_task(corpus, request.target)
    folds = list(make_folds(task, request.folds, request.seed))
    tested = np.unique(np.concatenate([fold.test for fold in folds]))
    contamination = ask_contamination(model, corpus, tested)
    refuse_contaminated(contamination, request.dataset, request.allow_contaminated)
    request.out.mkdir(parents=True, exist_ok=True)
    found = features(model.backbone, corpus, request.out, size_px=224, batch_size=32, quiet=request.quiet)
    rows, chances, chosen = [], [], []
    for fold in folds:
        train = take_fraction(task, fold.train, request.label_fraction, request.seed)
        part = Fold(name=fold.name, train=train, val=fold.val, test=fold.test)
        predicted, settings = PROBES[request.protocol](task, part, found)
        rows.append(fold.test)
        chances.append(predicted)
        chosen.append(
            {"fold": fold.name, "train": len(train), "val": len(fold.val), "test": len(fold.test), **settings}
        )
    scores = class_scores(request, model, task, np.concatenate(rows), np.concatenate(chances), chosen, contamination)
    return write_scores(request.out, scores)


def ask_contamination(model: Model, corpus: Corpus, tested: NDArray[np.int64]) -> dict[str, Any]:
    """What the weights say of these rows."""
    if model.folder is None:
        return {"known": False, "images": None, "by": {}}
    return seen_in_pretraining(model.folder, corpus, tested)


def class_scores(
    request: EvaluateRequest,
    model: Model,
    task: Task,
    rows: NDArray[np.int64],
    chance_NK: Scores,
    folds: Sequence[Mapping[str, Any]],
    contamination: Mapping[str, Any],
) -> dict[str, Any]:
    """scores.json of a classification."""
    truth, subjects = task.truth_of(rows), task.subjects(rows)
    metrics = {name: interval.to_json() for name, interval in score_classes(truth, chance_NK, subjects).items()}
    predicted = chance_NK.argmax(axis=1)
    confusion = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(confusion, (truth, predicted), 1)
    return {
        **_head(request, model, contamination),
        "target": task.target,
        "classes": list(task.classes),
        "test_images": len(rows),
        "test_subjects": len(set(subjects)),
        "folds": list(folds),
        "metrics": metrics,
        "confusion": confusion.tolist(),
        "by": {c: break_down(task.corpus, rows, truth == predicted, c) for c in BROKEN_DOWN},
        "notes": _notes(request, task, truth, contamination),
    }


def _head(request: EvaluateRequest, model: Model, contamination: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "openus_version": __version__,
        "protocol": request.protocol,
        "model": model.name,
        "weights_sha256": weights_sha256(model.backbone),
        "dataset": request.dataset,
        "label_fraction": request.label_fraction,
        "seed": request.seed,
        "contamination": dict(contamination),
    }


def break_down(corpus: Corpus, rows: NDArray[np.int64], value_N: NDArray[Any], column: str) -> list[dict[str, Any]]:
    """Mean of a per-image value for each value of a column: a model that fails on one maker's machines must be seen."""
    names = corpus.column(column)
    groups: dict[str, list[float]] = {}
    for row, value in zip(rows, value_N.astype(float), strict=True):
        groups.setdefault(names[row] or "unknown", []).append(float(value))
    ordered = sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))
    return [{"value": name, "images": len(v), "mean": round(float(np.nanmean(v)), 6)} for name, v in ordered]


def _notes(
    request: EvaluateRequest, task: Task, truth: NDArray[np.int64], contamination: Mapping[str, Any]
) -> list[str]:
    notes = []
    if task.unlabelled:
        notes.append(f"{task.unlabelled} images have no label {task.target!r} and were left out")
    missing = [task.classes[k] for k in sorted(set(range(len(task.classes))) - set(truth.tolist()))]
    if missing:
        notes.append(f"no test image of class {', '.join(missing)}")
    if not contamination["known"]:
        notes.append("these weights do not say what they were trained on: contamination cannot be excluded")
    elif contamination["images"]:
        notes.append(
            f"CONTAMINATED: the weights have seen {contamination['images']} of the test images; allowed by request"
        )
    if request.label_fraction < 1:
        notes.append(f"trained on {request.label_fraction:.0%} of the training subjects")
    return notes


def write_scores(out: Path, scores: Mapping[str, Any]) -> EvaluateReport:
    """Write scores.json whole or not at all."""
    text = json.dumps(scores, indent=1, sort_keys=True, allow_nan=False)
    aside = out / f".{SCORES}.{os.getpid()}.part"
    aside.write_text(f"{text}\n")
    aside.replace(out / SCORES)
    return EvaluateReport(scores=scores, path=out / SCORES)
