"""An evaluation from beginning to end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_model import __version__
from openus_model.corpus import Corpus
from openus_model.errors import UsageError
from openus_model.evaluate.contamination import refuse_contaminated, seen_in_pretraining
from openus_model.evaluate.finetune import finetune
from openus_model.evaluate.frozen import Features, features, knn, linear
from openus_model.evaluate.metrics import Scores, score_classes, score_values
from openus_model.evaluate.model import Model, load_model
from openus_model.evaluate.page import Panel, pick_panels, write_page
from openus_model.evaluate.segment import METRICS, make_mask_task, segment
from openus_model.evaluate.settings import EvaluateRecipe, load_settings
from openus_model.evaluate.task import Fold, Task, make_folds, make_task, take_fraction
from openus_model.saved import weights_sha256

SCORES: Final = "scores.json"
SCHEMA: Final = "openus-scores/1"
BROKEN_DOWN: Final = ("device_manufacturer", "device_model", "organ")
PROBES: Final[Mapping[str, Callable[[Task, Fold, Features], tuple[Scores, dict[str, Any]]]]] = {
    "knn": knn,
    "linear": linear,
}
TRAINED: Final = ("finetune", "segment")
PROTOCOLS: Final = (*PROBES, *TRAINED)


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
    """Score a model on a dataset; write scores.json and the page.

    Raises:
        UsageError: an unknown protocol, target or recipe, or one that must be named.
        DataError: no labels or masks, no split, or shards that do not agree with the manifest.
        WeightsError: the weights cannot be read.
        ContaminatedError: the weights have seen the test images, and that was not allowed.
    """
    if request.protocol not in PROTOCOLS:
        raise UsageError("no such protocol", expected=", ".join(PROTOCOLS), got=request.protocol)
    recipe = load_settings(request.protocol, request.recipe, request.overrides, request.dataset)
    if recipe.label_fraction is not None and request.label_fraction == 1.0:
        request = replace(request, label_fraction=recipe.label_fraction)
    model = load_model(request.weights, request.seed)
    corpus = Corpus.open(request.data, dataset=request.dataset)
    is_segment = request.protocol == "segment"
    task = make_mask_task(corpus) if is_segment else make_task(corpus, request.target)
    folds = [_shortened(f, task, request) for f in make_folds(task, request.folds, request.seed)]
    tested = np.unique(np.concatenate([fold.test for fold in folds]))
    contamination = ask_contamination(model, corpus, tested)
    refuse_contaminated(contamination, request.dataset, request.allow_contaminated)
    request.out.mkdir(parents=True, exist_ok=True)
    job = Job(request=request, recipe=recipe, model=model, task=task, folds=folds, contamination=contamination)
    scores, panels = segment_all(job) if is_segment else classify_all(job)
    report = write_scores(request.out, scores)
    write_page(request.out, scores, panels)
    return report


def _shortened(fold: Fold, task: Task, request: EvaluateRequest) -> Fold:
    train = take_fraction(task, fold.train, request.label_fraction, request.seed)
    return Fold(name=fold.name, train=train, val=fold.val, test=fold.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request, made ready."""

    request: EvaluateRequest
    recipe: EvaluateRecipe
    model: Model
    task: Task
    folds: Sequence[Fold]
    contamination: Mapping[str, Any]

    def facts(self, fold: Fold, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What scores.json says of a fold."""
        return {
            "fold": fold.name, "train": len(fold.train), "val": len(fold.val), "test": len(fold.test), **settings
        }  # fmt: skip


def classify_all(job: Job) -> tuple[dict[str, Any], list[Panel]]:
    """Scores of a classification over all folds; no pictures."""
    request, recipe, task = job.request, job.recipe, job.task
    backbone = job.model.backbone
    found: Features | None = None
    if request.protocol in PROBES:
        found = features(backbone, task.corpus, request.out, size_px=recipe.size_px, batch_size=32, quiet=request.quiet)
    chances, facts = [], []
    for fold in job.folds:
        if found is not None:
            predicted, settings = PROBES[request.protocol](task, fold, found)
        else:
            predicted, settings = finetune(task, fold, backbone, recipe, seed=request.seed, quiet=request.quiet)
        chances.append(predicted)
        facts.append(job.facts(fold, settings))
    rows = np.concatenate([fold.test for fold in job.folds])
    return class_scores(job, rows, np.concatenate(chances), facts), []


def segment_all(job: Job) -> tuple[dict[str, Any], list[Panel]]:
    """Scores of a segmentation over all folds, and the best, the median and the worst image."""
    parts, facts = [], []
    for fold in job.folds:
        part, settings = segment(
            job.task, fold, job.model.backbone, job.recipe, seed=job.request.seed, quiet=job.request.quiet
        )
        parts.append(part)
        facts.append(job.facts(fold, settings))
    rows = np.concatenate([part.rows for part in parts])
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in METRICS}
    masks = {row: mask for part in parts for row, mask in part.masks.items()}
    return mask_scores(job, rows, values, facts), pick_panels(job.task.corpus, rows, values["dsc"], masks)


def mask_scores(
    job: Job, rows: NDArray[np.int64], values: Mapping[str, NDArray[np.float64]], folds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """scores.json of a segmentation."""
    task, subjects = job.task, job.task.subjects(rows)
    notes = common_notes(job)
    empty = int((task.truth_of(rows) == 0).sum())
    if empty:
        notes.append(f"{empty} test images have nothing marked: finding nothing there scores 1, finding anything 0")
    unknown = int(np.isnan(values["hd95_mm"]).sum())
    if unknown:
        notes.append(f"HD95 is not defined on {unknown} test images: no known spacing, or an empty mask")
    if task.unlabelled:
        notes.append(f"{task.unlabelled} images have no mask and were left out")
    return {
        **_head(job),
        "target": "mask",
        "test_images": len(rows),
        "test_subjects": len(set(subjects)),
        "folds": list(folds),
        "metrics": {name: score_values(value, subjects).to_json() for name, value in values.items()},
        "by": {c: break_down(task.corpus, rows, values["dsc"], c) for c in BROKEN_DOWN},
        "notes": notes,
    }


def ask_contamination(model: Model, corpus: Corpus, tested: NDArray[np.int64]) -> dict[str, Any]:
    """What the weights say of these rows."""
    if model.folder is None:
        return {"known": False, "images": None, "by": {}}
    return seen_in_pretraining(model.folder, corpus, tested)


def class_scores(
    job: Job, rows: NDArray[np.int64], chance_NK: Scores, folds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """scores.json of a classification."""
    task = job.task
    truth, subjects = task.truth_of(rows), task.subjects(rows)
    metrics = {name: interval.to_json() for name, interval in score_classes(truth, chance_NK, subjects).items()}
    predicted = chance_NK.argmax(axis=1)
    confusion = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(confusion, (truth, predicted), 1)
    return {
        **_head(job),
        "target": task.target,
        "classes": list(task.classes),
        "test_images": len(rows),
        "test_subjects": len(set(subjects)),
        "folds": list(folds),
        "metrics": metrics,
        "confusion": confusion.tolist(),
        "by": {c: break_down(task.corpus, rows, truth == predicted, c) for c in BROKEN_DOWN},
        "notes": _notes(job, truth),
    }


def _head(job: Job) -> dict[str, Any]:
    request = job.request
    paper = {k: v for k, v in asdict(job.recipe.paper).items() if v}
    return {
        "schema": SCHEMA,
        "openus_version": __version__,
        "protocol": request.protocol,
        "recipe": {k: v for k, v in asdict(job.recipe).items() if k != "paper"},
        "paper": paper,
        "model": job.model.name,
        "weights_sha256": weights_sha256(job.model.backbone),
        "dataset": request.dataset,
        "label_fraction": request.label_fraction,
        "seed": request.seed,
        "contamination": dict(job.contamination),
    }


def break_down(corpus: Corpus, rows: NDArray[np.int64], value_N: NDArray[Any], column: str) -> list[dict[str, Any]]:
    """Mean of a per-image value for each value of a column: a model that fails on one maker's machines must be seen."""
    names = corpus.column(column)
    groups: dict[str, list[float]] = {}
    for row, value in zip(rows, value_N.astype(float), strict=True):
        groups.setdefault(names[row] or "unknown", []).append(float(value))
    ordered = sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))
    return [{"value": name, "images": len(v), "mean": round(float(np.nanmean(v)), 6)} for name, v in ordered]


def _notes(job: Job, truth: NDArray[np.int64]) -> list[str]:
    task, notes = job.task, common_notes(job)
    if task.unlabelled:
        notes.append(f"{task.unlabelled} images have no label {task.target!r} and were left out")
    missing = [task.classes[k] for k in sorted(set(range(len(task.classes))) - set(truth.tolist()))]
    if missing:
        notes.append(f"no test image of class {', '.join(missing)}")
    return notes


def common_notes(job: Job) -> list[str]:
    """What limits any scores of this job."""
    notes, contamination = [], job.contamination
    if not contamination["known"]:
        notes.append("these weights do not say what they were trained on: contamination cannot be excluded")
    elif contamination["images"]:
        notes.append(
            f"CONTAMINATED: the weights have seen {contamination['images']} of the test images; allowed by request"
        )
    if job.request.label_fraction < 1:
        notes.append(f"trained on {job.request.label_fraction:.0%} of the training subjects")
    if job.request.protocol in TRAINED and any(len(fold.val) == 0 for fold in job.folds):
        notes.append("no validation images in a fold: its training ran to its end, with no early stop")
    return notes


def write_scores(out: Path, scores: Mapping[str, Any]) -> EvaluateReport:
    """Write scores.json whole or not at all."""
    text = json.dumps(scores, indent=1, sort_keys=True, allow_nan=False)
    aside = out / f".{SCORES}.{os.getpid()}.part"
    aside.write_text(f"{text}\n")
    aside.replace(out / SCORES)
    return EvaluateReport(scores=scores, path=out / SCORES)
