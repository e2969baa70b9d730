"""A dry run says about what the build then takes, of clips as of stills, and says in one line what is not there."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import av
import numpy as np
import pytest
from small_builds import inline, run_build, sector, write_pictures

from openus_data.build import BuildRequest, build

__all__ = ["inline"]


def write_clip(path: Path, seed: int, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 200, 160, "yuv420p"
        for number in range(frames):
            picture = np.pad(sector(seed + number), ((0, 10), (0, 0)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray8").reformat(format="yuv420p")))
        container.mux(stream.encode())


def test_clips_are_estimated_by_their_frames(tmp_path: Path, inline: None) -> None:
    for number in range(6):
        write_clip(tmp_path / f"images/p{number}/clip.mp4", 10 * number, 12)
    planned = run_build(tmp_path, tmp_path / "images", out="plan", dry_run=True).planned
    start = time.process_time()
    report = run_build(tmp_path, tmp_path / "images", workers=1)
    seconds = time.process_time() - start
    assert planned["files"] == 6 and planned["tried_files"] == 4
    assert 0.7 < planned["estimated_samples"] / report.samples < 1.4
    shards = sum(p.stat().st_size for p in (tmp_path / "out/shards").rglob("*.tar"))
    assert 0.5 < planned["disk_needed_bytes"] / (2 * shards) < 2
    assert 0.2 < planned["estimated_seconds"] * planned["workers"] / seconds < 5
    assert not (tmp_path / "plan").exists()


def test_a_file_that_cannot_be_read_does_not_end_a_dry_run(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", range(1))
    (tmp_path / "images/torn.png").write_bytes((tmp_path / "images/p0/000.png").read_bytes()[:300])
    planned = run_build(tmp_path, tmp_path / "images", dry_run=True).planned
    assert planned["files"] == 2 and planned["estimated_samples"] >= 1


def test_an_empty_folder_is_planned_too(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    planned = run_build(tmp_path, tmp_path / "images", dry_run=True).planned
    assert planned["files"] == 0 and planned["estimated_seconds"] == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_many_missing_datasets_are_one_line_and_all_in_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dry_run: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        report = build(BuildRequest(out=tmp_path / "out", root=tmp_path, dry_run=dry_run))
    assert len(caplog.records) == 1 and "42 datasets" in caplog.text and "--json" in caplog.text
    assert len(report.to_json()["missing"]) == 42 and report.exit_code == 1
    assert "not there" not in report.to_text()
    assert not any(name in report.to_text() for name in report.missing)


def test_one_missing_dataset_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "quick.yaml").write_text("datasets: [pydicom-us]")
    with caplog.at_level(logging.WARNING):
        report = build(BuildRequest(out=tmp_path / "out", root=tmp_path, recipe=str(tmp_path / "quick.yaml")))
    assert [r.getMessage() for r in caplog.records] == [
        "pydicom-us: its files are not there; openus-data fetch pydicom-us"
    ]
    assert "pydicom-us" not in report.to_text()
