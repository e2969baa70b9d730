"""A second look at the stored pictures: text that is left, masks that do not fit, pictures that do not decode."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from openus_data.audit.request import Finding
from openus_data.audit.rows import EXAMPLES, Rows
from openus_data.deid.burned_in import find_text
from openus_data.errors import CorpusError
from openus_data.progress import Progress
from openus_data.records import Box, Pixels, TextBox
from openus_data.samples import read_pixels
from openus_data.schema import pixel_sha256

SAMPLE: Final = 500
_CHUNK: Final = 64
_SURE: Final = 0.8
"""Score from which a box counts as text that is left: the audit reports what a person would read, not every speck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one picture showed.

    Args:
        sample_id: of the picture.
        fault: "unreadable", "hash", or empty.
        text: boxes of text that is left.
    """

    sample_id: str
    fault: str = ""
    text: tuple[Box, ...] = ()


def look(rows: Rows, outs: Sequence[Path], images: str, quiet: bool) -> tuple[int, list[Looked]]:
    """Look at pictures again; returns how many were looked at, and those that showed something.

    Args:
        rows: the audited rows.
        outs: the corpora.
        images: none, sample or all. The sample is the first 500 by sample_id, which a keyed hash makes a random one.
        quiet: no progress bar.
    """
    if images == "none":
        return 0, []
    limit = "" if images == "all" else f"limit {SAMPLE}"
    names = ("corpus", "shard", "offset", "size_bytes", "channels", "sample_id", "pixel_sha256", "cone_polygon")
    found = [
        dict(zip(names, r, strict=True))
        for r in rows.ask(f"select {', '.join(map(_quoted, names))} from m order by sample_id {limit}")
    ]
    chunks = [(list(outs), found[k : k + _CHUNK]) for k in range(0, len(found), _CHUNK)]
    shown: list[Looked] = []
    with Progress("look again", total=len(found), quiet=quiet, unit="images") as progress:
        if len(chunks) < 4:
            results = map(_look_at, chunks)
            for chunk, result in zip(chunks, results, strict=True):
                shown += result
                progress.advance(len(chunk[1]))
        else:
            with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
                for chunk, result in zip(chunks, pool.map(_look_at, chunks), strict=True):
                    shown += result
                    progress.advance(len(chunk[1]))
    return len(found), shown


def _quoted(name: str) -> str:
    return f'"{name}"'


def _look_at(chunk: tuple[list[Path], list[dict[str, Any]]]) -> list[Looked]:
    outs, rows = chunk
    cv2.setNumThreads(1)
    return [looked for row in rows if (looked := _one(outs[row["corpus"]], row)) is not None]


def _one(out: Path, row: dict[str, Any]) -> Looked | None:
    try:
        pixels = read_pixels(out, row)
    except CorpusError:
        return Looked(sample_id=row["sample_id"], fault="unreadable")
    if pixel_sha256(pixels) != row["pixel_sha256"]:
        return Looked(sample_id=row["sample_id"], fault="hash")
    text = tuple(t.box for t in remaining_text(pixels, row["cone_polygon"]))
    return Looked(sample_id=row["sample_id"], text=text) if text else None


def remaining_text(pixels: Pixels, polygon: Sequence[Sequence[float]]) -> tuple[TextBox, ...]:
    """Text that is still in a stored picture, inside its scan area."""
    inside = np.zeros(pixels.shape[:2], np.uint8)
    if polygon:
        cv2.fillPoly(inside, [np.round(np.asarray(polygon)).astype(np.int32)], 1)
    else:
        inside[:] = 1
    return tuple(t for t in find_text(pixels, inside.astype(bool)) if t.score >= _SURE)


def pixel_findings(looked_at: int, shown: Sequence[Looked]) -> list[Finding]:
    """Findings of the second look."""
    text = [s.sample_id for s in shown if s.text]
    damaged = [s.sample_id for s in shown if s.fault]
    found = [
        Finding(
            id="residual_text",
            severity="warning",
            title=f"of {looked_at:,} pictures looked at again still hold something that reads like text",
            count=len(text),
            detail="Drawn in the HTML report; the detector errs towards too many. Build with --policy quarantine.",
            examples=tuple(text[:EXAMPLES]),
        ),
        Finding(
            id="damaged_pictures",
            severity="error",
            title="pictures are not what the manifest says",
            count=len(damaged),
            detail="Run openus-data verify.",
            examples=tuple(damaged[:EXAMPLES]),
        ),
    ]
    return [f for f in found if f.count]
