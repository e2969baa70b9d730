"""Fine-tuning: learns, repeats, leaves the weights it was given alone, and trains early layers slower."""

from __future__ import annotations

from pathlib import Path

import conftest
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_corpus

from openus_model.backbones import build_backbone
from openus_model.evaluate import EvaluateRequest, evaluate
from openus_model.evaluate.finetune import _class_weights, crop_and_flip
from openus_model.evaluate.settings import EvaluateRecipe
from openus_model.evaluate.training import layer_groups
from openus_model.saved import save_backbone, weights_sha256


def _shade(index: int, size: int, colour: bool) -> np.ndarray:
    """Noise whose level is its class."""
    low = (0, 90, 180)[index % 3]
    return np.random.default_rng(index).integers(low, low + 60, (size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "_image", _shade)
        folder = write_corpus(tmp_path_factory.mktemp("labelled"), 32, size=64, shards=2, split="train")
    table = pq.read_table(folder / "manifest.parquet")
    changes = {
        "split": [("train", "train", "val", "test")[i // 2 % 4] for i in range(32)],
        "dataset": ["toy"] * 32,
        "labels": ['{"class": "%s"}' % ("dark", "mid", "light")[i % 3] for i in range(32)],  # noqa: UP031
    }
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), [values])
    pq.write_table(table, folder / "manifest.parquet")
    return folder


def test_it_learns_and_repeats_and_leaves_the_given_weights_alone(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vmamba_nano")
    save_backbone(tmp_path / "weights", backbone)
    request = EvaluateRequest(
        protocol="finetune", weights=str(tmp_path / "weights"), data=root, dataset="toy", out=tmp_path / "out",
        overrides=("size_px=64", "epochs=6", "batch_size=8", "lr=0.003", "class_weights=true"), quiet=True,
    )  # fmt: skip
    report = evaluate(request)
    assert report.scores["weights_sha256"] == weights_sha256(backbone)
    assert report.scores["metrics"]["accuracy"]["value"] > 0.6, report.to_text()
    assert report.scores["folds"][0]["best_validation"] > 0.6
    assert evaluate(request).to_json() == report.to_json()
    assert "Confusion" in (tmp_path / "out" / "scores.html").read_text()


def test_layers_learn_the_slower_the_earlier_they_stand_and_none_is_left_out() -> None:
    backbone = build_backbone("vmamba_nano")
    groups = layer_groups(backbone, EvaluateRecipe(lr=1.0, layer_decay=0.5, weight_decay=0.1))
    rates = [group["lr"] for group in groups]
    assert (
        rates == sorted(rates) and rates[-1] == 0.5 and rates[0] == 0.5**9
    )  # five blocks, three down-samplers, the embedding
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in backbone.parameters())
    free = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    names = {name.rsplit(".", 1)[-1] for name, p in backbone.named_parameters() if id(p) in free}
    assert {"bias", "A_logs", "Ds", "dt_projs_bias"} <= names and all(g["weight_decay"] in (0, 0.1) for g in groups)


def test_class_weights_even_out_and_skip_what_training_lacks() -> None:
    truth = np.array([0, 0, 0, 2])
    weights = _class_weights(truth, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 0.0, 2.0])


def test_crops_keep_size_and_come_from_the_image() -> None:
    image = torch.full((2, 3, 32, 32), 7, dtype=torch.uint8)
    assert torch.equal(crop_and_flip(image, torch.Generator().manual_seed(0)), image)
