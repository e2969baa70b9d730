"""HTML of the page's parts: tables, charts with their tables, figures. Every value is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from openus_data.audit.pictures import Thumbnail
from openus_data.records import Box

Cell = str | int | float | None


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str) -> str:
    """A table with a caption; numbers stand right."""
    listed = list(rows)
    right = [any(isinstance(row[k], int | float) for row in listed) for k in range(len(heads))]
    head = "".join(
        f'<th scope="col"{" class=n" if is_right else ""}>{escape(h)}</th>'
        for h, is_right in zip(heads, right, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in listed)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Cell) -> str:
    if isinstance(value, int | float):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape('unknown' if value is None else value)}</td>"


def counts_table(column: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Counts of a column, in the form that the page's filter rewrites."""
    body = "".join(
        f'<tr data-value="{escape(str(r["value"]))}"><td>{escape(str(r["value"]))}</td>'
        f'<td class="n">{r["images"]:,}</td>'
        + "".join(f'<td class="n whole" data-n="{r[k]:,}">{r[k]:,}</td>' for k in ("clips", "subjects"))
        + "</tr>"
        for r in rows
    )
    head = "".join(
        f'<th scope="col"{" class=n" if k else ""}>{h}</th>'
        for k, h in enumerate((words(column), "images", "clips", "subjects"))
    )
    return (
        f'<div class="scroll"><table id="t-{column}"><caption>By {words(column)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def chart(identity: str, title: str, of: str, *, is_open: bool = False) -> str:
    """A canvas with its table in a disclosure below it."""
    return (
        f'<div class="panel"><h3>{escape(title)}</h3><div class="chart"><canvas id="{identity}" role="img" '
        f'aria-label="Bar chart: {escape(title)}. The table below has its numbers."></canvas></div>'
        f"<details{' open' if is_open else ''}><summary>Table: {escape(title)}</summary>{of}</details></div>"
    )


def figure(thumbnail: Thumbnail, note: str = "", *, boxes: Sequence[Box] = (), filtered: bool = False) -> str:
    """A thumbnail with its outline in green and boxes in orange."""
    row = thumbnail.row
    organ, device = str(row["organ"] or "unknown"), str(row["device_manufacturer"] or "unknown")
    what = f"{row['dataset']}, {row['split']}, {row['anatomy'] or organ}, {row['device_model'] or device}"
    points = " ".join(f"{x:.0f},{y:.0f}" for x, y in row["cone_polygon"] or ())
    outline = f'<polygon class="outline" points="{points}"/>' if points else ""
    drawn = "".join(
        f'<rect class="box" x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>' for x0, y0, x1, y1 in boxes
    )
    attributes = (
        f' data-organ="{escape(organ)}" data-device="{escape(device)}" '
        f'data-text="{escape(" ".join((what, organ, device)).lower().replace("_", " "))}"'
        if filtered
        else ""
    )
    width, height = row["width_px"], row["height_px"]
    return (
        f'<figure{attributes}><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(what)}">'
        f'<image href="data:image/jpeg;base64,{thumbnail.jpeg}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none"/>{outline}{drawn}</svg>'
        f"<figcaption>{escape(what)}{f'<br>{escape(note)}' if note else ''}</figcaption></figure>"
    )


def section(identity: str, title: str, *parts: str) -> str:
    """A section with a heading that the navigation points at."""
    return f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def words(column: str) -> str:
    """A column's name for people."""
    return escape(column.replace("_", " "))
