"""Files that say something about many images: CSV, plain lists, JSON and XLSX, read into rows of text by key.

rows = read_rows(table, path)              # [{"ID": "bus_0001-l", "Pathology": "benign"}, ...]
by_key = read_table(table, [path])         # {"bus_0001-l": {...}}
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from xml.etree import ElementTree

from openus_data.card_fields import Table
from openus_data.errors import DecodeError
from openus_data.patterns import key_of

LARGEST_TABLE_BYTES: Final = 512 << 20
WHITESPACE: Final = "whitespace"
"""Delimiter of files whose columns are parted by runs of blanks."""

OWN_NAME: Final = "@key"
"""Column under which a JSON object's members carry their own names."""

_SHEET_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
Row = dict[str, str]


def read_table(table: Table, paths: Sequence[Path]) -> dict[str, Row]:
    """The rows of a card's table by the key that names an image, folded to lower case.

    Args:
        table: the card's rule.
        paths: the files that it picked; of two rows with one key the first stands.

    Raises:
        DecodeError: a file is not readable as such a table, or lacks the key's column, or there is no row.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for row in read_rows(table, path):
            if table.key not in row:
                raise DecodeError(
                    "a table lacks its key column", where=table.name, expected=repr(table.key), got=_heads(row)
                )
            key = row_key(table, row[table.key])
            if key:
                rows.setdefault(key, row)
    if not rows:
        raise DecodeError("a table without a row", where=table.name)
    return rows


def row_key(table: Table, cell: str) -> str | None:
    """The key in a cell, folded to lower case: by the card's rule, else the name without folder and image suffix."""
    if table.key_rule:
        key = key_of(table.key_rule, cell)
        return key.casefold() if key else None
    name = PurePosixPath(cell.strip().replace("\\", "/")).name
    return (
        re.sub(r"\.(png|jpe?g|bmp|tiff?|dcm|mp4|avi|mha|nii|nii\.gz)$", "", name, flags=re.IGNORECASE)
    ).casefold() or None


def read_rows(table: Table, path: Path) -> Iterator[Row]:
    """The rows of one file as text by column, stripped.

    Raises:
        DecodeError: not readable as a table.
    """
    if path.stat().st_size > LARGEST_TABLE_BYTES:
        raise DecodeError("too large for a table", where=table.name, expected=f"at most {LARGEST_TABLE_BYTES} bytes")
    try:
        if path.suffix.lower() == ".json":
            yield from _json_rows(table, path)
        elif path.suffix.lower() == ".xlsx":
            yield from _with_heads(_xlsx_cells(path, table.sheet), table)
        else:
            yield from _with_heads(_csv_cells(table, path), table)
    except (
        ValueError,
        KeyError,
        IndexError,
        csv.Error,
        zipfile.BadZipFile,
        ElementTree.ParseError,
        EOFError,
        RecursionError,
    ) as error:
        raise DecodeError("a table cannot be read", where=table.name, got=type(error).__name__) from error


def member_of(cell: str, name: str) -> str | None:
    """A member of the JSON object that a cell holds, as text; None where it holds none."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, Mapping) else None
    return str(value).strip() if isinstance(value, str | int | float) else None


def _with_heads(lines: Iterable[list[str]], table: Table) -> Iterator[Row]:
    heads: Sequence[str] = table.columns
    for cells in lines:
        if not any(cells):
            continue
        if not heads:
            heads = cells
            continue
        yield {head: cell for head, cell in zip(heads, cells, strict=False) if head}


def _csv_cells(table: Table, path: Path) -> Iterator[list[str]]:
    text = path.read_text("utf-8-sig", errors="replace")
    if table.delimiter == WHITESPACE:
        yield from (line.split() for line in text.splitlines())
        return
    for cells in csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter):
        yield [c.strip() for c in cells]


def _json_rows(table: Table, path: Path) -> Iterator[Row]:
    node = json.loads(path.read_text("utf-8-sig", errors="replace"))
    for step in [s for s in table.records.split(".") if s]:
        node = node[step]
    if isinstance(node, Mapping):
        members = [(name, value if isinstance(value, Mapping) else {"value": value}) for name, value in node.items()]
        records = [{OWN_NAME: name, **value} for name, value in members]
    elif isinstance(node, list):
        records = [dict(value) if isinstance(value, Mapping) else {"value": value} for value in node]
    else:
        raise ValueError("neither a list nor an object")
    for record in records:
        yield {str(k): "" if v is None else str(v).strip() for k, v in record.items()}


def _xlsx_cells(path: Path, sheet: int) -> Iterator[list[str]]:
    """Cells of one sheet; a workbook is a zip of XML (ECMA-376 part 1, section 18)."""
    with zipfile.ZipFile(path) as book:
        names = [n for n in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n)]
        names.sort(key=lambda n: int(re.findall(r"\d+", n)[0]))
        shared = _shared_texts(book)
        root = _xml(book, names[sheet])
    for row in root.iter(f"{_SHEET_NAMESPACE}row"):
        cells: list[str] = []
        for cell in row.iter(f"{_SHEET_NAMESPACE}c"):
            column = _column_number(cell.get("r", ""))
            cells.extend([""] * (column - len(cells)))
            cells.append(_cell_text(cell, shared))
        yield cells


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return ["".join(t.text or "" for t in i.iter(f"{_SHEET_NAMESPACE}t")) for i in _xml(book, "xl/sharedStrings.xml")]


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > LARGEST_TABLE_BYTES:
        raise ValueError("a sheet beyond the stated bound")
    return ElementTree.fromstring(book.read(name))


def _column_number(reference: str) -> int:
    """0-based column of a reference such as `AB12`."""
    number = 0
    for letter in re.match(r"[A-Z]*", reference)[0]:  # type: ignore[index]  # the pattern always matches
        number = number * 26 + ord(letter) - 64
    return max(number - 1, 0)


def _cell_text(cell: ElementTree.Element, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(t.text or "" for t in cell.iter(f"{_SHEET_NAMESPACE}t")).strip()
    value = cell.findtext(f"{_SHEET_NAMESPACE}v") or ""
    return (shared[int(value)] if cell.get("t") == "s" else re.sub(r"^(-?\d+)\.0$", r"\1", value)).strip()


def _heads(row: Row) -> str:
    return ", ".join(list(row)[:12])
