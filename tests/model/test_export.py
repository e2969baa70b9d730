"""Handing weights on: what is exported reads back alike, says what it saw, and computes the same as ONNX."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_corpus
from typer.testing import CliRunner

import openus_model
from openus_model import hub
from openus_model.backbones import BACKBONE_NAMES, BACKBONES, build_backbone
from openus_model.cli import app
from openus_model.corpus import Corpus
from openus_model.errors import MissingExtra, UsageError, WeightsError
from openus_model.evaluate.contamination import seen_in_pretraining
from openus_model.evaluate.model import load_model
from openus_model.export import export
from openus_model.onnx_export import prefix_scan, write_onnx
from openus_model.pretrain import pretrain
from openus_model.saved import save_backbone, weights_sha256
from openus_model.scan import scan_groups
from openus_model.seen import read_seen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps on a dozen images."""
    folder = tmp_path_factory.mktemp("run")
    data = write_corpus(folder / "out", 12, size=64)
    changes = ["schedule.steps=1", "engine.figure_every=0", "engine.checkpoint_every=1"]
    pretrain("smoke", data, folder / "run", changes, quiet=True)
    return folder / "run"


def test_a_runs_teacher_is_exported_with_a_card_and_what_it_saw(run: Path, tmp_path: Path) -> None:
    report = export(run, tmp_path / "given")
    mine, back = openus_model.load_backbone(run), openus_model.load_backbone(tmp_path / "given")
    assert weights_sha256(mine) == weights_sha256(back) == report.weights_sha256
    config = json.loads((tmp_path / "given" / "config.json").read_text())
    assert config["recipe"]["name"] == "smoke" and config["step"] == 1 and config["manifest_sha256"]
    assert report.seen_images == 12
    card = (tmp_path / "given" / "README.md").read_text()
    for word in ("12 images of 12 subjects", "| toy-breast | 6 |", "CC-BY-4.0", "| thyroid | 6 | 50.0% |", "diagnosis"):
        assert word in card
    assert set(report.files) == {"README.md", "config.json", "model.safetensors", "seen.parquet"}


def test_an_export_can_be_exported_again_without_loss(run: Path, tmp_path: Path) -> None:
    first = export(run, tmp_path / "a")
    second = export(tmp_path / "a", tmp_path / "b")
    assert second.to_json() | {"folder": ""} == first.to_json() | {"folder": ""}
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_a_card_shows_the_scores_of_these_weights_and_of_no_others(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    digest = weights_sha256(openus_model.load_backbone(folder))
    metric = {"value": 0.875, "low": 0.8, "high": 0.9, "undefined_draws": 0}
    scores = {
        "protocol": "knn", "dataset": "busi", "target": "class", "test_images": 80, "test_subjects": 60,
        "label_fraction": 1.0, "contamination": {"known": False, "images": None}, "metrics": {"accuracy": metric},
    }  # fmt: skip
    for name, sha in (("mine", digest), ("other", "0" * 64)):
        (folder / name).mkdir()
        dataset = "busi" if sha == digest else "other-data"
        (folder / name / "scores.json").write_text(json.dumps(scores | {"weights_sha256": sha, "dataset": dataset}))
    export(folder, tmp_path / "given")
    card = (tmp_path / "given" / "README.md").read_text()
    row = "| busi | class | knn | 80 images of 60 subjects | 100% | accuracy | 0.875 | 0.800 to 0.900 | unknown |"
    assert row in card and "other-data" not in card


def test_what_a_run_starts_from_counts_as_seen(run: Path, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "more", 4, size=64, organs=("liver",))
    pretrain(
        "smoke", data, tmp_path / "next",
        ["schedule.steps=1", "engine.figure_every=0", f"backbone.weights={run}"], quiet=True,
    )  # fmt: skip
    seen = read_seen(tmp_path / "next")
    assert seen is not None and seen.num_rows == 16
    assert set(seen.column("organ").to_pylist()) == {"liver", "breast", "thyroid"}


def test_a_run_from_weights_that_do_not_say_what_they_saw_does_not_claim_to_know(tmp_path: Path) -> None:
    save_backbone(tmp_path / "silent", build_backbone("vmamba_nano"), facts={"imported_from": "a.pth", "part": "model"})
    data = write_corpus(tmp_path / "out", 4, size=64)
    changes = ["schedule.steps=1", "engine.figure_every=0", f"backbone.weights={tmp_path / 'silent'}"]
    pretrain("smoke", data, tmp_path / "run", changes, quiet=True)
    export(tmp_path / "run", tmp_path / "given")
    corpus = Corpus.open(write_corpus(tmp_path / "other", 2, size=48, organs=("liver",)))
    found = seen_in_pretraining(tmp_path / "given", corpus, np.arange(2))
    assert (found["known"], found["contaminated"], found["images"]) == (False, None, 0)
    again = seen_in_pretraining(tmp_path / "given", Corpus.open(data), np.arange(4))
    assert again["contaminated"] and again["images"] == 4
    assert "what follows is a part" in (tmp_path / "given" / "README.md").read_text()
    export(tmp_path / "silent", tmp_path / "given")
    assert "Imported from `a.pth`, part `model`" in (tmp_path / "given" / "README.md").read_text()


def test_weights_that_do_not_say_what_they_saw_say_so_in_their_card(tmp_path: Path) -> None:
    save_backbone(tmp_path / "a", build_backbone("vmamba_nano"))
    report = export(tmp_path / "a", tmp_path / "b")
    assert report.seen_images is None and "do not say" in report.to_text()
    assert "These weights do not say" in (tmp_path / "b" / "README.md").read_text()
    with pytest.raises(WeightsError, match="no weights here"):
        export(tmp_path / "nowhere", tmp_path / "c")


def test_the_prefix_scan_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    u, delta = (torch.randn(2, 4, 3, 37, generator=generator) for _ in range(2))
    B, C = (torch.randn(2, 4, 2, 37, generator=generator) for _ in range(2))
    A, D, bias = -torch.rand(4, 3, 2, generator=generator) * 8, torch.ones(4, 3), torch.zeros(4, 3)
    expected = scan_groups(u, delta, A, B, C, D, bias, True, "reference")
    assert torch.allclose(prefix_scan(u, delta, A, B, C, D, bias, True), expected, atol=1e-5)


def test_onnx_agrees_with_torch_run_by_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    backbone = build_backbone("vmamba_nano").eval()
    assert write_onnx(backbone, tmp_path, 64) < 1e-4
    session = runtime.InferenceSession(str(tmp_path / "model-64.onnx"))
    image = torch.randn(1, 3, 64, 64)
    pooled = session.run(["pooled"], {"image": image.numpy()})[0]
    with torch.inference_mode():
        assert np.allclose(pooled, backbone(image).pooled_BD.numpy(), atol=1e-4)
    with pytest.raises(UsageError, match="multiple of 32"):
        write_onnx(backbone, tmp_path, 100)


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_kind_of_backbone_can_be_written_as_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    _, config = BACKBONES[name]
    assert write_onnx(build_backbone(name, **config.shrunk()).eval(), tmp_path, 64) < 1e-4


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="pip install onnx onnxruntime"):
        write_onnx(build_backbone("vmamba_nano"), tmp_path, 64)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(MissingExtra, match="pip install huggingface_hub"):
        hub.push(tmp_path, "lab/model")


class _LocalHub:
    """The part of huggingface_hub that is used, on a folder."""

    errors = SimpleNamespace(HfHubHTTPError=RuntimeError)

    def __init__(self, root: Path) -> None:
        self.root = root

    def HfApi(self) -> _LocalHub:
        return self

    def create_repo(self, repository: str, *, exist_ok: bool, private: bool) -> None:
        assert exist_ok and private
        (self.root / repository).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str]) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"hub/{repo_id}"

    def snapshot_download(self, repository: str, *, allow_patterns: list[str]) -> str:
        if not (self.root / repository).is_dir():
            raise RuntimeError("404: not found")
        return str(self.root / repository)


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _LocalHub:
    """A folder in the hub's place."""
    local = _LocalHub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", local)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", local.errors)
    return local


def test_commands_take_weights_from_the_hub_by_name(run: Path, tmp_path: Path, local_hub: _LocalHub) -> None:
    export(run, tmp_path / "given", push="lab/model")
    data, again = write_corpus(tmp_path / "out", 4, size=64), tmp_path / "again"
    ask = CliRunner().invoke
    told = ask(app, ["export", "--weights", "hf:lab/model", "--out", str(again), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["weights_sha256"] == weights_sha256(openus_model.load_backbone(run))
    file = tmp_path / "e.parquet"
    told = ask(app, ["embed", "--weights", "hf:lab/model", "--data", str(data), "--out", str(file), "--quiet"])
    assert told.exit_code == 0 and file.is_file(), told.output
    model = load_model("hf:lab/model", seed=0)
    assert model.name == "hf:lab/model" and model.folder is not None
    assert read_seen(model.folder).num_rows == 12  # so that contamination can be asked for
    with pytest.raises(WeightsError, match="lab/none: the download failed"):
        load_model("hf:lab/none", seed=0)
    told = ask(app, ["export", "--weights", str(run), "--out", str(tmp_path / "none"), "--push", "lab"])
    assert told.exit_code == 2 and "owner/name" in told.stderr and not (tmp_path / "none").exists()
    told = ask(app, ["export", "--weights", "hf:lab", "--out", str(again)])
    assert told.exit_code == 2 and "owner/name" in told.stderr


def test_weights_go_to_the_hub_and_come_back(run: Path, tmp_path: Path, local_hub: _LocalHub) -> None:
    report = export(run, tmp_path / "given", push="lab/model")
    assert report.pushed == "hub/lab/model"
    assert weights_sha256(openus_model.load_backbone(hub.pull("lab/model"))) == report.weights_sha256
    with pytest.raises(WeightsError, match="download failed"):
        hub.pull("lab/nothing")
    with pytest.raises(UsageError, match="owner/name"):
        hub.push(tmp_path, "model")
