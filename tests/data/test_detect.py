"""`openus-data cone`: JSON of the contract, overlays, and files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from openus_data.detect import detect_paths
from openus_data.errors import UsageError
from openus_data.phantom import phantom


def write_phantom(folder: Path, name: str = "scan.png") -> Path:
    path = folder / name
    cv2.imwrite(str(path), phantom(11, geometry="linear", width=320, height=240).image)
    return path


def test_a_picture_gives_one_detection_of_the_contract(tmp_path: Path) -> None:
    report = detect_paths([write_phantom(tmp_path)])
    (entry,) = json.loads(json.dumps(report.to_json()))["detections"]
    wanted = {"file", "frames", "geometry", "polygon", "box", "confidence", "method", "text_boxes", "seconds"}
    assert wanted <= entry.keys()
    assert entry["frames"] == 1 and entry["geometry"] == "linear"
    x0, y0, x1, y1 = entry["box"]
    assert 0 <= x0 < x1 <= 320 and 0 <= y0 < y1 <= 240
    assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in entry["polygon"])
    assert report.exit_code == 0


def test_overlays_are_drawn_under_numbers_not_under_the_files_names(tmp_path: Path) -> None:
    path = write_phantom(tmp_path, "DOE_JANE.png")
    report = detect_paths([path], overlay=tmp_path / "drawn")
    (drawn,) = (tmp_path / "drawn").iterdir()
    assert drawn.name == "00001.png" == report.detections[0].overlay
    picture = cv2.imread(str(drawn))
    assert picture is not None and picture.shape == (240, 320, 3)


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_phantom(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").write_text("left out")
    report = detect_paths([tmp_path])
    assert len(report.detections) == 1 and len(report.failed) == 1
    assert report.exit_code == 1
    assert len(report.to_text().splitlines()) == 2


def test_a_missing_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        detect_paths([tmp_path / "nowhere.png"])


def test_the_panels_of_a_dual_screen_are_a_list_of_polygons(tmp_path: Path) -> None:
    path = tmp_path / "dual.png"
    cv2.imwrite(str(path), phantom(12, geometry="multi", width=480, height=320).image)
    entry = json.loads(json.dumps(detect_paths([path]).to_json()))["detections"][0]
    assert entry["geometry"] == "multi"
    assert len(entry["polygon"]) == 2 and len(entry["polygon"][0][0]) == 2


def test_a_name_that_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "red\x1b[31m\nline.png").write_bytes(b"no picture")
    write_phantom(tmp_path, "blue\x1b[34m.png")
    lines = detect_paths([tmp_path]).to_text().splitlines()
    assert len(lines) == 2 and "\x1b" not in "".join(lines)
    assert r"blue\x1b[34m.png" in lines[0] and r"red\x1b[31m\nline.png" in lines[1]
