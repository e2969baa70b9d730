"""Thumbnails for the page, made so that nothing in them can be read.

Text that a detector finds is filled, also where it is unsure; then the picture is made at least three times smaller, so
that letters under 15 px have under 5 px. A picture in which text was found for sure is shown in coarse blocks alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa

from openus_data.audit.rows import Rows
from openus_data.deid.burned_in import find_text
from openus_data.errors import CorpusError
from openus_data.records import Box, Pixels
from openus_data.samples import read_pixels

LONGEST_PX: Final = 144
LEAST_SHRINK: Final = 3.0
BLOCKS: Final = 40
"""Blocks along the longer side of a picture that holds text."""
_COLUMNS: Final = (
    "sample_id",
    "corpus",
    "shard",
    "offset",
    "size_bytes",
    "channels",
    "width_px",
    "height_px",
    "cone_polygon",
    "cone_geometry",
    "cone_confidence",
    "dataset",
    "split",
    "organ",
    "anatomy",
    "device_manufacturer",
    "device_model",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """One picture of the page.

    Args:
        row: manifest columns for its caption, with the size and the outline in pixels of the stored picture.
        jpeg: base64 of the small picture.
    """

    row: dict[str, Any]
    jpeg: str = field(repr=False)


def thumbnails(
    rows: Rows, outs: Sequence[Path], wanted: Iterable[str], *, coarse: frozenset[str] = frozenset()
) -> dict[str, Thumbnail]:
    """Thumbnails by sample id; what cannot be read is left out.

    Args:
        rows: the audited rows, header-like values withheld.
        outs: the corpora.
        wanted: sample ids.
        coarse: of these, in coarse blocks.
    """
    ids = sorted(set(wanted))
    rows.attach("wanted", pa.table({"sample_id": pa.array(ids, pa.string())}))
    found = rows.ask(
        f"select {', '.join(f'm.{c}' for c in _COLUMNS)} from m join wanted using (sample_id) order by 1, 2"
    )
    made: dict[str, Thumbnail] = {}
    for values in found:
        row = dict(zip(_COLUMNS, values, strict=True))
        if row["sample_id"] in made:
            continue
        try:
            pixels = read_pixels(outs[row["corpus"]], row)
        except CorpusError:
            continue
        small = unreadable(pixels, coarse=row["sample_id"] in coarse)
        data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
        made[row["sample_id"]] = Thumbnail(row=row, jpeg=base64.b64encode(data).decode())
    return made


def unreadable(pixels: Pixels, *, coarse: bool = False) -> Pixels:
    """A small RGB picture, uint8 (h, w, 3), in which no text can be read."""
    picture = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    filled = np.array(picture)
    for found in find_text(pixels):
        _fill(filled, found.box)
    height, width = filled.shape[:2]
    longest = max(height, width)
    target = min(BLOCKS, longest) if coarse else min(LONGEST_PX, longest / LEAST_SHRINK)
    scale = target / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(filled, size, interpolation=cv2.INTER_AREA))


def _fill(picture: Pixels, box: Box, margin_px: int = 3) -> None:
    x0, y0, x1, y1 = box
    area = picture[max(0, y0 - margin_px) : y1 + margin_px, max(0, x0 - margin_px) : x1 + margin_px]
    area[:] = np.median(area.reshape(-1, 3), axis=0) if area.size else 0
