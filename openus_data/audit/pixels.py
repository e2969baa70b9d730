"""A second look at the stored samples: text that is left, masks that do not fit, names in metadata, damage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.audit.request import Finding
from openus_data.audit.rows import EXAMPLES, Rows
from openus_data.cone.outline import fill
from openus_data.deid.burned_in import SURE, find_text
from openus_data.deid.residual import scan_json
from openus_data.errors import CorpusError
from openus_data.progress import Progress
from openus_data.records import Box, Pixels
from openus_data.samples import read_companions, read_pixels
from openus_data.schema import MASK_SUFFIX, METADATA_SUFFIX, pixel_sha256

SAMPLE: Final = 500
_CHUNK: Final = 64
_DARK: Final = 24
"""Level up to which a pixel counts as black: a lossy codec leaves a little outside the outline."""
_MOST_LIT: Final = 0.001
_MOST_OUTSIDE: Final = 0.05
"""Share of a mask's pixels that may lie outside the scan area: hand-drawn borders overlap the edge a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one picture showed.

    Args:
        sample_id: of the picture.
        fault: "unreadable", "hash", or empty.
        text: boxes of text that is left.
        mask: "size", "outside", or empty.
        metadata: kinds of header-like text in the sample's JSON, with the place.
    """

    sample_id: str
    fault: str = ""
    text: tuple[Box, ...] = ()
    mask: str = ""
    metadata: tuple[str, ...] = ()

    @property
    def is_odd(self) -> bool:
        """Whether the second look showed anything."""
        return bool(self.fault or self.text or self.mask or self.metadata)


def look(
    rows: Rows, outs: Sequence[Path], images: str, quiet: bool, words: frozenset[str] = frozenset()
) -> tuple[int, list[Looked]]:
    """Look at pictures again; returns how many were looked at, and those that showed something.

    Args:
        rows: the audited rows.
        outs: the corpora.
        images: none, sample or all. The sample is 500, shared out evenly among datasets; within one,
            digests of the pixels draw them, so that equal corpora have equal samples.
        quiet: no progress bar.
        words: folded words of the source's own headers, which no sample's JSON may hold.
    """
    if images == "none":
        return 0, []
    limit = "" if images == "all" else f"limit {SAMPLE}"
    names = ("corpus", "shard", "offset", "size_bytes", "channels", "sample_id", "pixel_sha256", "cone_polygon")
    found = [
        dict(zip(names, r, strict=True))
        for r in rows.ask(
            f"select {', '.join(map(_quoted, names))} from (select *, row_number() over (partition by corpus, dataset "
            f"order by pixel_sha256, sample_id) as turn from m) order by turn, corpus, dataset {limit}"
        )
    ]
    chunks = [(list(outs), found[k : k + _CHUNK], words) for k in range(0, len(found), _CHUNK)]
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


def _look_at(chunk: tuple[list[Path], list[dict[str, Any]], frozenset[str]]) -> list[Looked]:
    outs, rows, words = chunk
    cv2.setNumThreads(1)
    return [looked for row in rows if (looked := _one(outs[row["corpus"]], row, words)).is_odd]


def _one(out: Path, row: dict[str, Any], words: frozenset[str]) -> Looked:
    sample = str(row["sample_id"])
    try:
        pixels, beside = read_pixels(out, row), read_companions(out, row)
    except CorpusError:
        return Looked(sample_id=sample, fault="unreadable")
    if pixel_sha256(pixels) != row["pixel_sha256"]:
        return Looked(sample_id=sample, fault="hash")
    inside = scan_area(pixels, row["cone_polygon"])
    found = scan_metadata(beside.get(METADATA_SUFFIX, b"{}"), words)
    return Looked(
        sample_id=sample,
        text=tuple(t.box for t in find_text(pixels, inside, ocr="flagged") if t.score >= SURE),
        mask=mask_fault(beside[MASK_SUFFIX], inside) if MASK_SUFFIX in beside else "",
        metadata=tuple(sorted(set(found))),
    )


def scan_area(pixels: Pixels, polygon: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """Where text is looked for, bool (H, W): the scan area, by the very rule by which the build blackened the rest.

    All of the picture where no outline was found, or where the outline was too doubtful to blacken what lies outside.
    """
    inside = np.zeros(pixels.shape[:2], np.uint8)
    if polygon:
        fill(inside, np.asarray(polygon, np.float64))
    brightest = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    lit = (brightest > _DARK) & (inside == 0)
    if not polygon or int(lit.sum()) > _MOST_LIT * inside.size:
        inside[:] = 1
    return inside.astype(bool)


def mask_fault(data: bytes, inside: NDArray[np.bool_]) -> str:
    """What does not fit about a mask: "unreadable", "size", "outside" the scan area, or nothing.

    Args:
        data: the encoded mask.
        inside: scan area of its image, (H, W).
    """
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if mask is None:
        return "unreadable"
    if mask.shape[:2] != inside.shape:
        return "size"
    marked = mask.reshape(*inside.shape, -1).any(axis=2)
    around = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    count = int(marked.sum())
    return "outside" if count and float((marked & ~around).sum()) / count > _MOST_OUTSIDE else ""


def scan_metadata(data: bytes, words: frozenset[str] = frozenset()) -> Iterator[str]:
    """Header-like text in a sample's JSON, or words of the source's own headers, as "place: kind"."""
    try:
        found = json.loads(data)
    except ValueError:
        yield "not JSON"
        return
    if isinstance(found, dict) and isinstance(found.get("labels"), str):
        try:
            found = {**found, "labels": json.loads(found["labels"])}
        except ValueError:
            yield "labels: not JSON"
    yield from (f"{f.place.split('.')[0]}: {f.kind}" for f in scan_json(found, words=words))


def pixel_findings(looked_at: int, shown: Sequence[Looked]) -> list[Finding]:
    """Findings of the second look."""
    text = [s.sample_id for s in shown if s.text]
    damaged = [s.sample_id for s in shown if s.fault]
    metadata = [s for s in shown if s.metadata]
    found = [
        *_mask_findings(shown),
        Finding(
            id="header_like_metadata",
            severity="error",
            title="samples whose JSON holds something that reads like a patient's header",
            count=len(metadata),
            detail=f"{_tally(k for s in metadata for k in s.metadata)}. Do not share this corpus.",
            examples=tuple(s.sample_id for s in metadata[:EXAMPLES]),
        ),
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


def _mask_findings(shown: Sequence[Looked]) -> Iterator[Finding]:
    odd = [s for s in shown if s.mask]
    yield Finding(
        id="masks_do_not_fit",
        severity="warning",
        title="masks that do not fit their picture",
        count=len(odd),
        detail=f"{_tally(s.mask for s in odd)}. size: other height or width than the picture; outside: over "
        f"{_MOST_OUTSIDE:.0%} of the marked pixels lie outside the scan area, so one of the two is wrong.",
        examples=tuple(s.sample_id for s in odd[:EXAMPLES]),
    )


def _tally(words: Iterable[str]) -> str:
    return ", ".join(f"{word} ({count:,})" for word, count in sorted(Counter(words).items()))
