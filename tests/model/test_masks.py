"""The paper's figure for a folder of pictures: a row per image, drawn alike each time; exports cannot draw it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_corpus

from openus_model.errors import DataError, WeightsError
from openus_model.export import export
from openus_model.masks import draw_masks
from openus_model.pretrain import pretrain


def test_the_figure_has_a_row_per_picture_and_repeats(tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "out", 8, size=64)
    pretrain("smoke", data, tmp_path / "run", ["schedule.steps=1", "engine.figure_every=0"], quiet=True)
    scans = tmp_path / "scans"
    scans.mkdir()
    for k in range(3):
        picture = np.random.default_rng(k).integers(0, 256, (70, 90), dtype=np.uint8)
        cv2.imwrite(str(scans / f"{k}.png"), picture)
    (scans / "torn.png").write_bytes(b"no picture")
    report = draw_masks(tmp_path / "run", scans, tmp_path / "a.png")
    assert report.images == 3 and report.unreadable == 1 and report.exit_code == 1
    assert report.hidden_share == pytest.approx(0.75)  # three of four cells: 60 %, rounded up
    figure = cv2.imread(str(tmp_path / "a.png"))
    assert figure.shape[0] > 3 * 192 and figure.shape[1] >= 5 * 192
    draw_masks(tmp_path / "run", scans, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    export(tmp_path / "run", tmp_path / "given")
    with pytest.raises(WeightsError, match="needs the student"):
        draw_masks(tmp_path / "given", scans, tmp_path / "c.png")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="got 1 that are no pictures"):
        draw_masks(tmp_path / "run", tmp_path / "torn", tmp_path / "c.png")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no picture"):
        draw_masks(tmp_path / "run", tmp_path / "none", tmp_path / "c.png")
