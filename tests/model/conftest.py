"""A tiny corpus written by hand in the contract's layout, so that the trainer's tests need no build."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openus_data import schema

MakeCorpus = Callable[..., Path]


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.fileobj.tell() + 512  # type: ignore[union-attr]
    tar.addfile(info, io.BytesIO(data))
    return offset


def _image(index: int, size: int, colour: bool) -> np.ndarray:
    rng = np.random.default_rng(index)
    image = cv2.GaussianBlur(rng.integers(0, 256, (size, size), dtype=np.uint8), (0, 0), 2.0)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    cv2.circle(image, (size // 2, size // 3 + 5 * (index % 4)), size // 6, 30 + 60 * (index % 3), -1)
    return np.stack([image, image // 2, image], axis=-1) if colour else image


def write_corpus(
    root: Path,
    samples: int = 12,
    *,
    size: int = 96,
    shards: int = 3,
    split: str = "pretrain",
    organs: tuple[str, ...] = ("breast", "thyroid"),
    with_masks: bool = False,
    colour_every: int = 0,
) -> Path:
    """An OUT with `samples` images in `shards` uneven shards."""
    columns: dict[str, list[object]] = {c.name: [] for c in schema.MANIFEST_COLUMNS}
    bounds = [0, *sorted({max(1, samples * (k + 1) ** 2 // shards**2) for k in range(shards)})]
    for shard_index, (first, last) in enumerate(itertools.pairwise(bounds)):
        name = schema.shard_name(split, shard_index)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for index in range(first, last):
                organ = organs[index % len(organs)]
                image = _image(index, size, bool(colour_every) and index % colour_every == 0)
                encoded = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])[1].tobytes()
                sample_id = f"toy-{index:04d}"
                offset = _member(tar, f"{sample_id}.png", encoded)
                _member(tar, f"{sample_id}.json", json.dumps({"sample_id": sample_id}).encode())
                if with_masks:
                    mask = np.zeros((size, size), np.uint8)
                    cv2.circle(mask, (size // 2, size // 3 + 5 * (index % 4)), size // 6, 1, -1)
                    _member(tar, f"{sample_id}.mask.png", cv2.imencode(".png", mask)[1].tobytes())
                polygon = [[0.0, 0.0], [float(size), 0.0], [float(size), float(size)], [0.0, float(size)]]
                values = {
                    "sample_id": sample_id,
                    "dataset": f"toy-{organ}",
                    "subject_id": f"subject-{index // 2}",
                    "frame_index": 0,
                    "split": split,
                    "role": "both",
                    "shard": name,
                    "offset": offset,
                    "size_bytes": len(encoded),
                    "width_px": size,
                    "height_px": size,
                    "channels": 1 if image.ndim == 2 else 3,
                    "organ": organ,
                    "device_manufacturer": "ge" if index % 2 else None,
                    "labels": json.dumps({"class": organ}),
                    "cone_geometry": "linear",
                    "cone_polygon": polygon,
                    "cone_box": [0.0, 0.0, float(size), float(size)],
                    "cone_confidence": 1.0,
                    "cone_method": "image",
                    "text_boxes_removed": [],
                    "deid_actions": [],
                    "pixel_sha256": schema.pixel_sha256(image),
                    "source_sha256": "0" * 64,
                    "phash": "0" * 64,
                    "quality": [],
                    "license": "CC-BY-4.0",
                    "redistributable": True,
                    "card_sha256": "0" * 64,
                    "pipeline_version": "1",
                }
                for column, rows in columns.items():
                    rows.append(values.get(column))
        data = path.read_bytes()
        sidecar = {
            "samples": last - first,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "members": {},
        }
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    pq.write_table(pa.table(columns, schema=schema.manifest_schema()), root / schema.MANIFEST_NAME)
    return root


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """`make_corpus(samples=12, ...)` writes an OUT and returns its folder."""
    made = 0

    def make(samples: int = 12, **options: object) -> Path:
        nonlocal made
        made += 1
        return write_corpus(tmp_path / f"corpus-{made}", samples, **options)  # type: ignore[arg-type]

    return make
