"""The audit's page: self-contained, small, escaped, and nothing on it that should not be read."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from corpus_maker import make_corpus, picture

from openus_data.audit import AuditRequest, audit
from openus_data.audit.pictures import unreadable
from openus_data.audit.pixels import mask_fault
from openus_data.audit.run import KNOWN_FINDINGS


def _page(tmp_path: Path, samples: list[dict[str, Any]], **options: Any) -> str:
    out = make_corpus(tmp_path / "out", samples, **options)
    audit(AuditRequest(outs=(out,), html=tmp_path / "audit.html", quiet=True))
    return (tmp_path / "audit.html").read_text()


@pytest.fixture
def page(tmp_path: Path) -> str:
    samples = [
        {"organ": ("breast", "thyroid", None)[k % 3], "device_manufacturer": ("ge", "philips")[k % 2], "dataset": d}
        for k, d in enumerate(["busi", "tn3k"] * 6)
    ]
    samples[0]["duplicate_group"] = samples[1]["duplicate_group"] = "0a" * 8
    return _page(tmp_path, samples)


class _Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def _outline(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Outline()
    parser.feed(page)
    return parser.seen


def test_nothing_is_loaded_from_outside_and_the_page_is_small(page: str) -> None:
    for _, attributes in _outline(page):
        for name in ("src", "href"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("data:", "#")), target
    assert "default-src 'none'" in page and len(page) < 1_500_000


def test_every_chart_has_its_table_and_every_link_its_section(page: str) -> None:
    seen = _outline(page)
    ids = {a["id"] for _, a in seen if "id" in a}
    canvases = [a for tag, a in seen if tag == "canvas"]
    assert len(canvases) >= 15 and all(a.get("aria-label") and a.get("role") == "img" for a in canvases)
    assert page.count("<summary>Table:") == len(canvases)
    assert all(str(a["href"])[1:] in ids for tag, a in seen if tag == "a")
    assert len(ids) == sum("id" in a for _, a in seen)


def test_the_cells_of_the_filter_add_up_to_all_images(page: str) -> None:
    found = re.search(r'id="audit-data">(.*?)</script>', page, re.S)
    assert found
    cells = json.loads(found.group(1))["cells"]
    assert sum(cells["images"]) == 12 and {"organ", "device_manufacturer"} <= set(cells["columns"])
    assert all(len(code) == len(cells["columns"]) for code in cells["codes"])


def test_pairs_of_near_duplicates_are_shown_and_datasets_cited(page: str) -> None:
    assert page.count('<div class="pair">') == 1 and "@misc{busi," in page


def test_markup_in_a_value_is_text(tmp_path: Path) -> None:
    page = _page(tmp_path, [{"device_model": "</script><img src=x onerror=alert(1)>"}])
    assert "<img" not in page and "&lt;img src=x" in page


@pytest.mark.parametrize("column", ["device_model", "institution", "subject_id", "sample_id", "organ"])
def test_a_name_in_any_column_is_not_on_the_page_nor_in_the_report(tmp_path: Path, column: str) -> None:
    name = "smith-jane" if column == "sample_id" else "SMITH^JANE"
    out = make_corpus(tmp_path / "out", [{column: name, "cone_confidence": 0.1}, {}])
    report = audit(AuditRequest(outs=(out,), html=tmp_path / "audit.html", by=(column,), quiet=True))
    said = (tmp_path / "audit.html").read_text() + json.dumps(report.to_json()) + report.to_text()
    assert name not in said and report.exit_code == 1


def test_text_in_a_thumbnail_cannot_be_read(tmp_path: Path) -> None:
    image = picture(3, 300, 400)
    for y in (60, 120, 180):
        cv2.putText(image, "SMITH JANE 07.03.1961", (40, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    page = _page(tmp_path, [{}], pixels={0: image})
    assert 'class="box"' in page
    for data in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page):
        small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert max(small.shape[:2]) <= 40


@pytest.mark.parametrize(("height", "width"), [(90, 60), (768, 1024), (33, 400)])
def test_thumbnails_are_at_least_three_times_smaller(height: int, width: int) -> None:
    small = unreadable(picture(1, height, width))
    assert max(small.shape[:2]) <= min(144, round(max(height, width) / 3) + 1) and small.shape[2] == 3


def test_masks_are_held_to_their_picture() -> None:
    inside = np.zeros((60, 80), bool)
    inside[10:50, 10:70] = True
    encode = lambda m: cv2.imencode(".png", m.astype(np.uint8))[1].tobytes()  # noqa: E731
    assert mask_fault(encode(inside), inside) == "" and mask_fault(encode(np.zeros((60, 80))), inside) == ""
    assert mask_fault(encode(inside[:-1]), inside) == "size"
    assert mask_fault(encode(~inside), inside) == "outside"
    assert mask_fault(b"no picture", inside) == "unreadable"


def test_a_name_in_a_samples_json_is_found(tmp_path: Path) -> None:
    out = make_corpus(tmp_path / "out", [{"labels": json.dumps({"who": "SMITH^JANE"})}])
    report = audit(AuditRequest(outs=(out,), quiet=True))
    assert {"header_like_metadata", "header_like_text"} <= {f.id for f in report.failing}


def test_the_reference_page_names_every_finding_and_every_key(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "audit.md").read_text()
    report = audit(AuditRequest(outs=(make_corpus(tmp_path / "out", [{}]),), quiet=True))
    assert all(f"`{name}`" in text for name in (*KNOWN_FINDINGS, *report.to_json().keys() - {"schema"}))
