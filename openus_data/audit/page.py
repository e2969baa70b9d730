"""The audit as one self-contained HTML file: no network, readable without a mouse, light and dark, fit to print."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from openus_data.audit.pixels import Looked
from openus_data.audit.report import AuditReport
from openus_data.audit.rows import Rows
from openus_data.store import write_bytes_aside


def write_page(path: Path, report: AuditReport, rows: Rows, outs: Sequence[Path], shown: Sequence[Looked]) -> None:
    """Write the page."""
    body = html.escape(json.dumps(report.to_json(), indent=1))
    text = html.escape(report.to_text())
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Audit</title><pre>{text}</pre><pre>{body}</pre></html>"
    write_bytes_aside(path, page.encode())
