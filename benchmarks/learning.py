"""Does pretraining learn anything? kNN on organ labels of real ultrasound, against random initialisation.

    python benchmarks/learning.py --realdata ../shared/realdata --work /tmp/learning --seeds 0 1 2

The pictures are real (stills and frames of clips), cropped to hand-drawn cones. Files that show one scan, or one
subject on one device, are one group: a query's neighbours come from other groups only, and each group counts once.
Groups are cut into two halves, organ by organ. Settings are chosen on the first half, results are read from the second;
pretraining sees all pictures, without labels. The interval is a bootstrap over groups of the mean over seeds; the gain
of each seed stands beside it. Runs that are there already are not made again.
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
SAME_SCAN = (
    "clarius-ocular", "interson-", "sonoque_", "sonosite-anon-eye1", "BKMedical_RandomStepper",
    "examples_palette|OBXXXX1A", "examples_rgb|examples_jpeg2k|US1_J2KI", "/S1/", "/S10/", "/S5/",
    "/jumping/", "/range-of-motion/", "/SampleA/", "/test/test[.]",
)  # fmt: skip
"""Files that show one scan, or one subject on one device: a group. Every other file is a group of its own."""
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


def group_of(file: str) -> str:
    """Name of the group that a file belongs to."""
    return next((pattern for pattern in SAME_SCAN if re.search(pattern, file)), file)


def halves(sources: Sequence[str], organs: Sequence[str]) -> dict[str, str]:
    """`choose` or `report` for each group: every other one of an organ's, in the order of their names."""
    half = {}
    for organ in sorted(set(organs)):
        for place, name in enumerate(sorted({s for s, o in zip(sources, organs, strict=True) if o == organ})):
            half[name] = ("choose", "report")[place % 2]
    return half


def pictures(realdata: Path) -> Iterator[tuple[str, str, NDArray[np.uint8], NDArray[np.float32]]]:
    """(group, organ, cropped grey image, cone in its pixels)."""
    anatomy = {
        row["file"]: row["anatomy"] for row in csv.DictReader((realdata / "provenance.tsv").open(), delimiter="\t")
    }
    for note in json.loads((realdata / "annotations.json").read_text())["images"]:
        organ = organ_of(anatomy.get(note["file"], ""))
        if organ is None or not note["cones"]:
            continue
        for frame in _frames(realdata, note):
            yield (group_of(note["file"]), organ, *_crop(frame, np.asarray(note["cones"][0]["polygon"], np.float32)))


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
    """Unit-length pooled features of every picture, whole and resized to FEATURE_PX; their mean is taken off first."""
    pixels = torch.stack([resize(corpus.image(k), FEATURE_PX) for k in range(len(corpus))])
    pooled_BD = torch.cat([backbone(normalise(part)).pooled_BD for part in torch.split(pixels, 32)])
    return torch.nn.functional.normalize(pooled_BD - pooled_BD.mean(0), dim=1)


def raw_pixels(corpus: Corpus) -> torch.Tensor:
    """The rival that learns nothing: 32 x 32 pixels, their mean taken off."""
    pixels = torch.stack([resize(corpus.image(k), 32) for k in range(len(corpus))]).float().flatten(1)
    return torch.nn.functional.normalize(pixels - pixels.mean(1, keepdim=True), dim=1)


def right_by_group(found: torch.Tensor, corpus: Corpus) -> dict[str, float]:
    """Share of each group's pictures whose organ the neighbours from other groups name rightly."""
    groups, organs = np.asarray(corpus.column("subject_id")), np.asarray(corpus.column("organ"))
    similarity = (found @ found.T).numpy()
    similarity[groups[:, None] == groups[None]] = -np.inf
    right: dict[str, list[bool]] = {}
    for k, row in enumerate(similarity):
        nearest = np.argsort(-row)[:NEIGHBOURS]
        votes = {
            organ: float(np.exp(row[nearest][organs[nearest] == organ] / 0.07).sum()) for organ in sorted(set(organs))
        }
        right.setdefault(groups[k], []).append(max(votes, key=lambda organ: votes[organ]) == organs[k])
    return {group: float(np.mean(marks)) for group, marks in right.items()}


def interval(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean over seeds and groups, and its 95 % bootstrap interval over groups; scores (seeds, groups)."""
    by_source = scores.mean(0)
    draws = np.random.default_rng(0).integers(0, len(by_source), (4000, len(by_source)))
    low, high = np.quantile(by_source[draws].mean(1), [0.025, 0.975])
    return float(by_source.mean()), float(low), float(high)


def run(setting: str, seed: int, arguments: argparse.Namespace, corpus: Corpus) -> dict[str, float]:
    """Pretrain once (unless it was done) and score the teacher."""
    folder = arguments.work / f"{re.sub('[^a-z0-9]+', '-', setting)}-{seed}"
    overrides = (f"engine.seed={seed}", *arguments.set, *SETTINGS[setting])
    pretrain(arguments.recipe, corpus.root, folder, overrides, resume=True, quiet=True)
    return right_by_group(features(read_backbone(folder).eval(), corpus), corpus)


def tell(
    name: str,
    scores: NDArray[np.float64],
    baseline: NDArray[np.float64] | None = None,
    rival: NDArray[np.float64] | None = None,
) -> None:
    """Print a row; scores (seeds, groups), beside those of random weights and of the table's first setting."""
    mean, low, high = interval(scores)
    cells = [name, f"{mean:.3f} [{low:.3f}, {high:.3f}]", "", "", ""]
    if baseline is not None:
        cells[2] = _gain(scores - baseline)
        cells[3] = ", ".join(f"{by_seed:+.3f}" for by_seed in (scores - baseline).mean(1))
    if rival is not None:
        cells[4] = _gain(scores - rival)
    print(f"| {' | '.join(cells)} |", flush=True)


def _gain(difference: NDArray[np.float64]) -> str:
    gain, low, high = interval(difference)
    return f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realdata", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--work", type=Path, default=Path("learning"))
    parser.add_argument("--recipe", default=str(Path(__file__).with_suffix(".yaml")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--half", choices=("choose", "report", "both"), default="report")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of the recipe")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    root = arguments.work / "corpus"
    if not (root / schema.MANIFEST_NAME).is_file():
        write_corpus(arguments.realdata, root)
    corpus = Corpus.open(root)
    half = halves(corpus.column("subject_id"), corpus.column("organ"))
    groups = sorted(name for name, part in half.items() if arguments.half in (part, "both"))
    print(f"{len(corpus)} pictures of {len(half)} groups; scored on {len(groups)} of them ({arguments.half})")

    def table(marks: Sequence[dict[str, float]]) -> NDArray[np.float64]:
        return np.asarray([[by_group[name] for name in groups] for by_group in marks])

    print("| setting | kNN accuracy | over random weights | per seed | over the first setting |\n|---|---|---|---|---|")
    tell("raw pixels, 32 x 32", table([right_by_group(raw_pixels(corpus), corpus)]))
    baseline = []
    for seed in arguments.seeds:
        torch.manual_seed(seed)
        baseline.append(right_by_group(features(build_backbone("vmamba_nano").eval(), corpus), corpus))
    tell("random weights", table(baseline))
    first = None
    for setting in arguments.settings:
        scores = table([run(setting, seed, arguments, corpus) for seed in arguments.seeds])
        tell(setting, scores, table(baseline), first)
        first = scores if first is None else first


if __name__ == "__main__":
    main()
