"""Frozen features, computed once: cached by weights, manifest and input size; and the two probes on them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from openus_model.corpus import Corpus
from openus_model.evaluate.metrics import Scores, macro_f1
from openus_model.evaluate.task import Fold, Task
from openus_model.pixels import normalise, resize
from openus_model.progress import bar
from openus_model.saved import weights_sha256

Features = NDArray[np.float32]
KNN_NEIGHBOURS: Final = (5, 10, 20, 50, 100, 200)
KNN_TEMPERATURE: Final = 0.07
LINEAR_STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
LINEAR_STEPS: Final = 5000
"""Bound of the solver; 3,000 images of 768 features with random labels of six classes take it 438 steps."""


class Images(Dataset[Tensor]):
    """Images of a corpus as uint8 3HW of one size."""

    def __init__(self, corpus: Corpus, size_px: int) -> None:
        self.corpus, self.size_px = corpus, size_px

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> Tensor:
        return resize(self.corpus.image(index), self.size_px).expand(3, -1, -1)


def cached_features(
    backbone: Any, corpus: Corpus, cache: Path, *, size_px: int, batch_size: int, quiet: bool
) -> Features:
    """`features`, read from the cache where weights, manifest and size are the same."""
    shape = [type(backbone).__name__, getattr(backbone, "name", None), weights_sha256(backbone)]
    key = json.dumps([*shape, corpus.digest, corpus.column("sample_id"), size_px])
    path = cache / f"features-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    found = features(backbone, corpus, size_px=size_px, batch_size=batch_size, quiet=quiet)
    cache.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part.npy")
    np.save(aside, found, allow_pickle=False)
    aside.replace(path)
    return found


def features(backbone: Any, corpus: Corpus, *, size_px: int, batch_size: int, quiet: bool) -> Features:
    """The pooled vector of every image, (N, D)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbone.to(device).eval()
    loader = DataLoader(Images(corpus, size_px), batch_size, num_workers=2 if len(corpus) > 256 else 0)
    taken = []
    with torch.inference_mode(), bar("features", len(corpus), quiet=quiet) as advance:
        for batch in loader:
            taken.append(backbone(normalise(batch.to(device))).pooled_BD.float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(taken)


def knn(task: Task, fold: Fold, found: Features) -> tuple[Scores, dict[str, Any]]:
    """Weighted nearest neighbours by cosine, as in DINO and iBOT: votes weigh exp(similarity / 0.07).

    Chances are the shares of the votes. Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination, 2018, https://arxiv.org/abs/1805.01978, section 3.4.

    The number of neighbours is chosen on the validation images where there are any, else it is 20.
    """
    train, truth = _unit(found[fold.train]), task.truth_of(fold.train)
    chosen = min(20, len(train))
    if len(fold.val):
        val_truth = task.truth_of(fold.val)
        tried = [min(k, len(train)) for k in KNN_NEIGHBOURS]
        scores = [
            _macro_f1(val_truth, _vote(train, truth, _unit(found[fold.val]), k, len(task.classes))) for k in tried
        ]
        chosen = tried[int(np.argmax(scores))]
    return _vote(train, truth, _unit(found[fold.test]), chosen, len(task.classes)), {"neighbours": chosen}


def _vote(train: Features, truth: NDArray[np.int64], query: Features, k: int, classes: int) -> Scores:
    similarity = query @ train.T
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    weight = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / KNN_TEMPERATURE)
    votes = np.zeros((len(query), classes))
    for kind in range(classes):
        votes[:, kind] = (weight * (truth[nearest] == kind)).sum(axis=1)
    return np.asarray(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-12))


def _macro_f1(truth: NDArray[np.int64], chances: Scores) -> float:
    return float(macro_f1(truth, chances, np.ones((1, len(truth))))[0])


def _unit(found: Features) -> Features:
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def linear(task: Task, fold: Fold, found: Features) -> tuple[Scores, dict[str, Any]]:
    """Logistic regression on standardised features; its strength is chosen on the validation images, else it is 1.

    Differs from the paper, whose linear layer is trained by SGD on augmented views for 150 epochs with the learning
    rate chosen on the test images (algorithm, V1): here features are computed once and the test images decide nothing.
    """
    train_truth = task.truth_of(fold.train)
    strength = 1.0
    if len(fold.val):
        val_truth = task.truth_of(fold.val)
        scores = [
            _macro_f1(val_truth, _fit(found[fold.train], train_truth, c, found[fold.val], len(task.classes)))
            for c in LINEAR_STRENGTHS
        ]
        strength = LINEAR_STRENGTHS[int(np.argmax(scores))]
    chances = _fit(found[fold.train], train_truth, strength, found[fold.test], len(task.classes))
    return chances, {"inverse_regularisation": strength}


def _fit(train: Features, truth: NDArray[np.int64], strength: float, query: Features, classes: int) -> Scores:
    chances = np.zeros((len(query), classes))
    present = np.unique(truth)
    if len(present) == 1:  # a fold with a single class can say nothing else
        chances[:, present[0]] = 1.0
        return chances
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=LINEAR_STEPS))
    model.fit(train, truth)
    chances[:, present] = model.predict_proba(query)
    return chances
