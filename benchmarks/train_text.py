"""Train the gate of `openus_data/deid/text_gate.py`; cross-validate it by source of the pictures.

    python benchmarks/train_text.py [--write]

Text-free ground is real ultrasound inside hand-drawn scan areas and phantoms, at several sizes, gains and sharpnesses;
words are laid over it (`text_scenes.py`). Needs scikit-learn and `realdata/` (see `text_scenes.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold
from text_scenes import Picture, Scene, compressed, phantoms, real_pictures, scenes, varied

from openus_data.deid.text_gate import MODEL, Trees, chances
from openus_data.deid.text_lines import FEATURES, Lines, candidate_lines

DEPTH, TREES, FOLDS = 4, 120, 4
VARIANTS, WORDS_EACH = 3, 5


class Examples(NamedTuple):
    """Candidates of all pictures.

    Args:
        features: (N, len(FEATURES)).
        is_text: bool (N,).
        source: index of the source, (N,).
        picture: running number of the picture, (N,); pictures of text and text-free ones share the count.
        sizes: number of (scenes, text-free pictures).
    """

    features: NDArray[np.float64]
    is_text: NDArray[np.bool_]
    source: NDArray[np.int64]
    picture: NDArray[np.int64]
    sizes: tuple[int, int]


def grounds(rng: np.random.Generator, count_of_phantoms: int = 60) -> Iterator[Picture]:
    """Text-free pictures: each real one as it is and varied, and phantoms."""
    for picture in [*real_pictures(), *phantoms(count_of_phantoms)]:
        yield picture
        for _ in range(VARIANTS - 1 if picture.source != "phantom" else 1):
            other = varied(picture, rng)
            yield (
                other
                if rng.random() < 0.5
                else Picture(source=other.source, pixels=blackened(other), inside=other.inside)
            )


def blackened(picture: Picture) -> NDArray[np.uint8]:
    """The pixels with black outside the scan area, as `build` sees them."""
    pixels = picture.pixels.copy()
    pixels[~picture.inside] = 0
    return pixels


def examples(seed: int = 1) -> Examples:
    """Candidates with their truth."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[NDArray[np.float64], bool, str, int]] = []
    number = words = 0
    for ground in grounds(rng):
        plain = compressed(ground.pixels, int(rng.integers(60, 97))) if rng.random() < 0.5 else ground.pixels
        rows += [(f, False, ground.source, number) for f in candidate_lines(plain, ground.inside).features]
        number += 1
        for scene in scenes([ground], WORDS_EACH, seed=int(rng.integers(1 << 30))):
            pixels = compressed(scene.pixels, int(rng.integers(60, 97))) if rng.random() < 0.4 else scene.pixels
            lines = candidate_lines(pixels, ground.inside)
            rows += [(lines.features[k], True, ground.source, number) for k in np.flatnonzero(holds_text(scene, lines))]
            number += 1
            words += 1
    names = sorted({row[2] for row in rows})
    return Examples(
        features=np.stack([row[0] for row in rows]),
        is_text=np.array([row[1] for row in rows]),
        source=np.array([names.index(row[2]) for row in rows]),
        picture=np.array([row[3] for row in rows]),
        sizes=(words, number - words),
    )


def holds_text(scene: Scene, lines: Lines) -> NDArray[np.bool_]:
    """Which candidates are the string or a word of it, and not much else."""
    sums = cv2.integral(scene.strokes.astype(np.uint8))
    x0, y0, x1, y1 = lines.boxes.T
    covered = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray((covered > 0.15 * scene.strokes.sum()) & (y1 - y0 < 2.2 * scene.cap_px + 4))


def fit(data: Examples, rows: NDArray[np.bool_]) -> HistGradientBoostingClassifier:
    """Trees on a part of the candidates; a false alarm costs three misses, since it wipes tissue."""
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_depth=DEPTH, max_leaf_nodes=2**DEPTH, learning_rate=0.08, l2_regularization=1.0
    )
    weight = np.where(data.is_text[rows], 1.0, 3.0)
    model.fit(data.features[rows], data.is_text[rows], sample_weight=weight)
    return model


def exported(model: HistGradientBoostingClassifier) -> Trees:
    """The model's trees, made complete: a leaf above the last level hangs under splits that do not matter."""
    feature = np.zeros((TREES, 2**DEPTH - 1), np.int64)
    threshold = np.full((TREES, 2**DEPTH - 1), 1e9)
    leaf = np.zeros((TREES, 2**DEPTH))
    for tree, (predictor,) in enumerate(model._predictors):
        _copy(predictor.nodes, 0, 0, feature[tree], threshold[tree], leaf[tree])
    return Trees(feature, threshold, leaf, float(model._baseline_prediction.ravel()[0]))


def _copy(nodes: Any, at: int, to: int, feature: Any, threshold: Any, leaf: Any) -> None:
    inner = len(feature)
    if to >= inner:
        leaf[to - inner] = nodes[at]["value"]
    elif nodes[at]["is_leaf"]:
        for side in (1, 2):
            _copy(nodes, at, 2 * to + side, feature, threshold, leaf)
    else:
        feature[to], threshold[to] = nodes[at]["feature_idx"], nodes[at]["num_threshold"]
        _copy(nodes, nodes[at]["left"], 2 * to + 1, feature, threshold, leaf)
        _copy(nodes, nodes[at]["right"], 2 * to + 2, feature, threshold, leaf)


def cross_validate(data: Examples) -> None:
    """Print what a gate trained on other sources keeps and flags."""
    score = np.zeros(len(data.is_text))
    for train, test in GroupKFold(FOLDS).split(data.features, data.is_text, data.source):
        score[test] = fit(data, np.isin(np.arange(len(score)), train)).predict_proba(data.features[test])[:, 1]
    best = np.zeros(int(data.picture.max()) + 1)
    np.maximum.at(best, data.picture, score)
    text = np.unique(data.picture[data.is_text])
    others = np.setdiff1d(np.unique(data.picture), text)
    words, grounds_seen = data.sizes
    print(f"{words} strings ({words - len(text)} without a candidate), {grounds_seen} text-free pictures")
    for threshold in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9):
        kept, flagged = (best[text] > threshold).sum() / words, (best[others] > threshold).sum() / grounds_seen
        print(f"threshold {threshold:.2f}: strings kept {kept:.4f}, text-free pictures flagged {flagged:.3f}")


def write(trees: Trees) -> None:
    """Store the trees as the package's data file."""
    stored = {
        "features": list(FEATURES),
        "start": round(trees.start, 5),
        "feature": trees.feature.tolist(),
        "threshold": [[float(f"{v:.6g}") for v in row] for row in trees.threshold],
        "leaf": [[round(v, 5) for v in row] for row in trees.leaf.tolist()],
    }
    path = Path(__file__).resolve().parents[1] / "openus_data/data" / MODEL
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in stored.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def main() -> None:
    """Cross-validate, train on everything, and write on request."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    cv2.setNumThreads(1)
    data = examples()
    cross_validate(data)
    model = fit(data, np.ones(len(data.is_text), bool))
    trees = exported(model)
    worst = np.abs(chances(data.features, trees) - model.predict_proba(data.features)[:, 1]).max()
    print(f"{len(data.is_text)} candidates; export differs from the model by {worst:.1e} at most")
    if options.write:
        write(trees)


if __name__ == "__main__":
    main()
