"""The descriptions of a corpus: valid for those who read them, equal for equal corpora."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from corpus_maker import make_corpus

from openus_data.card import load_card
from openus_data.datacard import write_cards

CARDS = {"busi": load_card(Path(__file__).resolve().parents[2] / "manifests" / "busi.toml")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    samples = [{"dataset": "busi", "organ": "breast"}, {"dataset": "busi", "split": "test"}, {"dataset": "clinic"}]
    root = make_corpus(tmp_path / "out", samples)
    write_cards(root, CARDS)
    return root


def test_the_data_card_counts_what_is_there_and_cites_it(out: Path) -> None:
    text = (out / "datacard.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["size_categories"] == ["n<1K"] and "ultrasound" in head["tags"]
    assert "| busi |" in text and "private folder" in text and "| unknown | 2 |" in text


_LOAD = """
import json, sys, mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
rows, images = (list(dataset.records(name)) for name in ("manifest-rows", "image-records"))
json.dump([list(dataset.metadata.ctx.issues.errors), len(rows), len(images), sorted(rows[0])], sys.stdout)
"""


def test_croissant_is_valid_and_its_records_can_be_read(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant")
    # A process of its own: the library leaves its files open and keeps a cache in the home folder.
    command = [sys.executable, "-W", "ignore", "-c", _LOAD, str(out / "croissant.json")]
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
    assert answer.returncode == 0, answer.stderr
    errors, rows, images, fields = json.loads(answer.stdout)
    assert (errors, rows, images) == ([], 3, 3) and any(f.endswith("sample_id") for f in fields)


def test_equal_corpora_have_equal_descriptions(out: Path, tmp_path: Path) -> None:
    before = [(out / name).read_bytes() for name in ("datacard.md", "croissant.json")]
    write_cards(out, CARDS)
    assert before == [(out / name).read_bytes() for name in ("datacard.md", "croissant.json")]
    assert str(tmp_path) not in before[0].decode() + before[1].decode()
    assert json.loads(before[1])["recordSet"]


_DESCRIBE = """
import sys
from pathlib import Path
from openus_data.datacard import write_cards
write_cards(Path(sys.argv[1]), {})
assert "pandas" not in sys.modules
"""


def test_describing_a_corpus_does_not_wait_for_pandas(out: Path) -> None:
    answer = subprocess.run([sys.executable, "-c", _DESCRIBE, str(out)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
