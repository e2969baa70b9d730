"""The map of embeddings, and nearest neighbours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import openus_model.embed_map as module
from openus_model.embed_map import nearest, principal_axes, write_map
from openus_model.errors import DataError, UsageError


def _embeddings(path: Path, names: list[str]) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)
    vectors[1] = 2 * vectors[0]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    pq.write_table(pa.table({"sample_id": names, "embedding": column}), path)
    return path


def test_principal_axes_find_the_plane_that_points_lie_in() -> None:
    plane = np.random.default_rng(1).normal(size=(30, 2)) * [5, 2]
    turned = (plane @ np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0][:2]).astype(np.float32)
    places, share = principal_axes(turned)
    assert share == pytest.approx(1.0)
    assert np.allclose(np.linalg.norm(places, axis=1), np.linalg.norm(plane - plane.mean(0), axis=1), atol=1e-4)


def test_the_map_has_a_dot_per_image_and_the_likest_comes_first(make_corpus, tmp_path: Path) -> None:
    root = make_corpus(6)
    file = _embeddings(tmp_path / "e.parquet", [f"toy-{k:04d}" for k in range(6)])
    page = write_map(file, root, tmp_path / "map.html", by="device_manufacturer").read_text()
    assert page.count("<circle") == 6 and "<title>toy-0003; dataset: toy-thyroid; organ: thyroid" in page
    assert "ge: 3" in page and "unknown: 3" in page and "http" not in page
    found = nearest(file, "toy-0000", 2)
    assert found[0][0] == "toy-0001" and found[0][1] == pytest.approx(1.0) and len(found) == 2
    with pytest.raises(UsageError, match="no such sample"):
        nearest(file, "toy-9999")
    with pytest.raises(UsageError, match="no such manifest column"):
        write_map(file, root, tmp_path / "map.html", by="mood")
    with pytest.raises(DataError, match="another corpus"):
        write_map(_embeddings(tmp_path / "x.parquet", ["a", "b"]), root, tmp_path / "map.html")


def test_a_large_corpus_is_drawn_in_part_and_said_so(make_corpus, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    file = _embeddings(tmp_path / "e.parquet", [f"toy-{k:04d}" for k in range(6)])
    page = write_map(file, make_corpus(6), tmp_path / "map.html").read_text()
    assert page.count("<circle") == 3 and "3 of them are drawn" in page and "breast: 3" in page


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openus_model.embed_map", "no.parquet", "out", "--html", "map.html"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "openus_model.embed_map: no.parquet: no such file; run openus-model embed\n"
