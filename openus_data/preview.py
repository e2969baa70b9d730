"""The command `preview`: a contact sheet or a gallery of a corpus, with scan areas and removed text drawn.

preview(Path("out"), Path("sheet.png"), by="organ", count=24)
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openus_data.errors import UsageError
from openus_data.manifest import read_manifest
from openus_data.records import Pixels
from openus_data.samples import Sample, read_samples
from openus_data.store import write_bytes_aside

TILE_PX: Final = 240
_CAPTION_PX: Final = 34
_GAP_PX: Final = 8
_COLUMNS: Final = 6
_INK, _PAPER = (225, 229, 235), (22, 25, 30)
_OUTLINE, _REMOVED = (90, 220, 130), (255, 120, 70)  # RGB; apart in lightness too, for readers who see no red or green
_SHOWN: Final = (
    "dataset",
    "split",
    "organ",
    "anatomy",
    "view",
    "pathology",
    "device_manufacturer",
    "device_model",
    "cone_geometry",
    "cone_confidence",
    "cone_method",
    "spacing_row_mm",
    "duplicate_group",
    "quality",
    "deid_actions",
    "license",
)
"""Manifest columns that the gallery shows beside a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewReport:
    """What was drawn.

    Args:
        path: the file.
        shown: samples in it.
        groups: values of the grouping column, in order.
    """

    path: Path
    shown: int
    groups: tuple[str, ...]
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """`{"file", "shown", "groups"}`."""
        return {"file": str(self.path), "shown": self.shown, "groups": list(self.groups)}

    def to_text(self) -> str:
        """One line."""
        return f"{self.path}: {self.shown} images" + (f" in {len(self.groups)} groups" if self.groups else "")


def preview(out: Path, target: Path, *, by: str | None = None, count: int = 24) -> PreviewReport:
    """Draw some samples of a corpus.

    Args:
        out: the corpus.
        target: FILE.png for a contact sheet, FILE.html for a gallery.
        by: manifest column to group by; each group gets an even share of the pictures.
        count: pictures at most.

    Raises:
        UsageError: no such column, or another suffix.
        CorpusError: no finished build there, or a damaged one.
    """
    if target.suffix not in (".png", ".html"):
        raise UsageError("cannot draw such a file", got=target.suffix or "no suffix", expected=".png or .html")
    table = read_manifest(out)
    groups = pick(table, by, count)
    drawn = [(name, [(s, _tile(s)) for s in read_samples(out, rows)]) for name, rows in groups]
    data = _sheet(drawn) if target.suffix == ".png" else _gallery(drawn, table.num_rows).encode()
    write_bytes_aside(target, data)
    shown = sum(len(tiles) for _, tiles in drawn)
    return PreviewReport(path=target, shown=shown, groups=tuple(n for n, _ in drawn if n))


def pick(table: pa.Table, by: str | None, count: int) -> list[tuple[str, pa.Table]]:
    """Evenly spaced rows in sample_id order, which a keyed hash makes a random one; in groups where `by` is given."""
    if by is not None and by not in table.column_names:
        raise UsageError("no such column", got=by, next_step="columns: docs/reference/files.md")
    table = table.sort_by("sample_id")
    if by is None:
        return [("", _spread(table, count))]
    keys = pc.fill_null(pc.cast(_scalar(table.column(by)), pa.string()), "unknown")
    names = sorted(set(keys.to_pylist()))
    share = max(1, count // max(1, len(names)))
    return [(f"{by}: {name}", _spread(table.filter(pc.equal(keys, name)), share)) for name in names[:count]]


def _scalar(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return (
        pc.binary_join(column, ", ")
        if pa.types.is_list(column.type) and column.type.value_type == pa.string()
        else column
    )


def _spread(table: pa.Table, count: int) -> pa.Table:
    picked = np.unique(np.linspace(0, table.num_rows - 1, min(count, table.num_rows)).round().astype(np.int64))
    return table.take(pa.array(picked)) if table.num_rows else table


def _tile(sample: Sample) -> Pixels:
    """A picture fitted into a square tile, RGB, with its outline and the boxes that were filled."""
    pixels = sample.pixels
    height, width = pixels.shape[:2]
    scale = TILE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = cv2.resize(
        pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), size, interpolation=cv2.INTER_AREA
    )
    tile = np.full((TILE_PX, TILE_PX, 3), 0, np.uint8)
    y, x = (TILE_PX - size[1]) // 2, (TILE_PX - size[0]) // 2
    tile[y : y + size[1], x : x + size[0]] = rgb
    polygon = np.asarray(sample.row["cone_polygon"], np.float32).reshape(-1, 2) * scale + (x, y)
    if len(polygon):
        cv2.polylines(tile, [np.round(polygon).astype(np.int32)], True, _OUTLINE, 1, cv2.LINE_AA)
    for box in sample.row["text_boxes_removed"]:
        x0, y0, x1, y1 = (np.asarray(box) * scale + (x, y, x, y)).round().astype(int).tolist()
        cv2.rectangle(tile, (x0, y0), (x1, y1), _REMOVED, 1)
    return tile


def _caption(sample: Sample) -> tuple[str, str]:
    row = sample.row
    what = " / ".join(str(row[c]) for c in ("dataset", "organ") if row[c])
    return what, f"{row['cone_geometry']} {row['cone_confidence']:.2f}  {row['split']}"


def _sheet(groups: Sequence[tuple[str, list[tuple[Sample, Pixels]]]]) -> bytes:
    """The contact sheet as PNG."""
    most = max((len(tiles) for _, tiles in groups), default=1)
    columns = min(_COLUMNS, max(1, most))
    rows = sum((1 if name else 0) + -(-len(tiles) // columns) for name, tiles in groups)
    step_x, step_y = TILE_PX + _GAP_PX, TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = np.full((_GAP_PX + rows * step_y, _GAP_PX + columns * step_x, 3), _PAPER, np.uint8)
    y = _GAP_PX
    for name, tiles in groups:
        if name:
            _write(sheet, name, (_GAP_PX, y + 16), 0.55)
            y += 28
        for start in range(0, len(tiles), columns):
            for k, (sample, tile) in enumerate(tiles[start : start + columns]):
                x = _GAP_PX + k * step_x
                sheet[y : y + TILE_PX, x : x + TILE_PX] = tile
                for line, text in enumerate(_caption(sample)):
                    _write(sheet, text[:34], (x + 2, y + TILE_PX + 13 + 14 * line), 0.4)
            y += step_y
    return cv2.imencode(".png", sheet[:y, :, ::-1])[1].tobytes()


def _write(sheet: Pixels, text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(
        sheet, text.encode("ascii", "replace").decode(), at, cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA
    )


def _gallery(groups: Sequence[tuple[str, list[tuple[Sample, Pixels]]]], total: int) -> str:
    """The gallery as one HTML file without network."""
    shown = sum(len(tiles) for _, tiles in groups)
    body = [f"<h1>{shown} of {total:,} images</h1>", "<p>Green: scan area. Orange: filled text.</p>"]
    for name, tiles in groups:
        figures = "".join(_figure(sample, tile) for sample, tile in tiles)
        body.append((f"<h2>{html.escape(name)}</h2>" if name else "") + f'<div class="grid">{figures}</div>')
    return _PAGE.replace("{body}", "\n".join(body))


def _figure(sample: Sample, tile: Pixels) -> str:
    picture = base64.b64encode(
        cv2.imencode(".jpg", tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    ).decode()
    what, how = _caption(sample)
    rows = "".join(
        f"<dt>{c}</dt><dd>{html.escape(_text(sample.row[c]))}</dd>" for c in _SHOWN if sample.row[c] not in (None, [])
    )
    return (
        f'<figure><img alt="{html.escape(what)}" src="data:image/jpeg;base64,{picture}" '
        f'width="{TILE_PX}" height="{TILE_PX}">'
        f"<figcaption><details><summary>{html.escape(what)}<br><small>{html.escape(how)}</small></summary>"
        f"<dl><dt>sample_id</dt><dd>{sample.row['sample_id']}</dd>{rows}</dl></details></figcaption></figure>"
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preview of a corpus</title>
<style>
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem auto; max-width: 100rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img { background: #000; border-radius: 4px; max-width: 100%; height: auto; }
summary { cursor: pointer; } small { opacity: .75; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; font-size: .85rem; overflow-wrap: anywhere; }
dt { opacity: .75; } dd { margin: 0; }
@media print { details { break-inside: avoid; } }
</style></head><body>
{body}
</body></html>
"""
