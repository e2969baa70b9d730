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
    (11.4241, 4.93099, 5.67359, 0.819489, 0.950501, 0.75),
    (12.0451, 5.14853, 5.70129, 1.19529, 1.55037, 0.75),
    (11.3077, 5.35954, 4.86246, 1.08573, 1.35784, 0.75),
    (9.18304, 3.89602, 4.49068, 0.79634, 1.08965, 0.75),
    (9.96955, 4.89917, 4.23507, 0.835304, 1.52103, 0.75),
    (9.64318, 4.09499, 4.37138, 1.17682, 1.14517, 0.75),
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
