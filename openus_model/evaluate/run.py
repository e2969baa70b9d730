"""An evaluation from beginning to end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openus_model import __version__
from openus_model.corpus import Corpus
from openus_model.errors import UsageError
from openus_model.evaluate.contamination import UNKNOWN, refuse_contaminated, seen_in_pretraining
from openus_model.evaluate.dry_run import DryRunReport, describe_folds, open_dataset
from openus_model.evaluate.finetune import finetune
from openus_model.evaluate.frozen import Features, cached_features, features, knn, linear
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
    job = prepare(request)
    refuse_contaminated(job.contamination, request.dataset, request.allow_contaminated)
    request.out.mkdir(parents=True, exist_ok=True)
    scores, panels = segment_all(job) if request.protocol == "segment" else classify_all(job)
    report = write_scores(request.out, scores)
    write_page(request.out, scores, panels)
    return report


def prepare(request: EvaluateRequest) -> Job:
    """Everything short of computing: the recipe, the data, the folds, the model, and what it has seen."""
    if request.protocol not in PROTOCOLS:
        raise UsageError("no such protocol", expected=", ".join(PROTOCOLS), got=request.protocol)
    recipe = load_settings(request.protocol, request.recipe, request.overrides, request.dataset)
    if recipe.label_fraction is not None and request.label_fraction == 1.0:
        request = replace(request, label_fraction=recipe.label_fraction)
    corpus = open_dataset(request.data, request.dataset)
    task = make_mask_task(corpus) if request.protocol == "segment" else make_task(corpus, request.target)
    folds = [_shortened(f, task, request) for f in make_folds(task, request.folds, request.seed)]
    model = load_model(request.weights, request.seed)
    tested = np.unique(np.concatenate([fold.test for fold in folds]))
    contamination = ask_contamination(model, corpus, tested)
    return Job(request=request, recipe=recipe, model=model, task=task, folds=folds, contamination=contamination)


def rehearse(request: EvaluateRequest) -> DryRunReport:
    """What `evaluate` would do: its folds, classes and recipe, and whether it would be refused; nothing is computed.

    Raises:
        as `evaluate`, save for contamination, which is reported.
    """
    job = prepare(request)
    task = job.task
    facts = {
        **_head(job), "target": task.target, "classes": list(task.classes), "unlabelled": task.unlabelled,
        "folds": describe_folds(task, job.folds), "notes": common_notes(job),
    }  # fmt: skip
    return DryRunReport(facts=facts)


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
        options: dict[str, Any] = {"size_px": recipe.size_px, "batch_size": 32, "quiet": request.quiet}
        if job.model.is_own:
            found = cached_features(backbone, task.corpus, request.out, **options)
        else:
            found = features(backbone, task.corpus, **options)
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
    notes += _mask_notes(task, rows, values)
    if task.unlabelled:
        notes.append(f"{task.unlabelled} images have no mask and were left out")
    return {
        **_head(job),
        "target": "mask",
        "test_images": len(rows),
        "test_subjects": len(set(subjects)),
        "folds": list(folds),
        "metrics": {name: score_values(value, subjects).to_json() for name, value in values.items()},
        "by": {c: break_down(task, rows, values["dsc"], c) for c in BROKEN_DOWN},
        "notes": notes,
    }


def _mask_notes(task: Task, rows: NDArray[np.int64], values: Mapping[str, NDArray[np.float64]]) -> Iterator[str]:
    """What a mean over these images hides."""
    marked = task.truth_of(rows) == 1
    if not marked.all():
        rest = (
            f"; on the {marked.sum()} others the mean DSC is {values['dsc'][marked].mean():.3f}" if marked.any() else ""
        )
        yield (
            f"{(~marked).sum()} test images have nothing marked: finding nothing there scores 1, "
            f"finding anything 0{rest}"
        )
    sides = [task.corpus.column(c) for c in ("spacing_row_mm", "spacing_col_mm")]
    scaled = np.array([all(side[r] is not None for side in sides) for r in rows], bool)
    if not scaled.all():
        yield f"HD95 in mm is not defined on {(~scaled).sum()} test images: their spacing is not known"
    empty = int((np.isnan(values["hd95_mm"]) & scaled).sum())
    if empty:
        yield f"HD95 is not defined on {empty} test images: the truth or the result is empty"


def ask_contamination(model: Model, corpus: Corpus, tested: NDArray[np.int64]) -> dict[str, Any]:
    """What the weights say of these rows."""
    if model.folder is None:
        return UNKNOWN
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
        "by": {c: break_down(task, rows, truth == predicted, c) for c in BROKEN_DOWN},
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
        "contamination": {**job.contamination, "allowed": request.allow_contaminated},
    }


def break_down(task: Task, rows: NDArray[np.int64], value_N: NDArray[Any], column: str) -> list[dict[str, Any]]:
    """Mean of a per-image value for each value of a column: a model that fails on one maker's machines must be seen.

    Args:
        task: of the rows.
        rows: of the corpus.
        value_N: of each row.
        column: of the manifest.

    Returns:
        an object per value, the commonest first, with a 95 % interval by subject: a small group proves little.
    """
    names, subjects = task.corpus.column(column), np.asarray(task.subjects(rows))
    kinds = np.array([names[row] or "unknown" for row in rows])
    found = []
    for kind in np.unique(kinds):
        part = kinds == kind
        mean = score_values(value_N[part].astype(np.float64), subjects[part].tolist())
        found.append(
            {
                "value": str(kind), "images": int(part.sum()), "subjects": len(set(subjects[part])),
                "mean": mean.value, "low": mean.low, "high": mean.high,
            }
        )  # fmt: skip
    return sorted(found, key=lambda group: (-group["images"], group["value"]))


def _notes(job: Job, truth: NDArray[np.int64]) -> list[str]:
    task, notes = job.task, common_notes(job)
    if task.unlabelled:
        notes.append(f"{task.unlabelled} images have no label {task.target!r} and were left out")
    notes += _missing_classes(task, "test", [truth])
    notes += _missing_classes(task, "training", [task.truth_of(fold.train) for fold in job.folds])
    return notes


def _missing_classes(task: Task, part: str, truths: Sequence[NDArray[np.int64]]) -> Iterator[str]:
    """A class that no image of a part has, in any of these."""
    every = set(range(len(task.classes)))
    missing = sorted({k for truth in truths for k in every - set(truth.tolist())})
    if missing:
        fold = " in a fold" if len(truths) > 1 else ""
        yield f"no {part} image of class {', '.join(task.classes[k] for k in missing)}{fold}"


def common_notes(job: Job) -> list[str]:
    """What limits any scores of this job."""
    notes, contamination = [], job.contamination
    if contamination["images"]:
        notes.append(
            f"CONTAMINATED: the weights have seen {contamination['images']} of the test images; allowed by request"
        )
    elif not contamination["known"]:
        part = " all that" if contamination["images"] == 0 else " what"
        notes.append(f"these weights do not say{part} they were trained on: contamination cannot be excluded")
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
