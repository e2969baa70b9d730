"""Embeddings: one per image, resumable, keyed by weights and source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import openus_model.embed as module
from openus_model import load_backbone
from openus_model.backbones import build_backbone
from openus_model.corpus import Corpus
from openus_model.embed import embed
from openus_model.errors import DataError, UsageError, WeightsError
from openus_model.pixels import normalise, pixels_of, resize
from openus_model.saved import save_backbone


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_backbone(tmp_path / "weights", build_backbone("vmamba_nano"))
    return tmp_path / "weights"


def test_normalise_and_its_inverse_agree_and_grey_is_repeated() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(pixels_of(normalise(grey)), grey.expand(-1, 3, -1, -1))


def test_each_image_of_a_corpus_gets_the_backbones_pooled_vector(make_corpus, weights: Path, tmp_path: Path) -> None:
    root = make_corpus(5)
    report = embed(weights, tmp_path / "e.parquet", data=root, input_px=64, batch_size=2)
    table = pq.read_table(tmp_path / "e.parquet")
    corpus, backbone = Corpus.open(root), load_backbone(weights)
    assert table.column("sample_id").to_pylist() == corpus.column("sample_id") and report.images == 5
    with torch.inference_mode():
        expected = backbone(normalise(resize(corpus.image(3), 64).unsqueeze(0))).pooled_BD[0].numpy()
    assert np.allclose(table.column("embedding")[3].as_py(), expected, atol=1e-5)
    assert table.schema.field("embedding").type.list_size == backbone.embed_dim
    assert not (tmp_path / "e.parquet.parts").exists()


def test_an_interrupted_run_goes_on_and_ends_alike(make_corpus, weights: Path, tmp_path: Path, monkeypatch) -> None:
    root = make_corpus(9)
    monkeypatch.setattr(module, "CHUNK", 3)
    embed(weights, tmp_path / "whole.parquet", data=root, input_px=64, batch_size=1)
    real, calls = module.normalise, 0

    def failing(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return real(pixels)

    monkeypatch.setattr(module, "normalise", failing)
    with pytest.raises(KeyboardInterrupt):
        embed(weights, tmp_path / "cut.parquet", data=root, input_px=64, batch_size=1)
    assert not (tmp_path / "cut.parquet").exists()
    monkeypatch.setattr(module, "normalise", real)
    report = embed(weights, tmp_path / "cut.parquet", data=root, input_px=64, batch_size=1)
    assert report.reused == 3
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


KILLED = """
import sys
from pathlib import Path
import openus_model.embed as module
module.CHUNK = 4
weights, out, images = map(Path, sys.argv[1:])
print(module.embed(weights, out, images=images, input_px=64, batch_size=2, workers=0, quiet=True).reused)
"""


def test_a_killed_run_leaves_no_file_and_the_next_one_ends_with_the_same_bytes(weights: Path, tmp_path: Path) -> None:
    images, parts = tmp_path / "scans", tmp_path / "cut.parquet.parts"
    images.mkdir()
    rng = np.random.default_rng(0)
    for k in range(40):
        cv2.imwrite(str(images / f"{k}.png"), rng.integers(0, 255, (700, 700, 3), dtype=np.uint8))

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, str(weights), str(tmp_path / name), str(images)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    victim = start("cut.parquet")
    while victim.poll() is None and not (parts / "part-000001.parquet").is_file():
        time.sleep(0.005)
    victim.kill()
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL and not (tmp_path / "cut.parquet").exists()
    reused = int(start("cut.parquet").communicate(timeout=120)[0])
    assert 8 <= reused < 40
    assert start("whole.parquet").communicate(timeout=120)[0].strip() == "0"
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_folder_is_embedded_without_its_names_and_bad_files_are_counted(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, level in (("SMITH_JANE.png", 60), ("b.jpg", 160)):
        cv2.imwrite(str(folder / name), np.full((80, 90), level, np.uint8))
    (folder / "c.png").write_bytes(b"no picture")
    report = embed(weights, tmp_path / "e.parquet", images=folder, input_px=64)
    assert (report.images, report.unreadable, report.exit_code) == (2, 1, 1)
    assert "SMITH" not in (tmp_path / "e.parquet").read_bytes().decode("latin1")


def test_what_cannot_be_embedded_is_said(weights: Path, tmp_path: Path, make_corpus) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        embed(weights, tmp_path / "e.parquet", images=tmp_path / "empty")
    with pytest.raises(UsageError, match="one of"):
        embed(weights, tmp_path / "e.parquet")
    with pytest.raises(WeightsError, match="no weights here"):
        embed(tmp_path / "empty", tmp_path / "e.parquet", data=make_corpus(2))


def test_a_backbone_comes_back_as_it_was_saved_and_never_in_part(weights: Path) -> None:
    backbone = load_backbone(weights)
    torch.manual_seed(0)
    twin = build_backbone("vmamba_nano")
    assert all(
        torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), twin.state_dict().values(), strict=True)
    )
    config = json.loads((weights / "config.json").read_text())
    config["config"]["dims"] = 24
    (weights / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="does not fit"):
        load_backbone(weights)
