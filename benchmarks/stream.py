"""Images per CPU-second: decode a 512x512 grey JPEG and make 2x224 + 8x96 views, against the PIL RGB pipeline of iBOT.

    python benchmarks/stream.py [images]         # what `openus-model bench stream` prints
    python benchmarks/stream.py --remote 1000    # shards behind a local HTTP server: copied first, or streamed?

The second needs webdataset and curl. It times reading alone, in CPU seconds of the reader and its children: an epoch
streamed through the library in its secure mode, and a checked copy followed by epochs that are read by offset.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openus_data import schema
from openus_model.bench import stream as views
from openus_model.corpus import Corpus
from openus_model.order import Order
from openus_model.remote import local_copy


def write_shards(root: Path, samples: int, per_shard: int = 125) -> int:
    """Plain shards of JPEGs with sidecars and a manifest; gives their bytes."""
    images = [views.speckle_jpeg(seed) for seed in range(16)]
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) for data in images]
    hashes = [schema.pixel_sha256(np.asarray(image, np.uint8)) for image in decoded]
    rows: dict[str, list[object]] = {column.name: [] for column in schema.MANIFEST_COLUMNS}
    size = 0
    for first in range(0, samples, per_shard):
        shard = schema.shard_name("pretrain", first // per_shard)
        (root / shard).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / shard, "w") as tar:
            for k in range(first, min(first + per_shard, samples)):
                info = tarfile.TarInfo(f"s-{k:06d}.jpg")
                info.size = len(images[k % 16])
                known = {
                    "sample_id": f"s-{k:06d}", "dataset": "speckle", "split": "pretrain", "role": "pretrain",
                    "shard": shard, "offset": tar.offset + 512, "size_bytes": info.size, "channels": 1,
                    "pixel_sha256": hashes[k % 16],
                }  # fmt: skip
                tar.addfile(info, io.BytesIO(images[k % 16]))
                for column in schema.MANIFEST_COLUMNS:
                    rows[column.name].append(known.get(column.name, _blank(column)))
        data = (root / shard).read_bytes()
        size += len(data)
        sidecar = {"samples": per_shard, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "members": {}}
        (root / shard).with_suffix(".json").write_text(json.dumps(sidecar))
    pq.write_table(pa.table(rows, schema=schema.manifest_schema()), root / schema.MANIFEST_NAME)
    return size


def _blank(column: schema.Column) -> object:
    """What a column that the benchmark does not read may hold."""
    kind = column.type
    if column.nullable:
        return None
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder behind an HTTP server in a process of its own."""
    code = (
        "import http.server as h, functools as f, sys; "
        "s = h.ThreadingHTTPServer(('127.0.0.1', 0), f.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])); "
        "print(s.server_address[1], flush=True); s.serve_forever()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def spent(work: Callable[[], int]) -> tuple[int, float, float]:
    """(what the work gives, CPU seconds of this process and its children, wall seconds)."""
    before, started = os.times(), time.perf_counter()
    answer = work()
    after = os.times()
    cpu = sum(getattr(after, name) - getattr(before, name) for name in
              ("user", "system", "children_user", "children_system"))  # fmt: skip
    return answer, cpu, time.perf_counter() - started


def streamed(url: str, shards: list[str], seed: int) -> int:
    """An epoch through the webdataset library, shuffled by a seed; gives the samples that came."""
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order = np.random.default_rng(seed).permutation(shards).tolist()
        stream = webdataset.WebDataset([f"{url}/{name}" for name in order], shardshuffle=False).shuffle(1000, seed=seed)
        return sum(len(sample["jpg"]) > 0 for sample in stream)


def by_offset(corpus: Corpus, seed: int) -> int:
    """An epoch from a local copy, in an order of its own."""
    return sum(len(corpus.image_bytes(int(k))) > 0 for k in Order(len(corpus), seed).at(0, len(corpus)))


def remote(samples: int) -> None:
    """Print the table of the second form."""
    os.environ["WDS_SECURE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "out", Path(folder) / "cache"
        size = write_shards(root, samples)
        shards = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.tar"))
        with served(root) as url:
            urllib.request.urlopen(f"{url}/{shards[0]}").close()
            streams = [spent(functools.partial(streamed, url, shards, seed)) for seed in range(3)]
            copied = spent(lambda: len(list(local_copy(url, "pretrain", cache).rglob("*.tar"))))
        corpus = Corpus.open(cache, split="pretrain")
        epochs = [spent(functools.partial(by_offset, corpus, seed)) for seed in range(3)]
    stream, epoch = (min(rounds, key=lambda r: r[1]) for rounds in (streams, epochs))
    print(f"{samples} JPEGs in {len(shards)} shards, {size / 1e6:.0f} MB, HTTP on this machine; reading alone")
    print(f"{'way':<44}{'CPU s':>8}{'wall s':>8}{'samples/CPU-s':>15}")
    for name, (count, cpu, wall) in (
        ("webdataset over HTTP, an epoch", stream), ("copied and checked by SHA-256, once", (samples, *copied[1:])),
        ("by offset from the copy, an epoch", epoch),
    ):  # fmt: skip
        print(f"{name:<44}{cpu:>8.2f}{wall:>8.2f}{count / cpu:>15.0f}")
    print(f"epochs after which the copy is cheaper: {max(1, int(np.ceil(copied[1] / (stream[1] - epoch[1]))))}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=60)
    parser.add_argument("--remote", type=int, metavar="SAMPLES", help="compare ways to read remote shards")
    arguments = parser.parse_args()
    if arguments.remote:
        remote(arguments.remote)
    else:
        print(views.run(arguments.images).to_text())


if __name__ == "__main__":
    main()
