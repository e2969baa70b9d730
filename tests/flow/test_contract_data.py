"""Every `openus-data` command keeps its documented answer: options, JSON, exit code, and which stream says what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import pytest
from command_line import openus_data, small_pictures, write_picture

from openus_data.schema import GEOMETRIES, MANIFEST_COLUMNS

LISTED = {"id", "title", "organ", "anatomy", "images", "openus_images", "access", "license"}
LISTED |= {"redistributable", "host", "role"}
DETECTED = {"file", "frames", "geometry", "polygon", "box", "confidence", "method", "text_boxes", "seconds"}


@pytest.fixture(scope="module")
def place(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in `scans`, and a corpus built of them in `out`."""
    folder = tmp_path_factory.mktemp("contract")
    for number, pixels in enumerate(small_pictures(realdata)[:8]):
        write_picture(folder / "scans" / f"p{number // 2}" / f"{number}.png", pixels)
    arguments = ("--images", "scans", "--name", "clinic", "--root", "root", "--out", "out", "--policy", "keep")
    answer = openus_data("build", *arguments, "--workers", 1, "--json", cwd=folder)
    assert answer.returncode == 0 and answer.stderr == "", answer
    assert json.loads(answer.stdout)["samples"] >= 4
    return folder


def said(*arguments: object, cwd: Path, code: int = 0) -> Any:
    """The one JSON object on standard output."""
    answer = openus_data(*arguments, "--json", cwd=cwd)
    assert answer.returncode == code, answer
    return json.loads(answer.stdout)


def test_list_has_the_documented_keys_and_the_published_sum(tmp_path: Path) -> None:
    datasets = said("list", "--openus", cwd=tmp_path)["datasets"]
    assert len(datasets) == 42 and sum(d["openus_images"] for d in datasets) == 309_364
    assert all(set(d) >= LISTED for d in datasets)
    some = said("list", "--organ", "breast", "--access", "open", "--license", "attribution", cwd=tmp_path)["datasets"]
    assert some and {(d["organ"], d["access"]) for d in some} == {("breast", "open")}


def test_show_says_licence_citation_and_how_to_obtain(tmp_path: Path) -> None:
    assert said("show", "busi", cwd=tmp_path)["id"] == "busi"
    text = openus_data("show", "echonet_dynamic").stdout
    assert "licence" in text and "cite" in text and "how to obtain it by hand" in text


def test_a_build_has_the_documented_files_and_columns(place: Path) -> None:
    out = place / "out"
    names = {"manifest.parquet", "rejects.parquet", "build.json", "datacard.md", "croissant.json"}
    assert names <= {p.name for p in out.iterdir()}
    assert pq.read_schema(out / "manifest.parquet").names == [c.name for c in MANIFEST_COLUMNS]
    assert pq.read_schema(out / "rejects.parquet").names == ["dataset", "item", "stage", "reason", "detail"]
    shards = sorted((out / "shards").rglob("*.tar"))
    assert shards and all(s.with_suffix(".json").is_file() for s in shards)
    assert {"samples", "sha256", "members"} <= set(json.loads(shards[0].with_suffix(".json").read_text()))
    key = place / "root" / "key"
    assert key.stat().st_mode & 0o077 == 0


def test_verify_audit_and_query_answer_with_one_object(place: Path) -> None:
    assert said("verify", "out", cwd=place)["ok"] is True
    assert said("audit", "out", "--by", "split", "--html", "page.html", cwd=place)
    assert "<html" in (place / "page.html").read_text()[:500].lower()
    answer = said("query", "out", "select count(*) n from manifest", cwd=place)
    assert answer["columns"] == ["n"] and answer["rows"][0][0] >= 4
    assert openus_data("query", "out", "select 1 x", "--csv", cwd=place).stdout.split() == ["x", "1"]


@pytest.mark.parametrize("sql", ["drop table manifest", "copy manifest to 'stolen.csv'", "select * from 'scans/*'"])
def test_a_query_reads_the_two_tables_and_nothing_else(place: Path, sql: str) -> None:
    answer = openus_data("query", "out", sql, cwd=place)
    assert answer.returncode == 2 and answer.stdout == "" and len(answer.stderr.splitlines()) == 1, answer
    assert not (place / "stolen.csv").exists()


def test_preview_draws_a_picture_and_a_page(place: Path) -> None:
    assert openus_data("preview", "out", "--out", "sheet.png", "-n", 4, cwd=place).returncode == 0
    assert cv2.imread(str(place / "sheet.png")) is not None
    assert openus_data("preview", "out", "--out", "sheet.html", "--by", "cone_geometry", cwd=place).returncode == 0
    assert "<img" in (place / "sheet.html").read_text()


def test_cone_gives_a_detection_per_file_in_pixels_of_the_original(place: Path) -> None:
    path = place / "scans" / "p0" / "0.png"
    height, width = cv2.imread(str(path)).shape[:2]
    (found,) = said("cone", path, "--overlay", "drawn", cwd=place)["detections"]
    assert set(found) >= DETECTED and found["geometry"] in GEOMETRIES and 0 <= found["confidence"] <= 1
    x0, y0, x1, y1 = found["box"]
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert len(list((place / "drawn").iterdir())) == 1


def test_check_card_counts_what_its_rules_match(place: Path, realdata: Path) -> None:
    card = Path(__file__).resolve().parents[2] / "manifests" / "busi.toml"
    write_picture(place / "busi" / "benign" / "benign (1).png", small_pictures(realdata)[0])
    write_picture(place / "busi" / "benign" / "benign (1)_mask.png", small_pictures(realdata)[0])
    answer = openus_data("check-card", card, "--files", place / "busi", "--json")
    assert json.loads(answer.stdout)["roles"].items() >= {"image": 1, "mask": 1}.items()


def test_a_dry_run_writes_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    arguments = ("--images", "scans", "--name", "dry", "--root", "new_root", "--out", "new_out", "--dry-run")
    assert said("build", *arguments, cwd=place)["dry_run"] is True
    assert said("fetch", "pydicom-us", "--root", "new_root", "--dry-run", cwd=place)["dry_run"] is True
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("show", "bussi"), 2, "busi"),
        (("fetch",), 2, "nothing to fetch"),
        (("fetch", "busi", "--from", "nowhere"), 2, "--from"),
        (("build", "pydicom-us", "--out", "o", "--policy", "mist"), 2, "policy"),
        (("build", "pydicom-us", "--out", "o", "--executor", "slurm"), 2, "executor"),
        (("build", "--images", "scans", "--out", "o"), 2, "--name"),
        (("build", "--images", "scans", "--name", "busi", "--out", "o"), 2, "public dataset"),
        (("build", "pydicom-us", "--root", "none", "--out", "o"), 1, "fetch pydicom-us"),
        (("audit", "out", "--by", "nocol"), 2, "nocol"),
        (("preview", "out", "--out", "sheet.gif"), 2, ".gif"),
        (("verify", "scans"), 1, "manifest.parquet"),
        (("deid", "nowhere", "clean"), 2, "SRC"),
        (("cone", "nowhere"), 2, "no such file"),
        (("unpack", "scans/p0/0.png", "--out", "x"), 1, "not an archive"),
        (("check-card", "nowhere.toml"), 2, "nowhere.toml"),
        (("list", "--organ", "brest"), 2, "breast"),
    ],
)
def test_a_fault_is_one_line_on_standard_error(place: Path, arguments: tuple[str, ...], code: int, word: str) -> None:
    answer = openus_data(*arguments, cwd=place)
    assert answer.returncode == code and word in answer.stderr, answer
    assert len(answer.stderr.splitlines()) == 1, answer
    assert code == 1 or answer.stdout == "", answer
    assert not (place / "o").exists() or not any((place / "o").rglob("*.tar"))
