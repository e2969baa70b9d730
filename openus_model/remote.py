"""Shards on another machine: copied to a local folder once, checked against their sidecars, then read by offset.

Copying won the comparison with streaming through the webdataset library (docs/decisions/0004-remote-shards.md): a copy
is read once per shard however many epochs there are, keeps every batch a pure function of (seed, step), and its SHA-256
is checked before a byte is used. `http(s)://` goes through requests; `s3://`, `gs://` and others through fsspec.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow.parquet as pq

from openus_model.errors import DataError, MissingExtra

MANIFEST = "manifest.parquet"
_BLOCK = 1 << 20
_TIMEOUT_S = (10, 60)


def local_copy(data: str, split: str | None, cache: Path | None) -> Path:
    """The folder to read `data` from: itself when it is local, else a checked copy of manifest, sidecars and shards.

    Args:
        data: a folder or a URL.
        split: copy the shards of one split only; None copies all.
        cache: where copies go; default `~/.cache/openus/<hash of the URL>`.

    Raises:
        DataError: the server does not answer, or a copy is not what its sidecar says.
    """
    if "://" not in data:
        return Path(data)
    if data.startswith("file://"):
        return Path(data.removeprefix("file://"))
    base = data.rstrip("/")
    root = cache or Path.home() / ".cache" / "openus" / hashlib.sha256(base.encode()).hexdigest()[:16]
    _copy(f"{base}/{MANIFEST}", root / MANIFEST, None)
    table = pq.read_table(root / MANIFEST, columns=["shard", "split"], partitioning=None)
    pairs = zip(table.column("shard").to_pylist(), table.column("split").to_pylist(), strict=True)
    for shard in sorted({shard for shard, part in pairs if split in (None, part)}):
        if ".." in Path(shard).parts or Path(shard).is_absolute() or ":" in shard:
            raise DataError("a shard's name must be a plain relative path", where=shard)
        sidecar = (root / shard).with_suffix(".json")
        _copy(f"{base}/{sidecar.relative_to(root).as_posix()}", sidecar, None)
        _copy(f"{base}/{shard}", root / shard, json.loads(sidecar.read_bytes())["sha256"])
    return root


def _copy(url: str, target: Path, sha256: str | None) -> None:
    """Write aside, check, rename. A shard that is there already with the right hash is kept; the rest is always new."""
    if sha256 is not None and target.is_file() and _sha256(target) == sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with _open(url) as source, aside.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)
            sink.flush()
            os.fsync(sink.fileno())
        got = _sha256(aside)
        if sha256 is not None and got != sha256:
            raise DataError("the copy is not what its sidecar says", where=target.name, expected=sha256, got=got)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _open(url: str) -> Iterator[IO[Any]]:
    scheme = url.split("://", 1)[0]
    name = url.rsplit("/", 1)[-1]
    if scheme in ("http", "https"):
        import requests  # only those who read from a server pay for it
        import urllib3

        try:
            with requests.get(url, stream=True, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status_code != 200:
                    raise DataError("the server has no such file", where=name, got=f"status {answer.status_code}")
                yield cast("IO[bytes]", answer.raw)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise DataError("the server does not answer", where=name, got=type(error).__name__) from None
        return
    try:
        import fsspec
    except ImportError:
        raise MissingExtra(f"reading {scheme}:// needs fsspec", next_step='pip install "openus[remote]"') from None
    try:
        with fsspec.open(url, "rb") as handle:
            yield handle
    except (OSError, ImportError, ValueError) as error:
        raise DataError("the object store does not answer", where=name, got=type(error).__name__) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
