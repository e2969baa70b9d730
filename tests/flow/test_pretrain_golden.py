"""The smoke recipe's losses, step by step: a change that should not alter numbers must reproduce them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from openus_model.pretrain import pretrain

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("loss", "cls", "patch", "reconstruct_global", "teacher_entropy", "mask_ratio")
GOLDEN = (
    (11.3946, 4.92057, 5.65573, 0.818276, 0.951685, 0.75),
    (12.0281, 5.13273, 5.70087, 1.19453, 1.54345, 0.75),
    (11.2769, 5.33281, 4.85864, 1.08542, 1.35523, 0.75),
    (9.15341, 3.90145, 4.45561, 0.79635, 1.07934, 0.75),
    (9.91736, 4.8485, 4.23497, 0.833889, 1.52245, 0.75),
    (9.72753, 4.12834, 4.41776, 1.18143, 1.14912, 0.75),
)
RELATIVE = 2e-3
"""Room for other CPUs: their fused multiply-adds and thread counts move the last digits."""


def test_the_smoke_recipe_gives_the_stored_losses(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("toy_corpus", ROOT / "tests" / "model" / "conftest.py")
    assert spec and spec.loader
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    corpus = toy.write_corpus(tmp_path / "out", 14, size=96)
    pretrain("smoke", corpus, tmp_path / "run", ("engine.figure_every=0",), quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [tuple(row[name] for name in COLUMNS) for row in rows]
    assert len(found) == len(GOLDEN)
    for step, (ours, stored) in enumerate(zip(found, GOLDEN, strict=True), start=1):
        assert ours == pytest.approx(stored, rel=RELATIVE), f"step {step}"
