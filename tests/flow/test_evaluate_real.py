"""From real labelled ultrasound to scores, by command: fetch, build, pretrain, evaluate, refuse what was seen.

A BUSI-like dataset: a folder per class, ovaries with their annotators' masks, muscles without any.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import openus_data, small_pictures, write_picture

pytestmark = pytest.mark.slow
SIDE_PX = 200
CARD = """
id = "{name}"
title = "Real pictures of a test"
homepage = "https://example.org/{name}"
role = "{role}"
access = "open"
host = "a folder"
obtain = ["Take the folder."]
organ = "other"
anatomy = ["unspecified"]

[citation]
text = "See the table of sources"

[license]
terms = "several"
class = "mixed"
redistributable = false

[[downloads]]
source = "manual"
locator = "https://example.org/{name}"
"""
ORGANS = """
[mask_classes]
tumour = 1

[[images]]
match = ["ovary/*.png"]
exclude = ["*_mask.png"]
facts = {{ organ = "gynaecology", anatomy = "ovary", device_manufacturer = "ge" }}

[[images]]
match = ["muscle/*.png"]
facts = {{ organ = "musculoskeletal", anatomy = "muscle_lower_limb" }}

[[masks]]
match = ["ovary/*_mask.png"]
key = 'ovary/(.+)_mask\\.png$'
class = "tumour"

[[labels]]
name = "class"
path = '(ovary|muscle)/'
open = true

[subject]
path = '(?:ovary|muscle)/([^_/.]+)'
"""
FRAMES = """
[[images]]
match = ["*.png"]

[subject]
fallback = "image"
"""


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path.name
    return image


def _tumours(realdata: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ten ovarian tumours with the masks of their COCO file."""
    folder = realdata / "dev" / "05_ultrasam_mmotu_coco" / "sample_dataset"
    coco = json.loads((folder / "sample_coco_MMOTU2D.json").read_text())
    pairs = []
    for entry in sorted(coco["images"], key=lambda e: e["file_name"]):
        image = _read(folder / "sample_images" / entry["file_name"])
        mask = np.zeros_like(image)
        for annotation in coco["annotations"]:
            if annotation["image_id"] == entry["id"]:
                mask |= _decode(annotation["segmentation"]["counts"], mask.shape)
        pairs.append((image, mask))
    return pairs


def _decode(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """COCO's run lengths: base 32 digits with a sign, differences to the run before the last, columns first."""
    runs: list[int] = []
    value, digits = 0, 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 31) << (5 * digits)
        digits += 1
        if not code & 32:
            value = value - (1 << (5 * digits)) if code & 16 else value
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, digits = 0, 0
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return flat.reshape(shape[::-1]).T


def _muscles(realdata: Path) -> list[tuple[str, np.ndarray]]:
    """Twelve pictures of leg muscles with the name of their subject: one of five people, or a series."""
    with (realdata / "provenance.tsv").open() as handle:
        files = [Path(r["file"]) for r in csv.DictReader(handle, delimiter="\t") if "alis muscle" in r["anatomy"]]
    return [(f.parent.name.replace("-", ""), _read(realdata / f)) for f in sorted(files) if f.suffix == ".png"]


def _small(image: np.ndarray, how: int = cv2.INTER_AREA) -> np.ndarray:
    scale = min(1.0, SIDE_PX / max(image.shape))
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=how), np.uint8)


def openus_model(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `openus-model` in a process of its own."""
    command = [sys.executable, "-m", "openus_model.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    assert "Traceback" not in answer.stderr + answer.stdout, answer
    return answer


@pytest.fixture(scope="module")
def place(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `out`, a corpus of labelled organs and of other frames, and `run`, pretrained on the frames."""
    folder = tmp_path_factory.mktemp("real")
    for k, (image, mask) in enumerate(_tumours(realdata)):
        write_picture(folder / "organs" / "ovary" / f"case{k}.png", _small(image))
        write_picture(folder / "organs" / "ovary" / f"case{k}_mask.png", _small(mask * 255, cv2.INTER_NEAREST))
    for k, (subject, image) in enumerate(_muscles(realdata)):
        write_picture(folder / "organs" / "muscle" / f"{subject}_{k}.png", _small(image))
    for k, image in enumerate(small_pictures(realdata, SIDE_PX)[:12]):
        write_picture(folder / "frames" / f"{k}.png", image)
    (folder / "cards").mkdir()
    for name, role, rules in (("organs", "evaluate", ORGANS), ("frames", "pretrain", FRAMES)):
        (folder / "cards" / f"{name}.toml").write_text((CARD + rules).format(name=name, role=role))
        fetched = openus_data("fetch", name, "--cards", "cards", "--root", "root", "--from", name, cwd=folder)
        assert fetched.returncode == 0, fetched
    built = openus_data("build", "organs", "frames", "--cards", "cards", "--root", "root", "--out", "out", cwd=folder)
    assert built.returncode == 0, built
    start = ("pretrain", "smoke", "--data", "out", "--out", "run", "--quiet", "--set", "schedule.steps=20")
    trained = openus_model(*start, "--set", "engine.figure_every=0", "--set", "engine.checkpoint_every=20", cwd=folder)
    assert trained.returncode == 0, trained
    return folder


def _scores(place: Path, protocol: str, *options: str, dataset: str = "organs") -> dict[str, Any]:
    out = f"scores/{protocol}"
    arguments = (
        "evaluate",
        protocol,
        "--weights",
        "run",
        "--data",
        "out",
        "--dataset",
        dataset,
        "--out",
        out,
        "--json",
    )
    answer = openus_model(*arguments, *options, cwd=place)
    assert answer.returncode == 0 and answer.stderr == "", answer
    told: dict[str, Any] = json.loads(answer.stdout)
    assert json.loads((place / out / "scores.json").read_text()) == told
    assert (place / out / "scores.html").read_text().startswith("<!doctype html>")
    return told


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_organs_are_probed_and_the_scores_follow_from_the_confusion(place: Path, protocol: str) -> None:
    scores = _scores(place, protocol, "--target", "class", "--folds", "3", "--set", "size_px=96")
    assert scores["classes"] == ["muscle", "ovary"] and scores["test_images"] == 22
    (a, b), (c, d) = scores["confusion"]
    values = {name: metric["value"] for name, metric in scores["metrics"].items()}
    assert (a + b, c + d) == (12, 10) and values["accuracy"] == pytest.approx((a + d) / 22)
    assert values["macro_f1"] == pytest.approx((2 * a / (2 * a + b + c) + 2 * d / (2 * d + b + c)) / 2)
    assert 0 <= values["auroc"] <= 1 and 0 <= values["ece"] <= 1
    assert {group["value"] for group in scores["by"]["organ"]} == {"gynaecology", "musculoskeletal"}
    assert scores["contamination"] == {
        "known": True, "contaminated": False, "images": 0, "of": 22, "allowed": False,
        "by": {"pixels": 0, "subject": 0, "duplicate_group": 0, "perceptual_hash": 0},
    }  # fmt: skip


def test_tumours_are_outlined_and_the_page_shows_them(place: Path) -> None:
    changes = ("size_px=64", "epochs=20", "batch_size=3", "decoder=pyramid", "lr=0.005", "frozen=false")
    scores = _scores(place, "segment", "--folds", "2", *(part for c in changes for part in ("--set", c)))
    assert scores["test_images"] == 10 and any("12 images have no mask" in note for note in scores["notes"])
    assert scores["metrics"]["dsc"]["value"] > 0.2, scores["metrics"]
    assert (place / "scores" / "segment" / "scores.html").read_text().count("data:image/png") == 3


def test_what_was_pretrained_on_is_refused_as_a_test(place: Path) -> None:
    arguments = ("evaluate", "knn", "--weights", "run", "--data", "out", "--dataset", "frames", "--out", "no")
    columns = ("--target", "cone_geometry", "--folds", "2")
    table = pq.read_table(place / "out" / "manifest.parquet", partitioning=None)
    kept = table["dataset"].to_pylist().count("frames")
    assert kept >= 10
    answer = openus_model(*arguments, *columns, cwd=place)
    assert answer.returncode == 1 and answer.stdout == "" and not (place / "no").exists(), answer
    assert f"have seen {kept} of {kept} test images" in answer.stderr and answer.stderr.count("\n") == 1
    allowed = openus_model(*arguments, *columns, "--allow-contaminated", "--json", "--set", "size_px=64", cwd=place)
    assert allowed.returncode == 0 and json.loads(allowed.stdout)["contamination"]["contaminated"], allowed
