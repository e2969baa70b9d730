"""Planted strings in every place where identity hides; no command may write or print one of them.

The archive of `planted_files` goes through `fetch --from`, `build` (as a public card and as a private folder), `audit`,
`verify`, `preview`, `query`, `deid` and runs that fail. Then every byte that was written and every line that was
printed is searched: tars unpacked, Parquet and deflated streams decoded, in UTF-8, UTF-16, hexadecimal, base64 and as a
digest. Left out is what holds the input by contract: `ROOT/<id>/archives` and `ROOT/<id>/files`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(TESTS))

from canary_search import Leak, Searcher  # noqa: E402  # the helpers lie beside the tests of openus_data
from planted import Canaries  # noqa: E402
from planted_deeper import DEEPER, plant_names  # noqa: E402
from planted_files import PLANTERS, plant_archive  # noqa: E402

CARD = """
id = "planted"
title = "Planted identities"
homepage = "https://example.org/planted"
role = "pretrain"
access = "open"
host = "nowhere"
organ = "breast"
anatomy = ["breast"]
leave_out = ["**/*.{csv,json,xml}"]

[citation]
text = "Nobody, 2026"

[license]
spdx = "CC0-1.0"
class = "attribution"
redistributable = true

[[downloads]]
source = "http"
locator = "https://example.org/planted.tar.gz"
filename = "planted.tar.gz"

[expected]
images = 40

[[images]]
match = ["**/*.{dcm,jpg,png,tif,bmp,webp,mp4,avi,mkv,nii.gz,mha,nrrd,mat,h5}"]

[subject]
path = '([^/]+)$'
"""

NAMES_ITS_INPUT = ("failing cone", "failing unpack")
"""`cone` answers file by file and `unpack` is given one: both say the name that the user typed, and never write it."""

EXTRA = {
    "19610307": "PatientBirthDate", "1961-03-07": "birth date in a table", "1961030712345678": "a UID",
    "20190412": "StudyDate",
}  # fmt: skip


@dataclasses.dataclass
class Run:
    """Everything that the commands left.

    Args:
        work: folder of all of it.
        canaries: what was planted.
        printed: per command, exit code and what it said.
    """

    work: Path
    canaries: Canaries
    printed: dict[str, tuple[int, str]]

    @property
    def searcher(self) -> Searcher:
        return Searcher(self.canaries, EXTRA)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Plant, and run every command."""
    work, canary = tmp_path_factory.mktemp("canary"), Canaries()
    source = work / "source" / canary("folder of the user")
    scans = source / canary("folder of a patient")
    scans.mkdir(parents=True)
    for plant in (*PLANTERS.values(), *DEEPER.values()):
        plant(canary, scans)
    plant_archive(canary, source, work / "planted")
    odd = work / "source" / canary("folder of odd names")
    odd.mkdir()
    plant_names(canary, odd)
    archive = work / "source" / canary("folder of the archive") / "planted.tar.gz"
    archive.parent.mkdir()
    shutil.move(work / "planted.tar.gz", archive)
    (work / "planted.zip").unlink()
    (work / "cards").mkdir()
    (work / "cards" / "planted.toml").write_text(CARD)
    result = Run(work, canary, {})
    _run_all(result, source, archive, odd)
    return result


def _run_all(run: Run, source: Path, archive: Path, odd: Path) -> None:
    root, out, private, target = (str(run.work / name) for name in ("root", "out", "private", "target"))
    key, cards = str(run.work / "secret" / "key"), ["--cards", str(run.work / "cards")]
    passed, recipe = str(run.work / "passed"), run.work / "recipe.yaml"
    recipe.write_text("image:\n  codec: passthrough\n  blacken_outside: false\ntext:\n  policy: keep\n")
    torn = archive.parent / f"{run.canaries('name of a torn archive')}.tar.gz"
    torn.write_bytes(archive.read_bytes()[:5000])
    commands = {
        "check-card": ["check-card", str(run.work / "cards" / "planted.toml"), "--files", str(source)],
        "fetch": ["fetch", "planted", "--root", root, "--from", str(archive), *cards],
        "fetch, a folder": ["fetch", "planted", "--root", f"{root}2", "--from", str(source), *cards],
        "build": ["build", "planted", "--root", root, "--out", out, "--workers", "2", *cards],
        "build --json": ["build", "planted", "--root", root, "--out", out, "--json", *cards],
        "build --images": ["build", "--images", str(source), "--name", "clinic", "--root", root, "--out", private,
                           "--recipe", "private", "--key-file", key],
        "build, bytes passed on": ["build", "planted", "--root", root, "--out", passed, "--recipe", str(recipe),
                                   *cards],
        "build, odd names": ["build", "--images", str(odd), "--name", "odd", "--root", root, "--out", f"{out}4"],
        "deid, odd names": ["deid", str(odd), f"{target}3", "--key-file", key],
        "audit": ["audit", out, "--html", str(run.work / "audit.html")],
        "audit --json": ["audit", private, "--json", "--by", "organ"],
        "audit --sources": ["audit", private, "--images", "all", "--sources", str(source), "--json"],
        "verify": ["verify", out, "--json"],
        "preview": ["preview", out, "--out", str(run.work / "sheet.png")],
        "preview, html": ["preview", private, "--out", str(run.work / "sheet.html")],
        "query": ["query", out, "SELECT * FROM manifest", "--json"],
        "deid": ["deid", str(source), target, "--key-file", key],
        "deid --json": ["deid", str(source), f"{target}2", "--key-file", key, "--dates", "shift", "--json"],
        "failing deid": ["deid", str(archive), str(archive.parent)],
        "failing build": ["build", "--images", str(archive), "--name", "x", "--root", root, "--out", f"{out}3"],
        "failing fetch": ["fetch", "planted", "--root", f"{root}3", "--from", str(torn), *cards],
        "failing unpack": ["unpack", str(torn), "--out", str(run.work / "unpacked")],
        "unpack": ["unpack", str(archive), "--out", str(run.work / "members"), "--json"],
        "failing cone": ["cone", str(torn), "--json"],
        "failing audit": ["audit", str(source)],
        "failing verify": ["verify", str(source)],
        "failing preview": ["preview", str(source), "--out", str(run.work / "x.png")],
        "failing query": ["query", out, "SELECT nothing FROM nowhere"],
        "out over a file": ["build", "planted", "--root", root, "--out", str(archive / "x"), *cards],
    }  # fmt: skip
    home = run.work / "home"
    home.mkdir()
    (run.work / "tmp").mkdir()
    variables = {
        **os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "TMPDIR": str(run.work / "tmp"),
        "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name, arguments in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "openus_data.cli", *arguments],
            capture_output=True,
            env=variables,
            cwd=home,
            timeout=300,
        )
        run.printed[name] = (done.returncode, (done.stdout + b"\n" + done.stderr).decode(errors="replace"))


def _said(leaks: list[Leak]) -> str:
    return "\n".join(sorted({f"{leak.where}: {leak.place} ({leak.form})" for leak in leaks}))


def test_the_commands_did_their_work(run: Run) -> None:
    codes = {name: code for name, (code, _) in run.printed.items()}
    assert codes["fetch"] == codes["verify"] == codes["preview"] == codes["query"] == 0, run.printed
    assert codes["build"] in (0, 1) and codes["deid"] == 1
    assert (run.work / "out" / "manifest.parquet").exists() and (run.work / "private" / "manifest.parquet").exists()
    assert all(code in (1, 2) for name, code in codes.items() if "failing" in name or "over" in name), codes


def test_nothing_planted_is_printed(run: Run) -> None:
    said = {name: text for name, (_, text) in run.printed.items() if name not in NAMES_ITS_INPUT}
    leaks = [leak for name, text in said.items() for leak in run.searcher.in_bytes(text.encode(), f"printed by {name}")]
    assert not leaks, _said(leaks)


def test_no_traceback_is_printed(run: Run) -> None:
    assert not [name for name, (_, text) in run.printed.items() if "Traceback" in text]


@pytest.mark.parametrize(
    "folder",
    ["out", "private", "passed", "target", "target2", "target3", "out4", "home", "tmp", "secret", "out3", "unpacked"],
)
def test_nothing_planted_is_written(run: Run, folder: str) -> None:
    leaks = run.searcher.in_folders([run.work / folder]) if (run.work / folder).exists() else []
    assert not leaks, _said(leaks)


def test_nothing_planted_is_in_pictures_pages_and_ledgers(run: Run) -> None:
    files = [p for p in run.work.iterdir() if p.is_file()]
    files += [p for root in ("root", "root2", "root3") for p in (run.work / root).rglob("*") if p.is_file()
              and not {"archives", "files"} & set(p.relative_to(run.work).parts)]  # fmt: skip
    leaks = [leak for path in files for leak in run.searcher.in_bytes(path.read_bytes(), path.name)]
    assert files and not leaks, _said(leaks)


def test_containers_say_nothing_of_where_they_were_made(run: Run) -> None:
    """Statement D9: fixed owners and times in tars, no ancillary chunk or segment in pictures, known Parquet keys."""
    shards = [shard for folder in ("out", "private", "passed") for shard in (run.work / folder).rglob("*.tar")]
    assert shards
    for shard in shards:
        with tarfile.open(shard) as archive:
            for member in archive:
                about = (member.uid, member.gid, member.uname, member.gname, member.mtime, member.pax_headers)
                assert about == (0, 0, "", "", 0, {})
                handle = archive.extractfile(member)
                content = handle.read() if handle else b""
                if member.name.endswith(".png"):
                    assert set(png_chunks(content)) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
                elif member.name.endswith(".jpg"):
                    assert not {0xFE, *range(0xE1, 0xF0)} - {0xEE} & set(jpeg_markers(content))
    for table in (path for folder in ("out", "private") for path in (run.work / folder).glob("*.parquet")):
        keys = set(pq.read_metadata(table).metadata or {})
        assert keys <= {b"ARROW:schema", b"openus.schema_version"}, keys


def png_chunks(content: bytes) -> list[bytes]:
    """Types of a PNG's chunks; fails on bytes behind the last."""
    place, found = 8, []
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        found.append(content[place + 4 : place + 8])
        place += 12 + length
    assert place == len(content) and found[-1] == b"IEND"
    return found


def jpeg_markers(content: bytes) -> list[int]:
    """Markers of a JPEG's segments before its first scan; fails on bytes behind the end."""
    assert content.endswith(b"\xff\xd9")
    place, found = 2, list[int]()
    while content[place + 1] != 0xDA:
        found.append(content[place + 1])
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return found


def test_no_word_of_the_sources_headers_is_found_by_the_audit(run: Run) -> None:
    found = json.loads(run.printed["audit --sources"][1].strip().splitlines()[0])["findings"]
    assert not {"header_like_text", "header_like_metadata"} & {finding["id"] for finding in found}, found


def test_every_kind_of_planted_picture_reached_an_output(run: Run) -> None:
    """A tool that lets nothing through would pass every other test."""
    written = {p.suffix for p in (run.work / "target").iterdir()}
    assert written == {".dcm"}
    datasets = [pydicom.dcmread(path) for path in (run.work / "target").iterdir()]
    devices = {(d.Manufacturer, d.get("ManufacturerModelName", "")) for d in datasets}
    assert len(datasets) >= 5 and devices == {("Philips Medical Systems", "EPIQ 7C"), ("", "")}
    for folder in ("out", "private"):
        rows = pq.read_table(run.work / folder / "manifest.parquet").to_pylist()
        assert len(rows) >= 20, [
            row["reason"] for row in pq.read_table(run.work / folder / "rejects.parquet").to_pylist()
        ]
