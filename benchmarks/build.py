"""What a build costs against its floor: decoding and encoding the same pixels with the same codec, by OpenCV alone.

    python benchmarks/build.py                  # ratios per codec
    python benchmarks/build.py codecs           # bytes and time of each codec
    python benchmarks/build.py writers          # tar writers against each other
    python benchmarks/build.py peers --peers PYTHON         # webdataset, litdata, img2dataset; see build_peers.py
    python benchmarks/build.py workers          # wall clock of two workers against one
    python benchmarks/build.py scale 1000 10000 100000      # the real command on cheap pictures: cost, memory, disk
    python benchmarks/build.py scale 308000 --keep DIR      # the paper's number; DIR/scale.md gets the table

Times are CPU seconds, which other work on the machine disturbs least; the pictures are phantoms, 800 x 600, or plain
speckle where only the coding counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # workers start from bytecode, as those of an installed package do

import cv2
import numpy as np

from openus_data import cone as cones
from openus_data.build import BuildRequest, build
from openus_data.build_plan import plan_build
from openus_data.executor.worker import hold_memory
from openus_data.first_stage.encode import decode_stored, encode
from openus_data.first_stage.journal import Journal
from openus_data.first_stage.records import SourceTask
from openus_data.first_stage.staged import work
from openus_data.phantom import phantom
from openus_data.records import Cone, Geometry, Item, Pixels
from openus_data.shards import ShardWriter

GEOMETRIES: tuple[Geometry, ...] = ("sector", "curvilinear", "linear", "trapezoid")
CODECS = {"png": ".png", "jpeg": ".jpg"}


def picture(seed: int, height: int = 600, width: int = 800, *, colour: bool = False) -> Pixels:
    """A fan of speckle with a patient's line and a scale around it."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((6, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = cv2.GaussianBlur(rng.standard_normal((height, width, 2)).astype(np.float32), (0, 0), 1.4)
    speckle = np.hypot(noise[..., 0], noise[..., 1])
    fan = np.zeros((height, width), np.uint8)
    cv2.ellipse(fan, (width // 2, height // 12), (height * 5 // 6, height * 5 // 6), 90, -38, 38, 255, -1)
    grey = np.clip(70 * speckle / speckle.mean() * (0.4 + coarse), 2, 255).astype(np.uint8)
    image = cv2.bitwise_and(grey, grey, mask=fan)
    if colour:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        image[height // 2 : height * 2 // 3, width * 4 // 9 : width * 5 // 9, 0] |= 96
    for line, text in enumerate(("DOE^JANE 1970-01-01", f"ID {seed:06d}", "GENERAL HOSPITAL")):
        cv2.putText(image, text, (8, 20 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (220, 220, 220), 1, cv2.LINE_AA)
    for depth in range(10):
        cv2.line(image, (width - 14, 60 + 50 * depth), (width - 6, 60 + 50 * depth), (200, 200, 200), 1)
    return np.asarray(image, dtype=np.uint8)


def write_pictures(folder: Path, count: int, suffix: str) -> list[Path]:
    """Made-up ultrasound of all shapes under a scanner's interface, 800 x 600, one subject for every five."""
    paths = []
    for seed in range(count):
        path = folder / f"s{seed // 5:06d}" / f"{seed:07d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = phantom(seed, geometry=GEOMETRIES[seed % len(GEOMETRIES)]).image
        drawable = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(path), drawable, [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else [])
        paths.append(path)
    return paths


def cpu_ms(action: Callable[[Path], object], paths: list[Path], rounds: int = 3) -> float:
    """CPU milliseconds a file, the least of a few rounds."""
    best = []
    for _ in range(rounds):
        start = time.process_time()
        for path in paths:
            action(path)
        best.append(1000 * (time.process_time() - start) / len(paths))
    return min(best)


def floor(path: Path, suffix: str) -> None:
    """Decode and encode with OpenCV alone."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else [])


def request(tmp: Path, images: Path, codec: str, **options: object) -> BuildRequest:
    recipe = tmp / f"{codec}.yaml"
    recipe.write_text(f"image: {{codec: {codec}}}\ntext: {{quarantine_doubtful: false}}\n")
    chosen: dict[str, object] = {"out": tmp / "out", "quiet": True} | options
    return BuildRequest(root=tmp / "root", images=images, name="bench", recipe=str(recipe), **chosen)  # type: ignore[arg-type]


def first_stage_ms(tmp: Path, images: Path, codec: str, paths: list[Path], **options: object) -> float:
    """The whole first stage, one file after the other in this process, with its journal and a tar."""
    stage = plan_build(request(tmp, images, codec, **options)).stage
    with Journal(tmp / f"journal-{codec}") as journal, ShardWriter(tmp, "train", 0) as shard:

        def one(path: Path) -> None:
            staged = work(SourceTask(item=Item(dataset="bench", path=path, relative=path.name)), stage)
            journal.append(staged.parts)
            for number, image in enumerate(staged.parts[1:]):
                shard.add(f"{staged.item}-{number}", [(codec, image)])

        return cpu_ms(one, paths)


def ratios(count: int) -> None:
    """The first stage against the floor: whole, and the rest of it without the search for cone and text."""
    cv2.setNumThreads(1)
    print(f"{'800x600':<14}{'floor ms':>10}{'build ms':>10}{'ratio':>8}{'target':>8}{'rest ms':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        for codec, target in (("png", 2.6), ("jpeg", 5.0)):
            suffix = CODECS[codec]
            images = tmp / f"images-{codec}"
            paths = write_pictures(images, count, suffix)
            low = cpu_ms(partial(floor, suffix=suffix), paths)
            hold_memory()  # as a worker does
            whole = first_stage_ms(tmp, images, codec, paths)
            with patch.object(cones, "detect", whole_frame):
                rest = first_stage_ms(tmp, images, codec, paths, policy="keep")
            cells = f"{low:>10.2f}{whole:>10.2f}{whole / low:>8.2f}{target:>8.1f}{rest:>10.2f}{rest / low:>8.2f}"
            print(f"{codec + ' to ' + codec:<14}{cells}")


def codecs(count: int) -> None:
    """Bytes, encoding and decoding time of what a picture can be stored as, grey and colour Doppler."""
    cv2.setNumThreads(1)
    level_1, quality = [cv2.IMWRITE_PNG_COMPRESSION, 1], cv2.IMWRITE_JPEG_QUALITY
    stored: dict[str, Callable[[Pixels], bytes]] = {
        "png": lambda p: encode(p, codec="png")[1],
        "png level 1": lambda p: bytes(cv2.imencode(".png", p, level_1)[1]),
        "jpeg 95": lambda p: encode(p, codec="jpeg")[1],
        "jpeg 85": lambda p: bytes(cv2.imencode(".jpg", p, [quality, 85])[1]),
        "webp lossless": lambda p: encode(p, codec="webp")[1],
    }
    print(f"{'':<16}" + "".join(f"{kind:>30}" for kind in ("grey 617x501", "colour Doppler 617x501")))
    print(f"{'':<16}" + f"{'KB':>10}{'encode ms':>11}{'decode ms':>9}" * 2)
    for name, run in stored.items():
        line = f"{name:<16}"
        for is_colour in (False, True):
            pictures = [picture(s, colour=is_colour)[49:550, 91:708].copy() for s in range(count)]
            start = time.process_time()
            coded = [run(p) for p in pictures]
            middle = time.process_time()
            for data in coded:
                decode_stored(data)
            end = time.process_time()
            times = 1000 * (middle - start) / count, 1000 * (end - middle) / count
            line += f"{sum(map(len, coded)) / count / 1000:>10.0f}{times[0]:>11.2f}{times[1]:>9.2f}"
        print(line)


def writers(count: int) -> None:
    """CPU time of writing coded pictures into tars: tarfile, webdataset's writer, and ours, which also hashes."""
    import tarfile

    import webdataset

    def by_tarfile(paths: list[Path], folder: Path) -> None:
        with tarfile.open(folder / "a.tar", "w") as tar:
            for path in paths:
                info = tarfile.TarInfo(path.name)
                data = path.read_bytes()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    def by_webdataset(paths: list[Path], folder: Path) -> None:
        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=10**9, verbose=0) as sink:
            for path in paths:
                sink.write({"__key__": path.stem, "png": path.read_bytes(), "json": {"id": path.stem}})

    def by_us(paths: list[Path], folder: Path) -> None:
        with ShardWriter(folder, "train", 0) as shard:
            for path in paths:
                shard.add(path.stem, [("png", path.read_bytes()), ("json", f'{{"id": "{path.stem}"}}'.encode())])

    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        paths = write_pictures(tmp / "images", count, ".png")
        times = {}
        for title, run in {"stdlib tarfile": by_tarfile, "webdataset": by_webdataset, "openus": by_us}.items():
            best = []
            for _ in range(3):
                (tmp / title).mkdir(exist_ok=True)
                start = time.process_time()
                run(paths, tmp / title)
                best.append(time.process_time() - start)
            times[title] = min(best)
        for title, seconds in times.items():
            ratio = times["stdlib tarfile"] / seconds
            print(f"{title:<16}{count / seconds:>9.0f} pictures a CPU second, {ratio:.2f} of the floor")


_COPIES = 10
"""Rivals get every picture so many times: seconds of starting hide the milliseconds of a few."""


def peers(count: int, python: str) -> None:
    """CPU time of the rivals, which look at no picture, in their own interpreter, beside ours."""
    cv2.setNumThreads(1)
    script = Path(__file__).with_name("build_peers.py")
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        for codec, suffix in CODECS.items():
            images = tmp / f"images-{codec}"
            paths = write_pictures(images, count, suffix)
            low = cpu_ms(partial(floor, suffix=suffix), paths)
            print(f"{codec + ' to ' + codec:<34}{'CPU ms':>8}{'to floor':>10}{'start s':>9}")
            print(f"{'floor':<34}{low:>8.2f}{1:>10.2f}")
            many = tmp / f"many-{codec}"
            many.mkdir()
            for number, path in enumerate(paths * _COPIES):
                shutil.copy(path, many / f"{number:06d}{suffix}")
            found = json.loads(subprocess.run([python, script, many], check=True, capture_output=True).stdout)
            for tool, cost in found.items():
                title = f"{tool} ({cost['release']})"
                print(f"{title:<34}{cost['ms']:>8.2f}{cost['ms'] / low:>10.2f}{cost['start_s']:>9.1f}")
            hold_memory()
            own = first_stage_ms(tmp, images, codec, paths)
            print(f"{'openus, first stage':<34}{own:>8.2f}{own / low:>10.2f}", flush=True)


def workers(count: int, rounds: int = 3) -> None:
    """Wall clock of a whole build with one and with two workers, start-up included: in turn, the least of each."""
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        write_pictures(tmp / "images", count, ".png")
        walls: dict[int, list[float]] = {1: [], 2: []}
        owns, children = dict.fromkeys(walls, 0.0), dict.fromkeys(walls, 0.0)
        for number in (*walls,) * rounds:
            start, own, child = time.monotonic(), time.process_time(), _children_cpu()
            build(request(tmp, tmp / "images", "png", out=tmp / "out", workers=number))
            walls[number].append(time.monotonic() - start)
            owns[number], children[number] = time.process_time() - own, _children_cpu() - child
            shutil.rmtree(tmp / "out")
        one, two = min(walls[1]), min(walls[2])
        print(f"{count} pictures: 1 worker {one:.2f} s, 2 workers {two:.2f} s, {one / two:.2f}x (target 1.85x)")
        print(f"all rounds: {walls}, at load {os.getloadavg()[0]:.1f}")
        print(
            f"CPU ms a picture: workers {1000 * children[1] / count:.2f} with one, {1000 * children[2] / count:.2f}",
            end="",
        )
        print(f" with two; the main process {1000 * owns[2] / count:.2f}, what no worker shares")


def write_cheap_pictures(folder: Path, count: int, height: int, width: int) -> None:
    """Small unlike pictures: products of cut-outs of two fields of speckle. One subject for every five."""
    rng = np.random.default_rng(0)
    fields = [cv2.GaussianBlur(rng.standard_normal((2048, 2048)).astype(np.float32), (0, 0), s) * s for s in (1.2, 6)]
    places = rng.integers(0, 2048 - max(height, width), (count, 2, 2))
    for number, corners in enumerate(places):
        fine, coarse = (f[y : y + height, x : x + width] for f, (y, x) in zip(fields, corners, strict=True))
        path = folder / f"{number // 1000:04d}/s{number // 5:06d}-{number:07d}.png"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.clip(90 * (1 + fine) * (1 + 1.5 * coarse) + 8, 3, 255).astype(np.uint8))


def whole_frame(frames: Pixels, **_: object) -> Cone:
    """The scan area of pictures that are cropped already; its search costs the same for each picture."""
    height, width = frames.shape[:2]
    corners = ((0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height)))
    return Cone(geometry="full", polygon=corners, box=(0, 0, width, height), confidence=1.0, method="image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one command took: wall clock and CPU seconds, and the most that it, its largest child and a folder held."""

    wall: float
    cpu: float
    parent_mb: float
    worker_mb: float
    disk_mb: float


def watched(command: list[str], folder: Path) -> Usage:
    """Run a command to its end; every two seconds look at its memory, its children's, and the size of a folder."""
    before, start = _children_cpu(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parent = worker = disk = 0.0
    while process.poll() is None:
        own = Path(f"/proc/{process.pid}")
        parent = max(parent, _peak_mb(own))
        with suppress(OSError):
            children = (own / f"task/{process.pid}/children").read_text().split()
            worker = max([worker, *(_peak_mb(Path(f"/proc/{child}")) for child in children)])
        disk = max(disk, folder_mb(folder))
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.returncode:
        raise SystemExit(f"the build ended with exit code {process.returncode}")
    wall, cpu = time.monotonic() - start, _children_cpu() - before
    return Usage(wall=wall, cpu=cpu, parent_mb=parent, worker_mb=worker, disk_mb=max(disk, folder_mb(folder)))


def _peak_mb(process: Path) -> float:
    with suppress(OSError, StopIteration):
        line = next(n for n in (process / "status").read_text().splitlines() if n.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return 0.0


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def folder_mb(folder: Path) -> float:
    """Size of all files below a folder, 10^6 bytes."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total / 1e6


def scale(counts: list[int], side: int, folder: Path, number_of_workers: int) -> None:
    """The real command on that many cheap pictures, once more with nothing new, and how the cost grows."""
    recipe = folder / "scale.yaml"
    recipe.write_text("text: {quarantine_doubtful: false}\n")
    costs = []
    for count in counts:
        images, out = folder / f"images-{count}", folder / f"out-{count}"
        if not images.exists():
            write_cheap_pictures(images, count, side, side * 4 // 3)
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "openus_data.cli", "build", "--images", str(images), "--name", "bench"]
        command += ["--root", str(folder / "root"), "--out", str(out), "--recipe", str(recipe), "--quiet"]
        command += ["--workers", str(number_of_workers)]
        first, again = watched(command, out), watched(command, out)
        costs.append(first.cpu)
        _report(folder, count, first, again, folder_mb(out))
    if len(counts) > 1:
        slope = np.polyfit(np.log(counts), np.log(costs), 1)[0]
        print(f"CPU time grows as n^{slope:.3f} over {', '.join(f'{c:,}' for c in counts)}", flush=True)


_HEADINGS = (
    "pictures", "minutes", "CPU ms each", "parent MB", "worker MB", "most disk MB", "OUT MB", "again s", "again CPU s",
)  # fmt: skip


def _report(folder: Path, count: int, first: Usage, again: Usage, out_mb: float) -> None:
    """A row of the table, on standard output and in FOLDER/scale.md."""
    table = folder / "scale.md"
    head = [f"| {' | '.join(_HEADINGS)} |", "|" + "---|" * len(_HEADINGS)]
    cells = [f"{count:,}", f"{first.wall / 60:.1f}", f"{1000 * first.cpu / count:.2f}", f"{first.parent_mb:.0f}"]
    cells += [
        f"{first.worker_mb:.0f}",
        f"{first.disk_mb:.0f}",
        f"{out_mb:.0f}",
        f"{again.wall:.1f}",
        f"{again.cpu:.1f}",
    ]
    lines = [f"| {' | '.join(cells)} |"] if table.exists() else [*head, f"| {' | '.join(cells)} |"]
    with table.open("a", encoding="utf-8") as handle:
        handle.write("".join(f"{line}\n" for line in lines))
    print("\n".join([*head, lines[-1]]), f"at load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = {"ratios": ratios, "codecs": codecs, "writers": writers, "workers": workers}
    parser.add_argument("what", nargs="?", default="ratios", choices=(*tasks, "peers", "scale"))
    parser.add_argument("counts", nargs="*", type=int, help="pictures; several for scale")
    parser.add_argument("--count", type=int, default=60, help="pictures, where none are named")
    parser.add_argument("--side", type=int, default=64, help="height of the cheap pictures, px")
    parser.add_argument("--workers", type=int, default=2, help="processes for scale")
    parser.add_argument("--peers", help="a Python that has the rivals")
    parser.add_argument("--keep", type=Path, help="folder for scale; kept")
    chosen = parser.parse_args()
    counts = chosen.counts or [chosen.count]
    if chosen.what == "peers":
        peers(counts[0], chosen.peers or sys.executable)
        return
    if chosen.what != "scale":
        tasks[chosen.what](counts[0])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        scale(counts, chosen.side, folder, chosen.workers)


if __name__ == "__main__":
    main()
