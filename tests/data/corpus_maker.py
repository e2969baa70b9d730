"""Small finished corpora, written through the real writers, for tests of what comes after a build."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from openus_data.manifest import write_manifest, write_rejects
from openus_data.records import Pixels, Reject
from openus_data.schema import PIPELINE_VERSION, pixel_sha256
from openus_data.shards import ShardWriter


def picture(seed: int, height: int = 96, width: int = 128) -> Pixels:
    """Speckle in a rectangle."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((height, width, 2)).astype(np.float32), (0, 0), 1.5)
    envelope = np.hypot(field[..., 0], field[..., 1])
    return np.asarray(np.clip(envelope / envelope.mean() * 70, 0, 255), np.uint8)


def make_corpus(
    out: Path,
    samples: Sequence[Mapping[str, Any]],
    *,
    rejects: Sequence[Reject] = (),
    pixels: Mapping[int, Pixels] | None = None,
    build: Mapping[str, Any] | None = None,
) -> Path:
    """Write an OUT; each mapping overrides columns of one sample, `pixels` gives the picture of sample k."""
    by_split: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for k, sample in enumerate(samples):
        by_split.setdefault(str(sample.get("split", "pretrain")), []).append((k, sample))
    shards = []
    for split in sorted(by_split):
        rows = []
        with ShardWriter(out, split, 0) as shard:
            for k, sample in by_split[split]:
                image = (pixels or {}).get(k, picture(k))
                row = _row(k, image, sample)
                data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])[1].tobytes()
                member = shard.add(str(row["sample_id"]), [("png", data), ("json", json.dumps(row).encode())])
                rows.append({**row, "shard": shard.name, "offset": member.offset, "size_bytes": member.size})
        shards.append(rows)
    write_manifest(out, shards)
    write_rejects(out, rejects)
    (out / "build.json").write_text(json.dumps(build or {"datasets": {}}))
    return out


def _row(k: int, image: Pixels, sample: Mapping[str, Any]) -> dict[str, Any]:
    height, width = image.shape[:2]
    row = {
        "sample_id": f"toy-{k:020x}",
        "dataset": "toy",
        "subject_id": f"toy-{k:012x}",
        "study_id": None,
        "frame_index": 0,
        "split": "pretrain",
        "role": "pretrain",
        "shard": "",
        "offset": 0,
        "size_bytes": 0,
        "width_px": width,
        "height_px": height,
        "channels": 1 if image.ndim == 2 else 3,
        "spacing_row_mm": None,
        "spacing_col_mm": None,
        "organ": None,
        "anatomy": None,
        "view": None,
        "pathology": None,
        "labels": "{}",
        "device_manufacturer": None,
        "device_model": None,
        "transducer": None,
        "frequency_mhz": None,
        "institution": None,
        "country": None,
        "cone_geometry": "linear",
        "cone_polygon": [[0.0, 0.0], [float(width), 0.0], [float(width), float(height)], [0.0, float(height)]],
        "cone_box": [0.0, 0.0, float(width), float(height)],
        "cone_confidence": 0.9,
        "cone_method": "image",
        "text_boxes_removed": [],
        "deid_actions": [],
        "pixel_sha256": pixel_sha256(image),
        "source_sha256": f"{k:064x}",
        "phash": f"{np.random.default_rng(k).integers(0, 2**63):064x}",
        "duplicate_group": None,
        "quality": [],
        "license": "CC-BY-4.0",
        "redistributable": True,
        "card_sha256": "0" * 64,
        "pipeline_version": PIPELINE_VERSION,
    }
    return {**row, **sample}
