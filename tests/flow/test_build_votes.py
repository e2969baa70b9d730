"""Doubtful scan areas are cut where most of their kind are, and how the build went makes no difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_builds import InlineExecutor, inline, run_build, sector, tree, write_pictures
from test_build_repeats import Killed, start

from openus_data import build as build_module
from openus_data.first_stage import folder as staging
from openus_data.manifest import read_manifest
from openus_data.verify import verify

__all__ = ["inline"]
USUAL = range(8)


def write_faint(path: Path, seed: int = 7) -> None:
    """A sector so faint, and so deep in shadow on one side, that its outline alone is a guess."""
    faint = sector(seed) * (np.random.default_rng(0).random((150, 200)) > 0.3) * 0.1
    faint[:, 120:] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), faint.astype(np.uint8))


def rows(out: Path) -> list[dict[str, Any]]:
    return list(read_manifest(out).to_pylist())


def mended(out: Path) -> list[dict[str, Any]]:
    return [row for row in rows(out) if row["cone_method"] == "consensus"]


def test_a_faint_picture_is_cut_where_the_others_are(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", USUAL)
    write_faint(tmp_path / "images/p9/faint.png")
    report = run_build(tmp_path, tmp_path / "images")
    (faint,) = mended(tmp_path / "out")
    usual = {tuple(row["cone_box"]) for row in rows(tmp_path / "out") if row["cone_method"] != "consensus"}
    assert tuple(faint["cone_box"]) in usual and len(report.hints) == 1
    assert verify(tmp_path / "out").faults == ()
    (tmp_path / "own.yaml").write_text("image: {consensus: false}")
    run_build(tmp_path, tmp_path / "images", out="own", recipe=str(tmp_path / "own.yaml"))
    own = {row["sample_id"]: row for row in rows(tmp_path / "own")}[faint["sample_id"]]
    assert tuple(own["cone_box"]) not in usual
    assert {r["pixel_sha256"] for r in rows(tmp_path / "own")} ^ {
        r["pixel_sha256"] for r in rows(tmp_path / "out")
    } == {
        own["pixel_sha256"],
        faint["pixel_sha256"],
    }


def test_few_pictures_and_other_datasets_say_nothing(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(3))
    write_faint(tmp_path / "images/p9/faint.png")
    write_pictures(tmp_path / "more", range(10, 18))
    run_build(tmp_path, tmp_path / "images")
    run_build(tmp_path, tmp_path / "more", name="other")
    assert mended(tmp_path / "out") == []


def test_a_vote_that_changes_its_mind_is_followed(tmp_path: Path, inline: None) -> None:
    """Pictures that come and go give the bytes of one build of what is there."""
    write_faint(tmp_path / "images/p9/faint.png")
    for seeds, expected in ((range(3), 0), (USUAL, 1)):
        write_pictures(tmp_path / "images", seeds)
        run_build(tmp_path, tmp_path / "images")
        assert len(mended(tmp_path / "out")) == expected
    again = run_build(tmp_path, tmp_path / "images")
    assert (again.is_changed, again.worked_on) == (False, 0)
    for seed in USUAL[3:]:
        (tmp_path / f"images/p{seed // 2}/{seed:03d}.png").unlink()
    run_build(tmp_path, tmp_path / "images")
    assert mended(tmp_path / "out") == []
    run_build(tmp_path, tmp_path / "images", out="fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("kept", [1, 9, 10, 11])
def test_a_kill_while_files_are_mended_changes_nothing(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    write_pictures(tmp_path / "images", USUAL)
    for seed in (7, 8):
        write_faint(tmp_path / f"images/p9/faint{seed}.png", seed)
    run_build(tmp_path, tmp_path / "images", out="plain")
    assert len(mended(tmp_path / "plain")) == 2
    real, left = staging.Staging.keep, [kept]

    def killed(self: staging.Staging, *args: Any) -> None:
        real(self, *args)
        left[0] -= 1
        if not left[0]:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "keep", killed)
        with pytest.raises(Killed):
            run_build(tmp_path, tmp_path / "images")
    run_build(tmp_path, tmp_path / "images")
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_worker_processes_in_any_order_mend_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "images", USUAL)
    write_faint(tmp_path / "images/p9/faint.png")
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "open_executor", lambda *args, **options: InlineExecutor())
        run_build(tmp_path, tmp_path / "images", out="plain")
    assert len(mended(tmp_path / "plain")) == 1
    assert start(tmp_path, "out", 2).wait() == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")
