"""How well and how fast the scan area is found, beside rivals on the same pictures in the same run.

    OMP_NUM_THREADS=1 python benchmarks/cone.py [--peers PYTHON] [--phantoms N] [--sheet FOLDER]

Sets: `real` (the annotated frames of ../shared/realdata, ambiguous and already cropped ones left out), `files` (the
clips and DICOM objects among them, whole, through the decoder, with their regions), `phantom` (exact truth, up to two
difficulties at once), `hard` (phantoms by difficulty), `clip` (phantom clips of 60 frames), and `robustness` (the real
frames, changed by cone_stress.py). Rivals: a plain threshold with
the hull of its largest part, and with --peers the tools in benchmarks/cone_peers.py. Times are CPU time of one core;
`floor` is one resize and one median, which any detector needs, so a ratio compares across machines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from cone_calibration import EDGES, KNOTS, fitted, held_out, interval, merit_of
from cone_stress import CHANGES, changed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from openus_data.cone import detect, raster
from openus_data.cone.overlay import draw
from openus_data.decode import decode
from openus_data.detect import sample_frames
from openus_data.phantom import CONDITIONS, phantom
from openus_data.records import Cone, Geometry, Region

NAMES = {"fan": "curvilinear", "phased": "sector", "precropped": "full"}
REALDATA = Path(os.environ.get("OPENUS_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "realdata"
FANS = ("sector", "curvilinear")
CONSOLE = Console(width=150)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Frames uint8 (T, H, W, 3) or (T, H, W) with their truth."""

    name: str
    group: str
    frames: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    geometry: str
    regions: tuple[Region, ...] = ()
    weight: float = 1.0
    kind: str = "real"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case of one tool."""

    case: Case
    mask: NDArray[np.bool_]
    seconds: float
    cone: Cone | None = None

    @property
    def overlap(self) -> float:
        """Intersection over union."""
        return float((self.mask & self.case.inside).sum() / max(1, (self.mask | self.case.inside).sum()))

    @property
    def lost(self) -> float:
        """Part of the true area that the detection leaves out."""
        return float((self.case.inside & ~self.mask).sum() / max(1, self.case.inside.sum()))


def real_cases(*, whole: bool, ambiguous: bool = False) -> Iterator[Case]:
    """Annotated frames, or the clips and DICOM objects they come from."""
    for entry in json.loads((REALDATA / "annotations.json").read_text())["images"]:
        still = Path(entry["file"]).suffix in (".png", ".jpg", ".jpeg")
        if (entry.get("ambiguous") and not ambiguous) or entry["geometry"] == "precropped" or (whole and still):
            continue
        regions: tuple[Region, ...] = ()
        if whole:
            media = decode(REALDATA / entry["file"])
            frames = np.stack([_rgb(frame) for frame in sample_frames(media)])
            regions = media.regions
        else:
            picture = cv2.imread(str(REALDATA / (entry.get("frame_png") or entry["file"])))
            frames = np.asarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_BGR2RGB), np.uint8)[None]
        truth = np.zeros(frames.shape[1:3], np.bool_)
        for drawn in entry["cones"]:
            truth |= raster(_by_hand(drawn["polygon"]), frames.shape[1], frames.shape[2])
        geometry = "multi" if len(entry["cones"]) > 1 else NAMES.get(entry["geometry"], entry["geometry"])
        group = str(entry["file"]).split("/")[1]
        yield Case(name=entry["id"], group=group, frames=frames, inside=truth, geometry=geometry, regions=regions)


def _by_hand(vertices: list[list[float]]) -> Cone:
    polygon = tuple((x, y) for x, y in vertices)
    return Cone(geometry="linear", polygon=polygon, box=(0, 0, 1, 1), confidence=1.0, method="hand")


def _rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame


def phantom_cases(count: int, *, frames: int = 1, most: int = 2, first: int = 250_000) -> Iterator[Case]:
    """Phantoms of every geometry and size under up to `most` difficulties."""
    rng = np.random.default_rng(7)
    geometries: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid", "multi")
    sizes = ((800, 600), (640, 480), (1024, 768), (320, 240), (1280, 960)) if frames == 1 else ((800, 600),)
    for seed in range(count):
        geometry = geometries[seed % len(geometries)]
        width, height = sizes[int(rng.integers(len(sizes)))]
        wanted = rng.permutation(CONDITIONS)[: int(rng.integers(0, most + 1))]
        chosen = [str(c) for c in wanted if geometry in FANS or c not in ("cropped", "inverted")]
        yield _phantom_case(first + seed, geometry, width, height, frames, chosen)


def hard_cases(each: int) -> Iterator[Case]:
    """The same number of phantoms for each difficulty."""
    geometries: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid")
    for number, condition in enumerate(CONDITIONS):
        for turn in range(each):
            geometry = geometries[turn % (2 if condition in ("cropped", "inverted") else 4)]
            yield _phantom_case(280_000 + 100 * number + turn, geometry, 800, 600, 1, [condition])


def _phantom_case(seed: int, geometry: Geometry, width: int, height: int, frames: int, chosen: list[str]) -> Case:
    made = phantom(seed, geometry=geometry, width=width, height=height, frames=frames, conditions=chosen)
    stack = made.frames if made.frames.ndim == 4 else np.repeat(made.frames[..., None], 3, axis=3)
    group = "+".join(chosen) or "plain"
    name, source = f"{geometry}:{group}", f"phantoms {seed % 8}"
    return Case(
        name=name, group=group, frames=stack, inside=made.inside, geometry=geometry, kind="phantom", source=source
    )


def ours(case: Case) -> Result:
    """This project."""
    frames = case.frames if len(case.frames) > 1 else case.frames[0]
    started = time.process_time()
    cone = detect(frames, regions=case.regions)
    seconds = time.process_time() - started
    return Result(case=case, mask=raster(cone, *case.inside.shape), seconds=seconds, cone=cone)


def threshold(case: Case) -> Result:
    """A plain threshold, an opening, and the convex hull of the largest part."""
    started = time.process_time()
    grey = cv2.cvtColor(case.frames.max(axis=0), cv2.COLOR_RGB2GRAY)
    solid = cv2.morphologyEx((grey > 15).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    mask = np.ones(grey.shape, np.uint8)
    if count > 1:
        mask[:] = 0
        largest = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.asarray(cv2.findNonZero(largest))), 1)
    return Result(case=case, mask=mask.astype(np.bool_), seconds=time.process_time() - started)


def peers(cases: list[Case], python: str) -> dict[str, list[Result]]:
    """The rivals of cone_peers.py, in their own interpreter."""
    results: dict[str, list[Result]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            np.save(Path(folder) / f"{number:04d}.npy", case.frames)
        worker = Path(__file__).with_name("cone_peers.py")
        subprocess.run([python, str(worker), folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for number, case in enumerate(cases):
            for path in sorted(Path(folder).glob(f"{number:04d}.*.npz")):
                with np.load(path) as saved:
                    result = Result(case=case, mask=saved["mask"], seconds=float(saved["seconds"]))
                results[path.suffixes[0][1:]].append(result)
    return results


def floor_seconds(case: Case) -> float:
    """CPU time of what any detector needs: one grey picture, one resize, one median."""
    best = np.inf
    for _ in range(5):
        started = time.process_time()
        grey = cv2.cvtColor(case.frames[0], cv2.COLOR_RGB2GRAY)
        cv2.medianBlur(cv2.resize(grey, (400, 300), interpolation=cv2.INTER_AREA), 5)
        best = min(best, time.process_time() - started)
    return float(best)


def compare(title: str, cases: list[Case], python: str | None) -> list[Result]:
    """A table of every tool on one set."""
    for case in cases[:3]:
        ours(case)
    mine = [ours(case) for case in cases]
    results = {"openus": mine, "threshold+hull": [threshold(case) for case in cases]}
    if python:
        results |= peers(cases, python)
    table = Table(title=f"{title}: {len(cases)} cases", title_justify="left")
    for column in ("tool", "mean IoU", "10th percentile", "worst", "echo lost", "type right", "CPU ms (median)"):
        table.add_column(column, justify="left" if column == "tool" else "right")
    for tool, found in results.items():
        overlaps = np.array([r.overlap for r in found])
        right = [r.cone.geometry == r.case.geometry for r in found if r.cone is not None]
        table.add_row(
            tool,
            f"{overlaps.mean():.4f}",
            f"{np.percentile(overlaps, 10):.3f}",
            f"{overlaps.min():.3f}",
            f"{100 * np.mean([r.lost for r in found]):.2f}%",
            f"{100 * np.mean(right):.0f}%" if right else "-",
            f"{1e3 * float(np.median([r.seconds for r in found])):.1f}",
        )
    CONSOLE.print(table)
    return mine


def by_group(title: str, results: list[Result]) -> None:
    """Mean and worst overlap per source or difficulty."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.case.group].append(result)
    table = Table(title=title, title_justify="left")
    for column in ("group", "cases", "mean IoU", "worst", "echo lost"):
        table.add_column(column, justify="left" if column == "group" else "right")
    for group, found in sorted(groups.items()):
        overlaps = [r.overlap for r in found]
        lost = 100 * float(np.mean([r.lost for r in found]))
        table.add_row(group, str(len(found)), f"{np.mean(overlaps):.4f}", f"{min(overlaps):.3f}", f"{lost:.2f}%")
    CONSOLE.print(table)
    means = {group: float(np.mean([r.overlap for r in found])) for group, found in groups.items()}
    CONSOLE.print(
        f"mean over groups {np.mean(list(means.values())):.4f}; worst group {min(means, key=lambda g: means[g])}"
    )


def reliability(results: list[Result]) -> None:
    """Confidence against how often the overlap reaches 0.9, stated by curves that never saw the case's source."""
    seen = [result for result in results if result.cone is not None and result.cone.geometry != "none"]
    merit = merit_of(np.array([r.cone.confidence for r in seen if r.cone]))
    good = np.array([float(r.overlap >= 0.9) for r in seen])
    weight = np.array([r.case.weight for r in seen])
    curve = ", ".join(f"{at:g}: {value:.3f}" for at, value in zip(KNOTS, fitted(merit, good, weight), strict=True))
    CONSOLE.print(f"fitted curve, merit: confidence {curve}")
    stated = held_out(merit, good, weight, [r.case.source or r.case.group for r in seen])
    table = Table(title="Reliability, sources held out: confidence against IoU >= 0.9", title_justify="left")
    for column in ("confidence", "cases", "stated", "observed", "95% interval", "real frames", "of them right"):
        table.add_column(column, justify="right")
    real = np.array([r.case.kind == "real" for r in seen])
    for low, high in itertools.pairwise(EDGES):
        here = (stated >= low) & (stated < high)
        if here.any():
            ends = interval(float(good[here].mean()), int(here.sum()))
            means = (f"{stated[here].mean():.3f}", f"{good[here].mean():.3f}", f"{ends[0]:.2f} to {ends[1]:.2f}")
            counts = (str((here & real).sum()), str(int(good[here & real].sum())))
            table.add_row(f"{low:.2f}-{min(1.0, high):.2f}", str(here.sum()), *means, *counts)
    CONSOLE.print(table)


def stress(cases: list[Case]) -> list[Result]:
    """The robustness table: real frames under each of the changes of cone_stress.py."""
    table = Table(title=f"robustness: {len(cases)} real frames, changed", title_justify="left")
    for column in ("change", "mean IoU", "10th percentile", "worst", "echo lost", "below 0.85"):
        table.add_column(column, justify="left" if column == "change" else "right")
    every: list[Result] = []
    for name in CHANGES:
        found = []
        for case in cases:
            image, inside = changed(name, case.frames[0], case.inside, case.name)
            found.append(ours(replace(case, frames=image[None], inside=inside, weight=0.25, kind=name)))
        overlaps = np.array([r.overlap for r in found])
        row = (name, f"{overlaps.mean():.3f}", f"{np.percentile(overlaps, 10):.3f}", f"{overlaps.min():.3f}")
        table.add_row(*row, f"{100 * np.mean([r.lost for r in found]):.2f}%", str(int((overlaps < 0.85).sum())))
        every += found
    CONSOLE.print(table)
    return every


def fitted_in(case: Case, width: int = 800, height: int = 600) -> Case:
    """A still in another size that keeps its shape."""
    rows, cols = case.inside.shape
    scale = min(width / cols, height / rows)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frame = np.asarray(cv2.resize(case.frames[0], None, fx=scale, fy=scale, interpolation=way), np.uint8)
    inside = cv2.resize(case.inside.astype(np.uint8), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return replace(case, frames=frame[None], inside=inside.astype(np.bool_))


def timing(stills: dict[str, list[Case]], clip: Case) -> None:
    """CPU time of stills (mask included) and a clip, the least of several calls each, and the floor."""
    table = Table(title="CPU ms, the least of several calls", title_justify="left")
    for column in ("pictures", "number", "median", "mean", "90th percentile", "median over floor"):
        table.add_column(column, justify="left" if column == "pictures" else "right")
    floor = 1e3 * float(np.median([floor_seconds(case) for case in next(iter(stills.values()))]))
    for name, cases in stills.items():
        ms = [1e3 * min(_whole_seconds(case) for _ in range(7)) for case in cases]
        figures = (np.median(ms), np.mean(ms), np.percentile(ms, 90), np.median(ms) / floor)
        table.add_row(name, str(len(cases)), *(f"{float(figure):.2f}" for figure in figures))
    CONSOLE.print(table)
    best = 1e3 * min(ours(clip).seconds for _ in range(7))
    CONSOLE.print(f"clip of {len(clip.frames)} frames 800x600: {best:.1f} ms CPU")
    CONSOLE.print(f"floor (a grey picture, a resize and a median) of 800x600: {floor:.2f} ms")


def _whole_seconds(case: Case) -> float:
    """CPU time of the scan area and its mask."""
    started = time.process_time()
    raster(detect(case.frames[0]), *case.inside.shape)
    return time.process_time() - started


def contact_sheet(results: list[Result], folder: Path) -> None:
    """Detections (green) with the truth's border (white), sixteen to a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = []
    for result in results:
        picture = draw(result.case.frames[0], result.cone) if result.cone else result.case.frames[0].copy()
        border = cv2.morphologyEx(result.case.inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        picture[border > 0] = 255
        scale = min(380 / picture.shape[1], 300 / picture.shape[0])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.full((330, 390, 3), 40, np.uint8)
        tile[24 : 24 + small.shape[0], 4 : 4 + small.shape[1]] = small
        label = f"{result.case.name} {result.overlap:.3f} lost {100 * result.lost:.1f}%"
        cv2.putText(tile, label, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    for sheet, start in enumerate(range(0, len(tiles), 16)):
        part = tiles[start : start + 16]
        part += [np.zeros_like(part[0])] * (-len(part) % 4)
        rows = [np.hstack(part[i : i + 4]) for i in range(0, len(part), 4)]
        cv2.imwrite(str(folder / f"sheet-{sheet}.png"), np.vstack(rows)[..., ::-1])


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="a Python that has sonocrop and ultraml")
    parser.add_argument("--phantoms", type=int, default=120)
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets of the real detections")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    known: list[Result] = []
    if REALDATA.is_dir():
        real = compare("real", list(real_cases(whole=False)), arguments.peers)
        by_group("real, by source", real)
        compare("files (clips and DICOM, whole)", list(real_cases(whole=True)), arguments.peers)
        known = [ours(case) for case in real_cases(whole=False, ambiguous=True)]
        known += stress([result.case for result in real])
        if arguments.sheet:
            contact_sheet([result for result in known if result.case.kind == "real"], arguments.sheet)
    made = list(phantom_cases(arguments.phantoms))
    known += compare("phantom, up to two difficulties", made, arguments.peers)
    known += [ours(case) for case in phantom_cases(arguments.phantoms, most=4, first=270_000)]
    hard = compare("hard phantom", list(hard_cases(max(2, arguments.phantoms // 20))), arguments.peers)
    known += hard
    by_group("hard phantom, by difficulty", hard)
    reliability(known)
    clips = list(phantom_cases(5, frames=60))
    compare("phantom clips of 60 frames", clips, arguments.peers)
    geometries: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid", "multi")
    stills = {
        "plain phantoms of 800x600": [_phantom_case(1 + i, geometries[i % 5], 800, 600, 1, []) for i in range(15)],
        "phantoms with one difficulty each, 800x600": [result.case for result in hard],
    }
    if REALDATA.is_dir():
        stills["real frames fitted into 800x600"] = [fitted_in(result.case) for result in real]
    timing(stills, clips[0])


if __name__ == "__main__":
    main()
