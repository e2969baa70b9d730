"""Does pretraining learn anything? kNN on organ labels of real ultrasound, against random initialisation.

    python benchmarks/learning.py --realdata ../shared/realdata --work /tmp/learning --seeds 0 1 2

The pictures are real (stills and frames of clips, from about fifty sources), cropped to hand-drawn cones. A query's
neighbours come from other sources only, so that frames of one clip never vouch for each other; each source counts once.
The interval is a bootstrap over sources of the mean over seeds. Runs that are there already are not made again.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from openus_data import schema
from openus_model.backbones import build_backbone
from openus_model.corpus import Corpus
from openus_model.pixels import normalise, resize
from openus_model.pretrain import pretrain
from openus_model.saved import read_backbone

ORGANS = (
    ("ovary", "ovary"),
    ("muscle", "muscle"),
    ("lung", "lung"),
    ("eye|ocular", "eye"),
    ("heart", "heart"),
    ("phantom|wire|calibration", "phantom"),
    ("lymph|soft tissue|carotid", "neck"),
)
FRAMES_PER_CLIP = 8
SIDE_PX = 256
FEATURE_PX = 128
NEIGHBOURS = 5
SETTINGS: dict[str, tuple[str, ...]] = {
    "self-adaptive, difficulty table": (),
    "self-adaptive, difficulty same step": ("masking.difficulty=same_step",),
    "random masks": ("masking.guide=random",),
    "attention alone": ("masking.guide=attention",),
    "as released": (
        "masking.rule=released", "masking.difficulty=previous_batch", "losses.local_cls=masked",
        "head.teacher=released",
    ),
    "inside the cone": ("masking.inside_share=0.5", "views.inside_share=0.5"),
    "no koleo": ("losses.koleo=0",),
    "running centre": ("losses.centring=mean",),
    "gain, TGC, lateral blur": (
        "views.gain_db=6", "views.tgc_db=3", "views.attenuation_db=6", "views.lateral_blur_px=1.5",
    ),
}  # fmt: skip


def organ_of(anatomy: str) -> str | None:
    """The class of a source, or None where it stands alone."""
    return next((organ for pattern, organ in ORGANS if re.search(pattern, anatomy)), None)


def pictures(realdata: Path) -> Iterator[tuple[str, str, NDArray[np.uint8], NDArray[np.float32]]]:
    """(source, organ, cropped grey image, cone in its pixels)."""
    anatomy = {
        row["file"]: row["anatomy"] for row in csv.DictReader((realdata / "provenance.tsv").open(), delimiter="\t")
    }
    for note in json.loads((realdata / "annotations.json").read_text())["images"]:
        organ = organ_of(anatomy.get(note["file"], ""))
        if organ is None or not note["cones"]:
            continue
        for frame in _frames(realdata, note):
            yield (note["id"], organ, *_crop(frame, np.asarray(note["cones"][0]["polygon"], np.float32)))


def _frames(realdata: Path, note: dict[str, str]) -> Iterator[NDArray[np.uint8]]:
    path = realdata / note["file"]
    if path.suffix in (".mp4", ".mov", ".avi"):
        with av.open(str(path)) as clip:
            stream = clip.streams.video[0]
            every = max(1, (stream.frames or 100) // FRAMES_PER_CLIP)
            for index, frame in enumerate(clip.decode(stream)):
                if index % every == 0:
                    yield frame.to_ndarray(format="gray")
        return
    still = realdata / note.get("frame_png", note["file"])
    image = cv2.imread(str(still), cv2.IMREAD_GRAYSCALE)
    if image is not None:
        yield np.asarray(image, np.uint8)


def _crop(image: NDArray[np.uint8], polygon: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut to the cone's box, black outside the cone, the longer side at most SIDE_PX."""
    outside = np.zeros(image.shape, np.uint8)
    cv2.fillPoly(outside, [np.round(polygon).astype(np.int32)], 1)
    x0, y0 = np.maximum(np.floor(polygon.min(0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(polygon.max(0)), image.shape[::-1]).astype(int)
    crop = (image * outside)[y0:y1, x0:x1]
    scale = min(1.0, SIDE_PX / max(crop.shape))
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (polygon - [x0, y0]).astype(np.float32) * np.float32(scale)


def write_corpus(realdata: Path, out: Path) -> None:
    """The pictures as one shard and a manifest."""
    shard = schema.shard_name("pretrain", 0)
    (out / shard).parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[object]] = {column.name: [] for column in schema.MANIFEST_COLUMNS}
    with tarfile.open(out / shard, "w") as tar:
        for index, (source, organ, image, polygon) in enumerate(pictures(realdata)):
            data = cv2.imencode(".png", image)[1].tobytes()
            info = tarfile.TarInfo(f"real-{index:05d}.png")
            info.size = len(data)
            offset = tar.offset + 512
            tar.addfile(info, io.BytesIO(data))
            known = {
                "sample_id": f"real-{index:05d}", "dataset": "real", "subject_id": source, "frame_index": 0,
                "split": "pretrain", "role": "both", "shard": shard, "offset": offset, "size_bytes": len(data),
                "width_px": image.shape[1], "height_px": image.shape[0], "channels": 1, "organ": organ,
                "labels": "{}", "cone_geometry": "sector", "cone_polygon": polygon.tolist(), "cone_box": [0.0] * 4,
                "cone_confidence": 1.0, "cone_method": "hand", "text_boxes_removed": [], "deid_actions": [],
                "pixel_sha256": schema.pixel_sha256(image), "source_sha256": "", "phash": "", "quality": [],
                "redistributable": False, "card_sha256": "", "pipeline_version": "1",
            }  # fmt: skip
            for name, values in rows.items():
                values.append(known.get(name))
    sidecar = {"samples": len(rows["sample_id"]), "bytes": (out / shard).stat().st_size}
    (out / shard).with_suffix(".json").write_text(json.dumps(sidecar))
    pq.write_table(pa.table(rows, schema=schema.manifest_schema()), out / schema.MANIFEST_NAME)


@torch.no_grad()
def features(backbone: torch.nn.Module, corpus: Corpus) -> torch.Tensor:
    """Unit-length pooled features of every picture, whole and resized to FEATURE_PX."""
    pixels = torch.stack([resize(corpus.image(k), FEATURE_PX) for k in range(len(corpus))])
    pooled = [backbone(normalise(part)).pooled_BD for part in pixels.split(32)]
    return torch.nn.functional.normalize(torch.cat(pooled), dim=1)


def right_by_source(found: torch.Tensor, corpus: Corpus) -> dict[str, float]:
    """Share of each source's pictures whose organ the neighbours from other sources name rightly."""
    sources, organs = np.asarray(corpus.column("subject_id")), np.asarray(corpus.column("organ"))
    similarity = (found @ found.T).numpy()
    similarity[sources[:, None] == sources[None]] = -np.inf
    right: dict[str, list[bool]] = {}
    for k, row in enumerate(similarity):
        nearest = np.argsort(-row)[:NEIGHBOURS]
        votes = {organ: float(np.exp(row[nearest][organs[nearest] == organ] / 0.07).sum()) for organ in set(organs)}
        right.setdefault(sources[k], []).append(max(votes, key=lambda organ: votes[organ]) == organs[k])
    return {source: float(np.mean(marks)) for source, marks in right.items()}


def interval(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean over seeds and sources, and its 95 % bootstrap interval over sources; scores (seeds, sources)."""
    by_source = scores.mean(0)
    draws = np.random.default_rng(0).integers(0, len(by_source), (4000, len(by_source)))
    low, high = np.quantile(by_source[draws].mean(1), [0.025, 0.975])
    return float(by_source.mean()), float(low), float(high)


def run(setting: str, seed: int, arguments: argparse.Namespace, corpus: Corpus) -> dict[str, float]:
    """Pretrain once (unless it was done) and score the teacher."""
    folder = arguments.work / f"{re.sub('[^a-z0-9]+', '-', setting)}-{seed}"
    overrides = (f"engine.seed={seed}", *arguments.set, *SETTINGS[setting])
    pretrain(arguments.recipe, corpus.root, folder, overrides, resume=True, quiet=True)
    return right_by_source(features(read_backbone(folder).eval(), corpus), corpus)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realdata", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--work", type=Path, default=Path("learning"))
    parser.add_argument("--recipe", default=str(Path(__file__).with_suffix(".yaml")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of the recipe")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    root = arguments.work / "corpus"
    if not (root / schema.MANIFEST_NAME).is_file():
        write_corpus(arguments.realdata, root)
    corpus = Corpus.open(root)
    sources = sorted(set(corpus.column("subject_id")))
    print(f"{len(corpus)} pictures, {len(sources)} sources, organs {sorted(set(corpus.column('organ')))}")
    baseline = []
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        baseline.append(right_by_source(features(build_backbone("vmamba_nano").eval(), corpus), corpus))
    reference = np.asarray([[marks[s] for s in sources] for marks in baseline])
    mean, low, high = interval(reference)
    print("| setting | kNN accuracy | over random |\n|---|---|---|")
    print(f"| random weights | {mean:.3f} [{low:.3f}, {high:.3f}] | |", flush=True)
    for setting in arguments.settings:
        marks = [run(setting, seed, arguments, corpus) for seed in arguments.seeds]
        scores = np.asarray([[m[s] for s in sources] for m in marks])
        mean, low, high = interval(scores)
        gain, gain_low, gain_high = interval(scores - reference)
        print(
            f"| {setting} | {mean:.3f} [{low:.3f}, {high:.3f}] | {gain:+.3f} [{gain_low:+.3f}, {gain_high:+.3f}] |",
            flush=True,
        )


if __name__ == "__main__":
    main()
