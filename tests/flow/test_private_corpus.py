"""A private corpus of real frames with what scanners burn into them, looked at again by the audit."""

from __future__ import annotations

import shutil
from pathlib import Path

from command_line import openus_data

from openus_data.manifest import read_manifest

FRAMES = 16


def test_nothing_that_reads_like_text_is_left_in_what_a_private_build_kept(realdata: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for path in sorted((realdata / "annotated_frames").glob("*.png"))[:FRAMES]:
        shutil.copy(path, tmp_path / "scans")
    wanted = ("--images", "scans", "--name", "clinic", "--root", "data", "--out", "out", "--recipe", "private")
    built = openus_data("build", *wanted, cwd=tmp_path)
    assert built.returncode == 0, built
    rows = read_manifest(tmp_path / "out").to_pylist()
    assert len(rows) > FRAMES // 2 and any(r["text_boxes_removed"] for r in rows), "there was text, and it was filled"
    audited = openus_data("audit", "out", "--images", "all", "--strict", cwd=tmp_path)
    assert audited.returncode == 0, audited
