"""What bad input gets: a line, a row in the rejects, exit code 1, and everything else done."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import webdataset
from command_line import Answer, openus_data, small_pictures, write_picture
from small_builds import times

from openus_data.manifest import read_manifest, read_rejects
from openus_model.stream import ShardStream
from openus_model.views import CropGroup

CANARY = "DOE-JANE-19480317"
BUILD = ("--images", CANARY, "--name", "clinic", "--root", "root", "--out", "out", "--policy", "keep", "--workers", "1")


@pytest.fixture(scope="module")
def place(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private folder of good and bad files under a patient's name."""
    folder = tmp_path_factory.mktemp("bad")
    scans = folder / CANARY
    for number, pixels in enumerate(small_pictures(realdata)[:6]):
        write_picture(scans / f"{CANARY}_{number}.png", pixels)
    whole = (scans / f"{CANARY}_0.png").read_bytes()
    (scans / f"{CANARY}_cut.png").write_bytes(whole[: len(whole) // 2])
    (scans / f"{CANARY}_text.dcm").write_text(f"{CANARY} is no DICOM\n")
    (scans / f"{CANARY}_none.png").write_bytes(b"")
    write_picture(scans / f"{CANARY}_dot.png", np.full((1, 1), 200, np.uint8))
    write_picture(scans / f"{CANARY}_black.png", np.zeros((120, 160), np.uint8))
    os.mkfifo(scans / f"{CANARY}_pipe.png")
    (scans / f"{CANARY}_loop").symlink_to(scans)
    (scans / f"{CANARY}_locked.png").write_bytes(whole[:50])
    (scans / f"{CANARY}_locked.png").chmod(0)
    return folder


@pytest.fixture(scope="module")
def built(place: Path) -> Answer:
    """The first build."""
    return openus_data("build", *BUILD, cwd=place)


def everything(folder: Path) -> Iterator[bytes]:
    """Bytes and name of every file below a folder."""
    for path in sorted(folder.rglob("*")):
        yield path.name.encode()
        if path.is_file():
            yield path.read_bytes()


def test_bad_files_cost_a_row_each_and_the_good_ones_go_through(place: Path, built: Answer) -> None:
    assert built.returncode == 1, built
    assert read_manifest(place / "out").num_rows == 6
    rejects = read_rejects(place / "out").to_pylist()
    assert len(rejects) == 8, rejects
    stages = sorted(r["stage"] for r in rejects)
    assert stages.count("list") >= 2 and stages.count("decode") >= 3, rejects


def test_nothing_printed_or_written_names_the_source(place: Path, built: Answer) -> None:
    assert CANARY not in built.stdout + built.stderr
    assert not any(CANARY.encode() in content for content in everything(place / "out"))


def test_a_second_run_does_nothing(place: Path, built: Answer) -> None:
    before = times(place / "out")
    again = openus_data("build", *BUILD, "--json", cwd=place)
    assert again.returncode == 1 and json.loads(again.stdout)["changed"] is False, again
    assert times(place / "out") == before


def test_a_held_folder_is_said_in_one_line(place: Path, built: Answer) -> None:
    with (place / "out" / ".lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        answer = openus_data("build", *BUILD, cwd=place)
    assert answer.returncode == 1 and "another run works in this folder" in answer.stderr, answer
    assert len(answer.stderr.splitlines()) == 1 and answer.stdout == ""


def test_ctrl_c_gives_130_and_the_next_run_goes_on(place: Path, built: Answer) -> None:
    arguments = [sys.executable, "-m", "openus_data.cli", "build", *BUILD[:7], "stopped", *BUILD[8:]]
    with subprocess.Popen(arguments, cwd=place, stdout=-1, stderr=-1, text=True, start_new_session=True) as process:
        while not (place / "stopped" / ".lock").exists() and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    assert stderr.strip().splitlines()[-1].endswith("run the same command again to go on"), stderr
    assert not (place / "stopped" / "manifest.parquet").exists()


def test_empty_folders_and_misspelt_recipes_are_said(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.yaml").write_text("splitt: {}\n")
    common = ("--name", "clinic", "--root", "root", "--out", "o")
    answer = openus_data("build", "--images", "empty", *common, cwd=tmp_path)
    assert answer.returncode == 1 and answer.stderr.splitlines() == [
        "clinic: its folder holds no picture; look at --images"
    ], answer
    for option in ("--root", "--out"):
        wrong = ("--name", "clinic", "--root", "root", "--out", "o", option, "mine.yaml/there")
        answer = openus_data("build", "--images", "empty", *wrong, cwd=tmp_path)
        assert answer.returncode == 2 and f"{option}: cannot be written" in answer.stderr, answer
    answer = openus_data("build", "--images", "empty", *common, "--recipe", "mine.yaml", cwd=tmp_path)
    assert answer.returncode == 2 and "split" in answer.stderr and len(answer.stderr.splitlines()) == 1, answer


def flip(out: Path) -> None:
    """One bit in the middle of a shard."""
    path = next((out / "shards").rglob("*.tar"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose(out: Path) -> None:
    """A shard is gone."""
    next((out / "shards").rglob("*.tar")).unlink()


def orphan(out: Path) -> None:
    """A shard that nobody knows, with the sidecar of another."""
    path = next((out / "shards").rglob("*.tar"))
    for suffix in (".tar", ".json"):
        shutil.copy(path.with_suffix(suffix), path.with_name("openus-pretrain-000099" + suffix))


def swap(out: Path) -> None:
    """Two members of equal length change places."""
    path = next((out / "shards").rglob("*.tar"))
    members = json.loads(path.with_suffix(".json").read_text())["members"]
    first, second = [m for m in members if str(m["name"] if isinstance(m, dict) else m[0]).endswith(".png")][:2]
    content = bytearray(path.read_bytes())
    starts = [m["offset"] if isinstance(m, dict) else m[1] for m in (first, second)]
    one, two = (bytes(content[s - 512 : s - 412]) for s in starts)
    content[starts[0] - 512 : starts[0] - 412], content[starts[1] - 512 : starts[1] - 412] = two, one
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lose, orphan, swap])
def test_verify_finds_damage(place: Path, built: Answer, damage: Callable[[Path], None], tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "copy")
    damage(tmp_path / "copy")
    answer = openus_data("verify", "copy", "--json", cwd=tmp_path)
    assert answer.returncode == 1 and json.loads(answer.stdout)["faults"], answer


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_the_stock_reader_and_the_trainers_stream_read_the_shards(place: Path, built: Answer) -> None:
    ids = set(read_manifest(place / "out").column("sample_id").to_pylist())
    urls = sorted(str(p) for p in (place / "out" / "shards").rglob("*.tar"))
    read = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False).decode("rgb")}
    assert set(read) == ids and all(s["png"].ndim == 3 and s["json"]["sample_id"] == k for k, s in read.items())
    stream = ShardStream(place / "out", batch_size=2, groups=(CropGroup(count=2, size=64, scale=(0.3, 1.0)),))
    batch = next(iter(stream))
    assert len(batch.sample_ids) == 2 and set(batch.sample_ids) <= ids


CARD = """
id = "toy"
title = "Toy"
homepage = "https://example.org"
role = "pretrain"
access = "open"
host = "institutional"
organ = "breast"
anatomy = ["breast"]
[citation]
text = "Nobody"
[license]
terms = "none"
class = "unknown"
redistributable = false
[[downloads]]
source = "http"
locator = "https://example.org/toy.zip"
filename = "toy.zip"
checksum = "sha256:{}"
[[images]]
match = ["images/*.png"]
[subject]
fallback = "image"
"""


class Quiet(SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over HTTP on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("over_http", [False, True])
def test_a_mirrors_wrong_file_is_refused_and_its_right_one_taken(tmp_path: Path, over_http: bool) -> None:
    archive = tmp_path / "mirror" / "toy" / "toy.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("images/1.png", b"x" * 100)
    right = archive.read_bytes()
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "toy.toml").write_text(CARD.format(hashlib.sha256(right).hexdigest()))
    with served(tmp_path / "mirror") as url:
        base = url if over_http else str(tmp_path / "mirror")
        fetch = ("fetch", "toy", "--cards", "cards", "--root", "root", "--mirror", base)
        archive.write_bytes(right.replace(b"x" * 100, b"y" * 100))
        answer = openus_data(*fetch, cwd=tmp_path)
        assert answer.returncode == 1 and "FAILED" in answer.stdout, answer
        assert not (tmp_path / "root" / "toy" / "files").exists()
        assert not (tmp_path / "root" / "toy" / "archives" / "toy.zip").exists()
        archive.write_bytes(right)
        assert openus_data(*fetch, cwd=tmp_path).returncode == 0
        before = times(tmp_path / "root")
        assert openus_data(*fetch, cwd=tmp_path).returncode == 0
        assert times(tmp_path / "root") == before
