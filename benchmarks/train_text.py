"""Train the gate of `openus_data/deid/text_gate.py`; cross-validate it by source of the pictures.

    python benchmarks/train_text.py [--write]

Text-free ground is real ultrasound inside hand-drawn scan areas and phantoms, at several sizes, gains and sharpnesses,
some with made-up colour flow; words are laid over it (`text_scenes.py`). The gates that are tested saw neither the
source of a picture nor a font of its words. Needs scikit-learn and `realdata/` (see `text_scenes.py`).
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
from text_scenes import (
    CAP_HEIGHTS_PX,
    PLACES,
    Picture,
    Scene,
    compressed,
    phantoms,
    real_pictures,
    scenes,
    varied,
    with_flow,
)
from text_strings import OTHER_FONTS, TRAINING_FONTS, Fonts

from openus_data.deid.burned_in import LIKELY
from openus_data.deid.colour_flow import flow_patches, is_flow
from openus_data.deid.text_features import FEATURES
from openus_data.deid.text_gate import MODEL, Trees, chances
from openus_data.deid.text_lines import Lines, candidate_lines
from openus_data.deid.text_strokes import relief

DEPTH, TREES, RATE, FOLDS = 4, 120, 0.12, 4
VARIANTS, PHANTOMS, WORDS_EACH = 8, 120, 5
TRAINING_CAPS_PX = (8, 12, 6, 20, 9, 15, 7, 10, 18, 8, 12, 24)
FLOW_SHARE = 0.4


class Shown(NamedTuple):
    """One picture: its source, and its string's place and height; place "" is text-free, "flow" text-free with flow."""

    source: str
    place: str
    cap_px: int = 0


class Examples(NamedTuple):
    """Candidates of all pictures.

    Args:
        features: (N, len(FEATURES)).
        is_text: bool (N,).
        picture: index into `pictures`, (N,).
        pictures: every picture, with and without candidates.
    """

    features: NDArray[np.float64]
    is_text: NDArray[np.bool_]
    picture: NDArray[np.int64]
    pictures: list[Shown]

    @property
    def source(self) -> NDArray[np.str_]:
        """Source of each candidate, (N,)."""
        return np.array([shown.source for shown in self.pictures])[self.picture]


def grounds(rng: np.random.Generator, variants: int, count_of_phantoms: int) -> Iterator[tuple[Picture, str]]:
    """Text-free pictures, each real one as it is and varied, and phantoms; with "flow" where there is some."""
    for picture in [*real_pictures(), *phantoms(count_of_phantoms)]:
        yield picture, ""
        for _ in range(variants - 1 if picture.source != "phantom" else 1):
            other, place = varied(picture, rng), ""
            if rng.random() < FLOW_SHARE:
                other, place = with_flow(other, rng), "flow"
            if rng.random() < 0.5:
                other = Picture(source=other.source, pixels=blackened(other), inside=other.inside)
            yield other, place


def blackened(picture: Picture) -> NDArray[np.uint8]:
    """The pixels with black outside the scan area, as `build` sees them."""
    pixels = picture.pixels.copy()
    pixels[~picture.inside] = 0
    return pixels


def examples(
    seed: int,
    *,
    fonts: Fonts = TRAINING_FONTS,
    caps: tuple[int, ...] = TRAINING_CAPS_PX,
    variants: int = VARIANTS,
    count_of_phantoms: int = PHANTOMS,
) -> Examples:
    """Candidates with their truth."""
    rng = np.random.default_rng(seed)
    features: list[NDArray[np.float64]] = []
    is_text: list[NDArray[np.bool_]] = []
    pictures: list[Shown] = []
    for ground, place in grounds(rng, variants, count_of_phantoms):
        found = _lines(rng, ground.pixels, ground)
        features.append(found.features)
        is_text.append(np.zeros(len(found.boxes), bool))
        pictures.append(Shown(ground.source, place))
        for scene in scenes([ground], WORDS_EACH, seed=int(rng.integers(1 << 30)), fonts=fonts, caps=caps):
            lines = _lines(rng, scene.pixels, ground)
            held = holds_text(scene, lines)
            features.append(lines.features[held])
            is_text.append(np.ones(int(held.sum()), bool))
            pictures.append(Shown(ground.source, f"{scene.place} {place}".strip(), scene.cap_px))
    return Examples(
        features=np.concatenate(features),
        is_text=np.concatenate(is_text),
        picture=np.repeat(np.arange(len(pictures)), [len(f) for f in features]),
        pictures=pictures,
    )


def _lines(rng: np.random.Generator, pixels: NDArray[np.uint8], ground: Picture) -> Lines:
    """Candidates, half of the time after a round of JPEG; without those that are colour flow, which no gate sees."""
    shown = compressed(pixels, int(rng.integers(60, 97))) if rng.random() < 0.5 else pixels
    picture = relief(shown, ground.inside)
    lines = candidate_lines(picture)
    patches = None if picture.chroma is None else flow_patches(picture.chroma)
    if patches is None:
        return lines
    kept = ~is_flow(shown, picture.tophat, patches, lines.boxes)
    return Lines(boxes=lines.boxes[kept], features=lines.features[kept])


def holds_text(scene: Scene, lines: Lines) -> NDArray[np.bool_]:
    """Which candidates are the string or a word of it, and not much else."""
    sums = cv2.integral(scene.strokes.astype(np.uint8))
    x0, y0, x1, y1 = lines.boxes.T
    covered = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.asarray((covered > 0.15 * scene.strokes.sum()) & (y1 - y0 < 2.2 * scene.cap_px + 4))


def fit(data: Examples, rows: NDArray[np.bool_]) -> HistGradientBoostingClassifier:
    """Trees on a part of the candidates; a false alarm costs three misses, since it wipes tissue.

    None of them is set aside to stop early by: the same candidates give the same trees.
    """
    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_depth=DEPTH,
        max_leaf_nodes=2**DEPTH,
        learning_rate=RATE,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )
    weight = np.where(data.is_text[rows], 1.0, 3.0)
    model.fit(data.features[rows], data.is_text[rows], sample_weight=weight)
    return model


def held_out(data: Examples) -> dict[str, Trees]:
    """For each source, a gate that never saw it."""
    names = sorted({shown.source for shown in data.pictures})
    gates: dict[str, Trees] = {}
    for fold in range(FOLDS):
        mine = names[fold::FOLDS]
        gates |= dict.fromkeys(mine, exported(fit(data, ~np.isin(data.source, mine))))
    return gates


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


def cross_validate(gates: dict[str, Trees], data: Examples) -> None:
    """Print what gates keep and flag of pictures whose source they never saw."""
    score = np.zeros(len(data.is_text))
    source = data.source
    for name, trees in gates.items():
        score[source == name] = chances(data.features[source == name], trees)
    best = np.zeros(len(data.pictures))
    np.maximum.at(best, data.picture, score)
    place, cap = (np.array(column) for column in list(zip(*data.pictures, strict=True))[1:])
    is_string = cap > 0
    print(f"{is_string.sum()} strings, {np.sum(place == '')} text-free pictures, {np.sum(place == 'flow')} with flow")
    for threshold in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9):
        kept = best > threshold
        print(
            f"threshold {threshold:.2f}: strings kept {kept[is_string].mean():.4f}, over speckle "
            f"{kept[place == 'speckle'].mean():.4f}; flagged {kept[place == ''].mean():.3f} of the text-free pictures, "
            f"{kept[place == 'flow'].mean():.3f} of those with flow"
        )
    for where in (*PLACES, *(f"{p} flow" for p in PLACES)):
        rows = [(place == where) & (cap == height) for height in CAP_HEIGHTS_PX]
        cells = [
            f"{h} px {np.mean(best[r] > LIKELY):.4f} of {r.sum()}" for h, r in zip(CAP_HEIGHTS_PX, rows, strict=True)
        ]
        print(f"kept {where:8s} " + " | ".join(cells))


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
    data = examples(1)
    tested = examples(2, fonts=OTHER_FONTS, caps=CAP_HEIGHTS_PX, variants=2, count_of_phantoms=30)
    cross_validate(held_out(data), tested)
    model = fit(data, np.ones(len(data.is_text), bool))
    trees = exported(model)
    worst = np.abs(chances(data.features, trees) - model.predict_proba(data.features)[:, 1]).max()
    print(f"{len(data.is_text)} candidates; export differs from the model by {worst:.1e} at most")
    if options.write:
        write(trees)


if __name__ == "__main__":
    main()
