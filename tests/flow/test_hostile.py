"""Every hostile file in one folder: each costs one row, the good ones go through, and no text of one leaks."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, openus_data

from openus_data.manifest import read_manifest, read_rejects

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(TESTS))

import hostile  # noqa: E402  # the helpers lie beside the tests of openus_data
from planted import speckle  # noqa: E402

HOSTILE = dict(hostile.hostile_files())
GOOD = 3
ODD_NAMES = (b"caf\xe9.png", b"\x1b[31mred.png", b"new\nline.png", b"two  spaces.png")
BUILD = (
    "--images",
    "scans",
    "--name",
    "clinic",
    "--root",
    "root",
    "--out",
    "out",
    "--policy",
    "keep",
    "--workers",
    "2",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of hostile files, good ones, odd names, a pipe and links."""
    folder = tmp_path_factory.mktemp("hostile")
    scans = folder / "scans"
    scans.mkdir()
    for name, content in HOSTILE.items():
        (scans / name).write_bytes(content)
    for number in range(GOOD):
        made = hostile.dataset(speckle(240, 320, seed=number), PatientID=f"SECRET{number}")
        (scans / f"good_{number}.dcm").write_bytes(hostile.dicom(made))
    for number, name in enumerate(ODD_NAMES):
        path = os.fsencode(scans) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(hostile.png(speckle(240, 320, seed=10 + number)))
    os.mkfifo(scans / "pipe.dcm")
    (scans / "loop").symlink_to("loop")
    (scans / "round").symlink_to(".")
    return folder


@pytest.fixture(scope="module")
def built(place: Path) -> Answer:
    """One build."""
    return openus_data("build", *BUILD, cwd=place)


def test_every_hostile_file_costs_one_row(place: Path, built: Answer) -> None:
    """Accounting (N1): every entry of the folder is a sample or a reject, and none is both."""
    assert built.returncode == 1, built
    rejects = read_rejects(place / "out").to_pylist()
    rows = read_manifest(place / "out").num_rows
    assert rows == GOOD + len(ODD_NAMES) - 1, rejects
    assert max(Counter(reject["item"] for reject in rejects).values()) == 1
    assert len(rejects) + rows == len(list((place / "scans").iterdir()))
    assert Counter(reject["stage"] for reject in rejects) == {"decode": len(HOSTILE), "list": 4}


def test_no_line_holds_text_of_a_file_or_what_a_terminal_obeys(place: Path, built: Answer) -> None:
    said = built.stdout + built.stderr + json.dumps(read_rejects(place / "out").to_pylist())
    assert "SECRET" not in said and "\x1b" not in said and "19610307" not in said
    assert not [name for name in HOSTILE if name in said]


def test_the_audit_takes_no_reason_for_a_leak(place: Path, built: Answer) -> None:
    answer = openus_data("audit", "out", "--images", "none", "--sources", "scans", "--strict", "--json", cwd=place)
    assert answer.returncode == 0, [finding["title"] for finding in json.loads(answer.stdout)["findings"]]


def test_the_manifest_can_be_rebuilt_from_the_shards_alone(place: Path, built: Answer) -> None:
    """Statement D11: each sample's JSON is its row, and where it lies is known from the tar."""
    rebuilt = {}
    for shard in (place / "out" / "shards").rglob("*.tar"):
        with tarfile.open(shard) as archive:
            members = archive.getmembers()
            images = {m.name.partition(".")[0]: m for m in members if not m.name.endswith((".json", ".mask.png"))}
            for member in (m for m in members if m.name.endswith(".json")):
                handle = archive.extractfile(member)
                row = json.loads(handle.read()) if handle else {}
                image = images[row["sample_id"]]
                address = {"offset": image.offset_data, "size_bytes": image.size}
                rebuilt[row["sample_id"]] = row | address | {"shard": shard.relative_to(place / "out").as_posix()}
    assert rebuilt == {row["sample_id"]: row for row in read_manifest(place / "out").to_pylist()}


def test_deid_goes_through_the_same_folder(place: Path) -> None:
    answer = openus_data("deid", "scans", "clean", "--key-file", "key", "--json", cwd=place)
    report = json.loads(answer.stdout)
    assert answer.returncode == 1 and report["counts"]["written"] == GOOD, report["counts"]
    assert sum(report["counts"].values()) == len(list((place / "scans").iterdir())) == len(report["files"])
    assert "SECRET" not in answer.stdout + answer.stderr and "\x1b" not in answer.stderr
    assert len(list((place / "clean").iterdir())) == GOOD


def test_cone_goes_through_the_same_folder(place: Path) -> None:
    answer = openus_data("cone", "scans", cwd=place)
    assert answer.returncode == 1 and answer.stderr == "" and "\x1b" not in answer.stdout
    assert len(answer.stdout.splitlines()) >= len(HOSTILE) + GOOD + len(ODD_NAMES)
    assert np.all([line.startswith("scans/") for line in answer.stdout.splitlines()])
