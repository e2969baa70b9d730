"""Evaluation on real labelled ultrasound: ovaries told from muscles, tumours outlined by annotators' masks."""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import _member, write_corpus

from openus_data import schema
from openus_model.evaluate import EvaluateRequest, evaluate

SIDE_PX = 128


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


def _muscles(realdata: Path) -> list[np.ndarray]:
    with (realdata / "provenance.tsv").open() as handle:
        rows = [r for r in csv.DictReader(handle, delimiter="\t") if "lateralis muscle" in r["anatomy"]]
    return [_read(realdata / r["file"]) for r in rows if Path(r["file"]).suffix in (".png", ".jpg", ".jpeg", ".tif")]


@pytest.fixture(scope="module")
def out(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset of both, in the contract's layout; every picture a subject of its own."""
    items = [(image, mask, "ovary") for image, mask in _tumours(realdata)]
    items += [(image, None, "muscle") for image in _muscles(realdata)]
    assert {organ for _, _, organ in items} == {"ovary", "muscle"}
    root = write_corpus(tmp_path_factory.mktemp("real"), len(items), shards=1, split="train")
    table = pq.read_table(root / schema.MANIFEST_NAME)
    path = root / table.column("shard")[0].as_py()
    changes: dict[str, list[object]] = {name: [] for name in ("offset", "size_bytes", "pixel_sha256")}
    with tarfile.open(path, "w") as tar:
        for k, (image, mask, _) in enumerate(items):
            small = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            encoded = cv2.imencode(".png", small)[1].tobytes()
            changes["offset"].append(_member(tar, f"toy-{k:04d}.png", encoded))
            changes["size_bytes"].append(len(encoded))
            changes["pixel_sha256"].append(schema.pixel_sha256(small))
            if mask is not None:
                kept = cv2.resize(mask, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
                _member(tar, f"toy-{k:04d}.mask.png", cv2.imencode(".png", kept)[1].tobytes())
    data = path.read_bytes()
    sidecar = {"samples": len(items), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "members": {}}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    count = len(items)
    changes |= {
        "dataset": ["real"] * count,
        "subject_id": [f"subject-{k}" for k in range(count)],
        "width_px": [SIDE_PX] * count,
        "height_px": [SIDE_PX] * count,
        "organ": [organ for _, _, organ in items],
        "labels": ["{}"] * count,
    }
    for name, values in changes.items():
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    pq.write_table(table, root / schema.MANIFEST_NAME)
    return root


def _request(out: Path, scores: Path, protocol: str, **options: object) -> EvaluateRequest:
    values = {
        "protocol": protocol, "weights": "random:vmamba_nano", "data": out, "dataset": "real", "out": scores,
        "quiet": True,
    }  # fmt: skip
    return EvaluateRequest(**{**values, **options})  # type: ignore[arg-type]


def test_organs_are_told_apart_by_a_probe_on_frozen_features(out: Path, tmp_path: Path) -> None:
    scores = evaluate(_request(out, tmp_path, "linear", target="organ", folds=3, overrides=("size_px=96",))).scores
    assert scores["classes"] == ["muscle", "ovary"]
    assert scores["metrics"]["auroc"]["value"] > 0.8, scores["metrics"]
    assert {group["value"] for group in scores["by"]["organ"]} == {"muscle", "ovary"}


def test_tumours_are_outlined_and_the_page_shows_them(out: Path, tmp_path: Path) -> None:
    changes = ("size_px=64", "epochs=20", "batch_size=3", "decoder=pyramid", "lr=0.005", "frozen=false")
    scores = evaluate(_request(out, tmp_path, "segment", folds=2, overrides=changes)).scores
    assert scores["test_images"] == 10 and any("no mask" in note for note in scores["notes"])
    assert scores["metrics"]["dsc"]["value"] > 0.2, scores["metrics"]
    assert (tmp_path / "scores.html").read_text().count("data:image/png") == 3
