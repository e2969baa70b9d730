"""The command `embed`: an embedding per image as Parquet, streamed and resumable.

    embed(Path("run"), Path("embeddings.parquet"), data=Path("out"))

Finished chunks wait in `<FILE>.parts/`; a run that was killed goes on behind them. The file appears under its name when
all of them are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from openus_model.corpus import Corpus
from openus_model.errors import DataError, UsageError
from openus_model.pictures import decode_picture, find_pictures
from openus_model.pixels import normalise, resize
from openus_model.progress import bar
from openus_model.saved import read_backbone, weights_sha256

INPUT_PX: Final = 224
CHUNK: Final = 1024
"""Images per part; what a kill costs at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What was embedded.

    Args:
        path: the file.
        images: rows in it.
        dim: length of an embedding.
        unreadable: files of a folder that are no pictures, by count.
        reused: rows taken over from an interrupted run.
        seconds: of this run.
        weights_sha256: of the weights.
    """

    path: Path
    images: int
    dim: int
    unreadable: int
    reused: int
    seconds: float
    weights_sha256: str

    @property
    def exit_code(self) -> int:
        """1 when a file could not be read."""
        return 1 if self.unreadable else 0

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "file": str(self.path),
            "images": self.images,
            "dim": self.dim,
            "unreadable": self.unreadable,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
            "weights_sha256": self.weights_sha256,
        }

    def to_text(self) -> str:
        """One line."""
        bad = f", {self.unreadable} files are no pictures" if self.unreadable else ""
        rate = (self.images - self.reused) / max(self.seconds, 1e-9)
        return f"{self.path}: {self.images} embeddings of {self.dim} numbers, {rate:.1f} images/s{bad}"


def embed(
    weights: Path,
    out: Path,
    *,
    data: Path | None = None,
    images: Path | None = None,
    batch_size: int = 32,
    input_px: int = INPUT_PX,
    workers: int = 2,
    quiet: bool = False,
) -> EmbedReport:
    """Embed a corpus or a folder of pictures.

    Args:
        weights: a run, or a folder of exported weights.
        out: FILE.parquet with columns sample_id, embedding (fixed-size list of float32) and weights_sha256.
        data: an OUT that `openus-data build` made.
        images: a folder of pictures; `sample_id` is then `file-` and 20 digits of the file's SHA-256, since a path may
            name a patient.
        batch_size: images at once.
        input_px: side to which images are resized.
        workers: processes that decode.
        quiet: no progress bar.

    Raises:
        UsageError: neither or both of data and images.
        DataError: no manifest, a corrupt image, or no picture in the folder.
    """
    if (data is None) == (images is None):
        raise UsageError("say what to embed", expected="one of --data and --images")
    start = time.monotonic()
    backbone: Any = read_backbone(weights)
    source = _source(data, images, input_px)
    digest = weights_sha256(backbone)
    parts = _Parts(out, {"weights_sha256": digest, "source": source.digest(), "input_px": input_px})
    reused = parts.rows
    _run(backbone, source, parts, digest, batch_size, workers if len(source) > 64 else 0, quiet)
    unreadable = parts.finish(out)
    return EmbedReport(
        path=out,
        images=len(source) - unreadable,
        dim=backbone.embed_dim,
        unreadable=unreadable,
        reused=reused,
        seconds=time.monotonic() - start,
        weights_sha256=digest,
    )


def _source(data: Path | None, images: Path | None, input_px: int) -> _CorpusSource | _FolderSource:
    if data is not None:
        return _CorpusSource(Corpus.open(data), input_px)
    assert images is not None
    step = "DICOM and clips: openus-data build --images, then --data"
    return _FolderSource(find_pictures(images, next_step=step), input_px)


class _CorpusSource(Dataset[tuple[str, Tensor | None]]):
    def __init__(self, corpus: Corpus, input_px: int) -> None:
        self.corpus, self.input_px = corpus, input_px
        self.ids = corpus.column("sample_id")

    def __len__(self) -> int:
        return len(self.corpus)

    def digest(self) -> str:
        return self.corpus.digest

    def __getitem__(self, index: int) -> tuple[str, Tensor | None]:
        return self.ids[index], _three(resize(self.corpus.image(index), self.input_px))


class _FolderSource(Dataset[tuple[str, Tensor | None]]):
    def __init__(self, files: Sequence[Path], input_px: int) -> None:
        self.files, self.input_px = files, input_px

    def __len__(self) -> int:
        return len(self.files)

    def digest(self) -> str:
        stats = [(f.name, stat.st_size, stat.st_mtime_ns) for f in self.files for stat in (f.stat(),)]
        return hashlib.sha256(json.dumps(stats).encode()).hexdigest()

    def __getitem__(self, index: int) -> tuple[str, Tensor | None]:
        data = self.files[index].read_bytes()
        name = f"file-{hashlib.sha256(data).hexdigest()[:20]}"
        image = decode_picture(data)
        return name, None if image is None else resize(image, self.input_px)


def _three(image_CHW: Tensor) -> Tensor:
    return image_CHW.expand(3, -1, -1)


def _collate(samples: list[tuple[str, Tensor | None]]) -> tuple[list[str], Tensor | None, int]:
    good = [(name, image) for name, image in samples if image is not None]
    images = torch.stack([image for _, image in good]) if good else None
    return [name for name, _ in good], images, len(samples) - len(good)


def _run(backbone: Any, source: Any, parts: _Parts, digest: str, batch_size: int, workers: int, quiet: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbone.to(device).eval()
    rest = range(parts.seen, len(source))
    loader = DataLoader(
        torch.utils.data.Subset(source, rest), batch_size, num_workers=workers, collate_fn=_collate, shuffle=False
    )
    with torch.inference_mode(), bar("embed", len(rest), quiet=quiet) as advance:
        for names, images, bad in loader:
            vectors = np.zeros((0, backbone.embed_dim), np.float32)
            if images is not None:
                vectors = backbone(normalise(images.to(device, non_blocking=True))).pooled_BD.float().cpu().numpy()
            parts.add(names, vectors, digest, bad)
            advance(len(names) + bad)
    parts.flush()


class _Parts:
    """Chunks of rows beside the final file, whole or absent, of one (weights, source)."""

    def __init__(self, out: Path, key: dict[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.parts")
        stamp = self.folder / "key.json"
        text = json.dumps(key, sort_keys=True)
        if stamp.is_file() and stamp.read_text() != text:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(text)
        self._names: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._digest, self._bad = "", 0
        done = [pq.read_schema(p).metadata for p in self._paths()]
        self.seen = sum(int(m[b"seen"]) for m in done)
        self.rows = sum(int(m[b"rows"]) for m in done)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def add(self, names: list[str], vectors: NDArray[np.float32], digest: str, bad: int) -> None:
        self._names += names
        self._vectors.append(vectors)
        self._digest, self._bad = digest, self._bad + bad
        if len(self._names) + self._bad >= CHUNK:
            self.flush()

    def flush(self) -> None:
        if not self._names and not self._bad:
            return
        vectors = np.concatenate(self._vectors)
        seen = len(self._names) + self._bad
        table = pa.table(
            {
                "sample_id": pa.array(self._names, pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
                "weights_sha256": pa.array([self._digest] * len(self._names), pa.string()),
            }
        ).replace_schema_metadata({"seen": str(seen), "rows": str(len(self._names))})
        path = self.folder / f"part-{len(self._paths()):06d}.parquet"
        _write(table, path)
        self._names, self._vectors, self._bad = [], [], 0

    def finish(self, out: Path) -> int:
        """Join the parts under the final name, one in memory at a time; returns how many items were no pictures."""
        paths, bad, rows = self._paths(), 0, 0
        aside = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            with pq.ParquetWriter(aside, pq.read_schema(paths[0]).remove_metadata(), compression="zstd") as writer:
                for path in paths:
                    table = pq.read_table(path, partitioning=None)
                    bad, rows = bad + int(table.schema.metadata[b"seen"]) - table.num_rows, rows + table.num_rows
                    writer.write_table(table.replace_schema_metadata(None))
            if not rows:
                raise DataError("nothing could be embedded", where=out.name, next_step="are these pictures?")
            _settle(aside, out)
        finally:
            aside.unlink(missing_ok=True)
        shutil.rmtree(self.folder)
        return bad


def _write(table: pa.Table, path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(table, aside, compression="zstd")
        _settle(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _settle(aside: Path, path: Path) -> None:
    """Give a finished file its name, its bytes on the disk first."""
    with aside.open("rb") as handle:
        os.fsync(handle.fileno())
    aside.replace(path)
