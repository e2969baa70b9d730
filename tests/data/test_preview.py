"""Contact sheets and galleries: the right pictures, the outline where it belongs, nothing from outside."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from corpus_maker import make_corpus

from openus_data.errors import CorpusError, UsageError
from openus_data.preview import preview


@pytest.fixture
def out(tmp_path: Path) -> Path:
    samples = [
        {"organ": "breast" if k % 2 else None, "text_boxes_removed": [[10.0, 10.0, 60.0, 24.0]]} for k in range(8)
    ]
    return make_corpus(tmp_path / "out", samples)


def test_a_contact_sheet_shows_the_pictures_with_outline_and_boxes(out: Path, tmp_path: Path) -> None:
    report = preview(out, tmp_path / "sheet.png", count=6)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert report.shown == 6 and sheet.shape[1] > 6 * 240
    tile = sheet[8:248, 8:248, ::-1].astype(int)
    for colour in ((90, 220, 130), (255, 120, 70)):
        assert np.abs(tile - colour).max(axis=2).min() < 60


def test_groups_get_an_even_share_and_unknown_is_one(out: Path, tmp_path: Path) -> None:
    report = preview(out, tmp_path / "sheet.html", by="organ", count=4)
    page = (tmp_path / "sheet.html").read_text()
    assert report.groups == ("organ: breast", "organ: unknown") and page.count("<figure>") == 4
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_corpus_gives_the_same_sheet(out: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        preview(out, tmp_path / name, by="split")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_unknown_column_suffix_or_folder_is_named(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such column"):
        preview(out, tmp_path / "a.png", by="colour_of_eyes")
    with pytest.raises(UsageError, match="pdf"):
        preview(out, tmp_path / "a.pdf")
    with pytest.raises(CorpusError, match="no finished build"):
        preview(tmp_path / "nowhere", tmp_path / "a.png")
