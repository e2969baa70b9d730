"""`image.view: polar` stores beam space: picture, mask and row fit each other, and what has no beams says so."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_builds import TOY_CARD, inline, run_build, tree

from openus_data.build import BuildRequest, build
from openus_data.card import load_card
from openus_data.cone import detect
from openus_data.first_stage.encode import decode_stored
from openus_data.manifest import read_manifest
from openus_data.phantom import phantom
from openus_data.shards import read_member

__all__ = ["inline"]
SHAPES = ("sector", "curvilinear", "linear")


@pytest.fixture
def recipes(tmp_path: Path) -> dict[str, str]:
    """Paths of two recipes that differ in the view alone."""
    for view in ("scan", "polar"):
        (tmp_path / f"{view}.yaml").write_text(f"image: {{view: {view}}}")
    return {view: str(tmp_path / f"{view}.yaml") for view in ("scan", "polar")}


def build_toy(tmp: Path, recipe: str, out: str) -> list[dict[str, Any]]:
    """Three phantoms, each with a mask that covers the near half of the frame, as a public dataset."""
    files = tmp / "root/toy/files"
    for part in ("images", "masks"):
        (files / part).mkdir(parents=True, exist_ok=True)
    for number, shape in enumerate(SHAPES):
        image = phantom(31, geometry=shape, width=400, height=300).image
        cv2.imwrite(str(files / "images" / f"p{number}_{number}.png"), image)
        mask = np.zeros((300, 400), np.uint8)
        mask[:150] = 255
        cv2.imwrite(str(files / "masks" / f"p{number}_{number}.png"), mask)
    (tmp / "toy.toml").write_text(TOY_CARD)
    card = load_card(tmp / "toy.toml")
    build(BuildRequest(out=tmp / out, root=tmp / "root", cards=(card,), recipe=recipe, policy="keep", quiet=True))
    return list(read_manifest(tmp / out).to_pylist())


def test_picture_mask_and_row_are_in_beam_space(tmp_path: Path, inline: None, recipes: dict[str, str]) -> None:
    polar = {r["sample_id"]: r for r in build_toy(tmp_path, recipes["polar"], "polar")}
    scan = {r["sample_id"]: r for r in build_toy(tmp_path, recipes["scan"], "scan")}
    assert len(polar) == 3 and polar.keys() == scan.keys()
    for name, row in polar.items():
        pixels = decode_stored(read_member(tmp_path / "polar", row))
        width, height = row["width_px"], row["height_px"]
        assert pixels.shape[:2] == (height, width) and "not_polar" not in row["quality"]
        assert row["cone_polygon"] == [[0, 0], [width, 0], [width, height], [0, height]]
        assert row["spacing_row_mm"] is None and row["spacing_col_mm"] is None
        assert (row["cone_box"], row["cone_geometry"]) == (scan[name]["cone_box"], scan[name]["cone_geometry"])
        assert row["pixel_sha256"] != scan[name]["pixel_sha256"] and np.mean(pixels > 0) > 0.85
        with tarfile.open(tmp_path / "polar" / row["shard"]) as tar:
            member = tar.extractfile(f"{name}.mask.png")
            assert member is not None
            mask = decode_stored(member.read())
        assert mask.shape == pixels.shape[:2] and set(np.unique(mask)) == {0, 1}
        assert mask[2].all() and not mask[-2, width // 2]


def test_what_has_no_beams_stays_as_it_is_and_is_flagged(tmp_path: Path, inline: None, recipes: dict[str, str]) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    full = cv2.GaussianBlur(rng.integers(0, 255, (150, 200), dtype=np.uint8), (0, 0), 1.5)
    full = cv2.normalize(full, None, 20, 250, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    assert detect(full).geometry == "full"
    cv2.imwrite(str(tmp_path / "images/full.png"), full)
    for view in ("scan", "polar"):
        run_build(tmp_path, tmp_path / "images", out=view, recipe=recipes[view])
    (scan,), (polar,) = (read_manifest(tmp_path / view).to_pylist() for view in ("scan", "polar"))
    assert polar["quality"] == sorted([*scan["quality"], "not_polar"])
    assert {k for k in polar if polar[k] != scan[k]} <= {"quality", "offset"}


def test_two_builds_are_equal_and_another_view_is_another_build(
    tmp_path: Path, inline: None, recipes: dict[str, str]
) -> None:
    build_toy(tmp_path, recipes["polar"], "one")
    build_toy(tmp_path, recipes["polar"], "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    before = tree(tmp_path / "one")
    build_toy(tmp_path, recipes["scan"], "one")
    assert tree(tmp_path / "one") != before
    build_toy(tmp_path, recipes["polar"], "one")
    assert tree(tmp_path / "one") == before
