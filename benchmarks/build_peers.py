"""Runs the rivals of benchmarks/build.py in an environment of their own, since their libraries differ from ours.

    python -m venv peers && peers/bin/pip install img2dataset litdata webdataset pillow
    python benchmarks/build.py peers --peers peers/bin/python

Called by that benchmark as: PEERS_PYTHON build_peers.py FOLDER, where FOLDER holds pictures. Prints one JSON object:
by tool, the CPU milliseconds of one picture more and the CPU seconds of starting, children included, and the tool's
release; a tool that is not installed or fails is left out. `copy` keeps the coded bytes, `recode` decodes and encodes.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

FEW = 8
FORMATS = {".png": "PNG", ".jpg": "JPEG"}


def webdataset_copy(paths: list[Path], target: Path) -> None:
    """webdataset's writer, given coded bytes."""
    import webdataset

    with webdataset.ShardWriter(str(target / "%06d.tar"), verbose=0) as sink:
        for path in paths:
            sink.write({"__key__": path.stem, path.suffix[1:]: path.read_bytes()})


def webdataset_recode(paths: list[Path], target: Path) -> None:
    """webdataset's writer, given pixels, which it encodes by Pillow."""
    import numpy
    import webdataset
    from PIL import Image

    with webdataset.ShardWriter(str(target / "%06d.tar"), verbose=0) as sink:
        for path in paths:
            sink.write({"__key__": path.stem, path.suffix[1:]: numpy.asarray(Image.open(path))})


def read_bytes(path: str) -> dict[str, Any]:
    """A sample of litdata: the coded bytes."""
    return {"key": Path(path).stem, "image": Path(path).read_bytes()}


def recoded_bytes(path: str) -> dict[str, Any]:
    """A sample of litdata, decoded and encoded by Pillow."""
    from PIL import Image

    sink = io.BytesIO()
    Image.open(path).save(sink, FORMATS[Path(path).suffix], quality=95)
    return {"key": Path(path).stem, "image": sink.getvalue()}


def litdata_optimize(paths: list[Path], target: Path, *, sample: Callable[[str], dict[str, Any]]) -> None:
    """litdata.optimize with one worker."""
    import litdata  # type: ignore[import-not-found]  # in the rivals' environment only

    names = [str(path) for path in paths]
    litdata.optimize(fn=sample, inputs=names, output_dir=str(target / "out"), num_workers=1, chunk_bytes="64MB")


def img2dataset_run(paths: list[Path], target: Path, *, recode: bool) -> None:
    """img2dataset on file:// addresses, with one process."""
    from img2dataset import download  # type: ignore[import-not-found]

    listed = target / "urls.txt"
    listed.write_text("".join(f"file://{path}\n" for path in paths))
    download(
        url_list=str(listed), output_folder=str(target / "out"), output_format="webdataset", processes_count=1,
        thread_count=4, resize_mode="no", disable_all_reencoding=not recode, encode_format=paths[0].suffix[1:],
        encode_quality=95 if paths[0].suffix == ".jpg" else 1, skip_reencode=not recode, enable_wandb=False,
        number_sample_per_shard=10_000,
    )  # fmt: skip


TOOLS: dict[str, tuple[str, Callable[[list[Path], Path], None]]] = {
    "webdataset copy": ("webdataset", webdataset_copy),
    "webdataset recode": ("webdataset", webdataset_recode),
    "litdata copy": ("litdata", partial(litdata_optimize, sample=read_bytes)),
    "litdata recode": ("litdata", partial(litdata_optimize, sample=recoded_bytes)),
    "img2dataset copy": ("img2dataset", partial(img2dataset_run, recode=False)),
    "img2dataset recode": ("img2dataset", partial(img2dataset_run, recode=True)),
}


def run_alone(name: str, folder: Path, count: int) -> float | None:
    """CPU seconds of a tool on the first pictures of a folder, in a process of its own; None where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, str(folder), name, str(count)]
    quiet = subprocess.DEVNULL
    if subprocess.run(command, stdout=quiet, stderr=quiet, env=os.environ | {"WANDB_MODE": "disabled"}).returncode:
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """All tools on a folder, or one of them on some of its pictures."""
    folder, *one = sys.argv[1:]
    paths = sorted(p for p in Path(folder).resolve().rglob("*") if p.suffix in FORMATS)
    if one:
        with tempfile.TemporaryDirectory() as target:
            TOOLS[one[0]][1](paths[: int(one[1])], Path(target))
        return
    found = {}
    for name, (library, _) in TOOLS.items():
        few, all_of_them = (run_alone(name, Path(folder), count) for count in (FEW, len(paths)))
        if few is not None and all_of_them is not None:
            found[name] = {
                "ms": 1000 * (all_of_them - few) / (len(paths) - FEW),
                "start_s": few,
                "release": importlib.metadata.version(library),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
