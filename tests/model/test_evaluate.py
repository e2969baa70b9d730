"""Evaluation: splits by subject, nested fractions, probes that learn what is there, contamination refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_corpus

from openus_model.backbones import build_backbone
from openus_model.corpus import Corpus
from openus_model.errors import ContaminatedError, DataError, RecipeError, UsageError
from openus_model.evaluate import EvaluateRequest, evaluate, rehearse
from openus_model.evaluate.contamination import seen_in_pretraining
from openus_model.evaluate.frozen import knn, linear
from openus_model.evaluate.settings import FOLDERS, load_settings
from openus_model.evaluate.task import Fold, assign_folds, make_folds, make_task, take_fraction
from openus_model.saved import save_backbone
from openus_model.seen import write_seen

ADAPTER = """
import torch
from openus_model.contracts import Features

class Mean(torch.nn.Module):
    embed_dim = 3

    def forward(self, image, mask=None):
        pooled = image.mean((2, 3))
        return Features(stages=(), tokens_BND=pooled[:, None], pooled_BD=pooled, grid=(1, 1))

def build():
    return Mean()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset of 40 images, two organs told apart by a bright or a dark disc, 20 subjects."""
    folder = write_corpus(tmp_path_factory.mktemp("labelled"), 40, size=64, shards=2, split="train")
    table = pq.read_table(folder / "manifest.parquet")
    number = [int(i.split("-")[1]) for i in table.column("sample_id").to_pylist()]
    split = ["test" if n % 10 >= 6 else "train" for n in number]
    changed = table.set_column(table.column_names.index("split"), table.schema.field("split"), [split])
    changed = changed.set_column(table.column_names.index("dataset"), table.schema.field("dataset"), [["toy"] * 40])
    kind = [json.dumps({"class": ("x", "y")[n % 2]}) for n in number]
    changed = changed.set_column(table.column_names.index("labels"), table.schema.field("labels"), [kind])
    hashes = [f"{np.random.default_rng(n).integers(1, 2**63):064x}" for n in number]
    hashes = ["".join(f"{np.random.default_rng(n * 4 + k).integers(1, 2**63):016x}" for k in range(4)) for n in number]
    changed = changed.set_column(table.column_names.index("phash"), table.schema.field("phash"), [hashes])
    pq.write_table(changed, folder / "manifest.parquet")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_backbone(folder, build_backbone("vmamba_nano"))
    return folder


def _request(root: Path, weights: object, out: Path, **options: object) -> EvaluateRequest:
    values = {"protocol": "knn", "weights": str(weights), "data": root, "dataset": "toy", "out": out, "quiet": True}
    return EvaluateRequest(**{**values, **options})  # type: ignore[arg-type]


def test_folds_keep_subjects_whole_and_cover_every_image_once(root: Path) -> None:
    task = make_task(Corpus.open(root), "class")
    folds = list(make_folds(task, 5, seed=1))
    assert sorted(i for f in folds for i in f.test.tolist()) == task.rows.tolist()
    for fold in folds:
        parts = [set(task.subjects(p)) for p in (fold.train, fold.val, fold.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    with pytest.raises(DataError, match="fewer subjects"):
        assign_folds(["a", "b"], np.array([0, 1]), 3, 0)


def test_label_fractions_are_nested_by_subject_and_keep_every_class(root: Path) -> None:
    task = make_task(Corpus.open(root), "class")
    (fold,) = make_folds(task, 1, seed=0)
    before: set[int] = set()
    for fraction in (0.01, 0.1, 0.25, 0.5, 1.0):
        taken = take_fraction(task, fold.train, fraction, seed=3)
        assert before <= set(taken.tolist()) and set(task.truth_of(taken)) == {0, 1}
        assert set(task.subjects(taken)).isdisjoint(set(task.subjects(fold.train)) - set(task.subjects(taken)))
        before = set(taken.tolist())
    assert before == set(fold.train.tolist())
    with pytest.raises(UsageError, match="label-fraction"):
        take_fraction(task, fold.train, 0.0, seed=3)


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_probes_score_a_dataset_and_repeat_to_the_last_digit(
    root: Path, weights: Path, tmp_path: Path, protocol: str
) -> None:
    report = evaluate(_request(root, weights, tmp_path / "a", protocol=protocol))
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert scores["metrics"]["accuracy"]["low"] <= scores["metrics"]["accuracy"]["value"] <= 1
    assert scores["test_images"] == 16 and np.sum(scores["confusion"]) == 16
    assert sum(g["images"] for g in scores["by"]["device_manufacturer"]) == 16
    again = evaluate(_request(root, weights, tmp_path / "a", protocol=protocol))
    assert again.to_json() == report.to_json() and "95 % interval" in report.to_text()


@pytest.mark.parametrize("probe", [knn, linear])
def test_a_fold_that_was_trained_on_one_class_says_that_class(root: Path, probe) -> None:
    task = make_task(Corpus.open(root), "class")
    found = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    nothing = np.zeros(0, np.int64)
    for kind in (0, 1):
        fold = Fold(name="one", train=task.rows[task.truth == kind][:5], val=nothing, test=task.rows[20:])
        chances, _ = probe(task, fold, found)
        assert np.array_equal(chances.argmax(axis=1), np.full(20, kind)) and np.allclose(chances.sum(axis=1), 1)


def test_neighbours_vote_with_the_temperature_of_dino(root: Path) -> None:
    task = make_task(Corpus.open(root), "class")
    angles = np.zeros(40)
    rows = {kind: task.rows[task.truth == kind] for kind in (0, 1)}
    train, test = np.array([rows[0][0], rows[0][1], rows[1][0]]), rows[1][1:2]
    angles[train] = [0.3, -0.4, 0.1]  # the nearest outvotes the two of the other class
    found = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * 3
    chances, _ = knn(task, Fold(name="three", train=train, val=train[:0], test=test), found)
    votes = np.exp(np.cos([0.3, -0.4, 0.1]) / 0.07)
    assert chances[0, 1] == pytest.approx(votes[2] / votes.sum(), rel=1e-4) and chances[0, 1] > 0.5


def test_random_weights_and_adapters_stand_in_the_same_harness(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ADAPTER)
    for model in ("random:vmamba_nano", "adapter:mine:build"):
        report = evaluate(_request(root, model, tmp_path / "out", folds=3))
        assert report.scores["model"] == model and report.scores["test_images"] == 40
    (tmp_path / "broken.py").write_text("def build():\n    raise RuntimeError('no weights at hand')\n")
    with pytest.raises(UsageError, match="broken:build: the adapter failed; got RuntimeError: no weights at hand"):
        evaluate(_request(root, "adapter:broken", tmp_path / "out"))
    with pytest.raises(UsageError, match="no such adapter"):
        evaluate(_request(root, "adapter:nobody:build", tmp_path / "out"))


def test_contaminated_weights_are_refused_and_said_when_allowed(root: Path, weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine = tmp_path / "mine"
    save_backbone(mine, build_backbone("vmamba_nano"))
    write_seen(mine, Corpus.open(root, where="split = 'train'"))
    clean = evaluate(_request(root, mine, tmp_path / "a")).scores["contamination"]
    assert clean["known"] and clean["images"] == 0 and clean["contaminated"] is False, clean
    write_seen(mine, Corpus.open(root))
    with pytest.raises(ContaminatedError, match="16 of 16"):
        evaluate(_request(root, mine, tmp_path / "b"))
    allowed = evaluate(_request(root, mine, tmp_path / "b", allow_contaminated=True))
    assert any("CONTAMINATED" in note for note in allowed.scores["notes"])
    assert allowed.scores["contamination"]["contaminated"] and allowed.scores["contamination"]["allowed"]
    unknown = evaluate(_request(root, weights, tmp_path / "c"))
    assert any("cannot be excluded" in note for note in unknown.scores["notes"])


def test_what_cannot_be_evaluated_is_said(root: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such protocol"):
        evaluate(_request(root, weights, tmp_path, protocol="guess"))
    with pytest.raises(UsageError, match="no such label"):
        evaluate(_request(root, weights, tmp_path, target="mood"))
    with pytest.raises(DataError, match="nothing to tell apart"):
        evaluate(_request(root, weights, tmp_path, target="dataset"))
    with pytest.raises(DataError, match="no such dataset in this corpus; expected toy; got nobody; openus-data show"):
        evaluate(_request(root, weights, tmp_path, dataset="nobody"))


@pytest.mark.parametrize("column", ["pixel_sha256", "subject_id", "duplicate_group", "phash"])
def test_each_kind_of_evidence_is_enough_to_refuse(root: Path, tmp_path: Path, column: str) -> None:
    """Weights that saw other images, of which one shares pixels, subject, group or a near hash with one test image."""
    corpus = Corpus.open(root)
    test = next(i for i, part in enumerate(corpus.column("split")) if part == "test")
    train = corpus.column("split").index("train")
    table = pq.read_table(root / "manifest.parquet")
    groups = [f"dup-{i}" for i in range(40)]
    shared = {name: corpus.column(name)[test] for name in ("pixel_sha256", "subject_id", "phash")}
    shared |= {"duplicate_group": groups[test]}
    if column == "phash":  # 8 of 256 bits differ
        shared["phash"] = f"{int(shared['phash'], 16) ^ 0xFF:064x}"
    place = table.column_names.index("duplicate_group")
    table = table.set_column(place, table.schema.field("duplicate_group"), [groups])
    labelled = Corpus(root=root, table=table, digest="x")
    seen = table.slice(train, 1)
    seen = seen.set_column(seen.column_names.index(column), seen.schema.field(column), [[shared[column]]])
    write_seen(tmp_path, Corpus(root=root, table=seen, digest="y"))
    found = seen_in_pretraining(tmp_path, labelled, np.array([test]))
    name = {"pixel_sha256": "pixels", "subject_id": "subject", "phash": "perceptual_hash"}.get(column, column)
    assert found["contaminated"] and found["by"][name] == 1 and sum(found["by"].values()) == 1


def test_a_dry_run_counts_what_would_be_done_and_computes_nothing(root: Path, weights: Path, tmp_path: Path) -> None:
    request = _request(root, weights, tmp_path / "out", label_fraction=0.5)
    report = rehearse(request)
    (fold,) = report.to_json()["folds"]
    assert fold["train"]["images"] == 12 and fold["test"]["classes"] == {"x": 8, "y": 8}
    assert "contamination not known; nothing was computed" in report.to_text()
    assert not (tmp_path / "out").exists()


def test_features_of_an_adapter_are_computed_anew_since_its_code_may_change(
    root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.py").write_text(ADAPTER)
    (tmp_path / "two.py").write_text(ADAPTER.replace("image.mean", "1 - image.mean"))
    for module in ("one", "two"):
        evaluate(_request(root, f"adapter:{module}:build", tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.npy"))


def test_a_group_of_images_is_scored_with_its_subjects_and_an_interval(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    groups = evaluate(_request(root, weights, tmp_path)).scores["by"]["device_manufacturer"]
    assert [(g["value"], g["images"], g["subjects"]) for g in groups] == [("ge", 8, 8), ("unknown", 8, 8)]
    assert all(g["low"] <= g["mean"] <= g["high"] for g in groups)


@pytest.mark.parametrize("path", sorted(FOLDERS[1].glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_papers_tables_loads_and_names_the_papers_figures(path: Path) -> None:
    words = path.stem.split("_")
    protocol = next(w for w in words if w in ("linear", "segment"))
    dataset = next(d for d in ("fetal_planes_db", "busi", "bus_bra", "tn3k") if path.stem.startswith(d[:12]))
    settings = load_settings(protocol, path.stem, (), dataset)
    assert settings.name == path.stem and settings.paper.note
    assert settings.paper.accuracy or settings.paper.dsc
    assert settings.label_fraction == (int(words[-1]) / 100 if words[-1].isdigit() else None)
    with pytest.raises(RecipeError, match="another dataset"):
        load_settings(protocol, path.stem, (), "other")


def test_a_recipe_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean busi_linear"):
        load_settings("linear", "busi_liner", (), "busi")
