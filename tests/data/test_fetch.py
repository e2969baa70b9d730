"""fetch: from a card to a tree, through every interruption, and never around a person's agreement."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from faulty_server import FaultyServer

from openus_data.archive import Limits
from openus_data.card import Card, load_card
from openus_data.errors import UsageError
from openus_data.fetch import DatasetReport, FetchReport, fetch
from openus_data.fetch import datasets as datasets_module
from openus_data.fetch import meter as meter_module
from openus_data.fetch import plan as plan_module
from openus_data.fetch import tree as tree_module
from openus_data.fetch.ledger import load_ledger
from openus_data.sources import RemoteFile
from openus_data.store import folder_lock
from openus_data.transfer import Policy

QUICK = Policy(
    connect_timeout_s=2, silence_timeout_s=1, attempts=3, backoff_s=0.01, backoff_cap_s=0.05, reserve_bytes=0
)
RANDOM = random.Random(11)


def make_zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


PICTURES = {"set/a.png": RANDOM.randbytes(50_000), "set/b/c.png": RANDOM.randbytes(40_000)}
ARCHIVE = make_zip(PICTURES)
TABLE = b"name,label\na,1\n"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def download(url: str, **keys: Any) -> dict[str, Any]:
    return {"source": "http", "locator": url, "filename": url.rpartition("/")[2]} | keys


def make_card(folder: Path, *downloads: dict[str, Any], identifier: str = "toy", **keys: Any) -> Card:
    top = {
        "id": identifier,
        "title": "Toy",
        "homepage": "https://example.org/toy",
        "role": "pretrain",
        "access": "open",
        "host": "loopback",
        "organ": "breast",
        "anatomy": ["breast"],
    } | keys
    lines = [f"{k} = {json.dumps(v)}" for k, v in top.items()]
    lines += [
        "[citation]",
        'text = "T"',
        "[license]",
        'class = "attribution"',
        "redistributable = true",
        'spdx = "CC0-1.0"',
    ]
    lines += ["[[images]]", 'match = ["**/*.png"]']
    for entry in downloads:
        lines += ["[[downloads]]", *(f"{k} = {json.dumps(v)}" for k, v in entry.items() if k != "mirrors")]
        for mirror in entry.get("mirrors", ()):
            lines += ["[[downloads.mirrors]]", *(f"{k} = {json.dumps(v)}" for k, v in mirror.items())]
    path = folder / "cards" / f"{identifier}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    return load_card(path)


def run(cards: Card | list[Card], tmp_path: Path, **options: Any) -> FetchReport:
    listed = cards if isinstance(cards, list) else [cards]
    return fetch(listed, tmp_path / "root", quiet=True, policy=QUICK, **options)


def only(report: FetchReport) -> DatasetReport:
    (dataset,) = report.datasets
    return dataset


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stamps(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def ledger(tmp_path: Path, identifier: str = "toy") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "root" / identifier / "fetch.json").read_text())
    return found


def test_a_dataset_is_downloaded_verified_and_unpacked(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE, "t.csv": TABLE}) as server:
        card = make_card(
            tmp_path,
            download(server.url("a.zip"), checksum=sha256(ARCHIVE), bytes=len(ARCHIVE)),
            download(server.url("t.csv"), into="tables"),
        )
        report = run(card, tmp_path)
    assert report.exit_code == 0
    assert only(report).state == "done"
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES | {"tables/t.csv": TABLE}
    assert tree(tmp_path / "root" / "toy" / "archives") == {"a.zip": ARCHIVE, "t.csv": TABLE}
    files = ledger(tmp_path)["files"]
    assert files["a.zip"] | {"url": ""} == {
        "url": "",
        "bytes": len(ARCHIVE),
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
        "state": "verified",
        "checksums": [sha256(ARCHIVE)],
    }
    assert files["t.csv"]["state"] == "pinned"


def test_a_second_run_asks_nothing_and_changes_no_byte_and_no_time(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        run(card, tmp_path)
        before, asked = stamps(tmp_path / "root"), len(server.log)
        report = run(card, tmp_path)
        assert len(server.log) == asked
    assert only(report).state == "unchanged"
    assert report.exit_code == 0
    assert stamps(tmp_path / "root") == before


def damage_tree(root: Path) -> None:
    (root / "files" / "set" / "a.png").unlink()


def damage_archive(root: Path) -> None:
    path = root / "archives" / "a.zip"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def lose_archive(root: Path) -> None:
    (root / "archives" / "a.zip").unlink()


def lose_ledger(root: Path) -> None:
    (root / "fetch.json").unlink()


def tear_ledger(root: Path) -> None:
    (root / "fetch.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_tree, damage_archive, lose_archive, lose_ledger, tear_ledger])
@pytest.mark.parametrize("checksummed", [True, False])
def test_whatever_is_lost_or_damaged_is_made_good(
    tmp_path: Path, damage: Callable[[Path], None], checksummed: bool
) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        keys = {"checksum": sha256(ARCHIVE)} if checksummed else {}
        card = make_card(tmp_path, download(server.url("a.zip"), **keys))
        run(card, tmp_path)
        before = tree(tmp_path / "root")
        damage(tmp_path / "root" / "toy")
        assert only(run(card, tmp_path)).state == "done"
        assert tree(tmp_path / "root") == before
        unproven = not checksummed and damage in (lose_ledger, tear_ledger)
        assert len(server.log) == 1 + (damage in (damage_archive, lose_archive) or unproven)


def test_a_file_whose_pinned_checksum_no_longer_holds_is_an_error_and_no_update(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        run(card, tmp_path)
        pinned = ledger(tmp_path)["files"]["a.zip"]["sha256"]
        lose_archive(tmp_path / "root" / "toy")
        server.files["a.zip"] = make_zip({"other.png": b"x"})
        report = run(card, tmp_path)
        assert report.exit_code == 1
        assert "pinned at the first download" in only(report).error
        assert ledger(tmp_path)["files"]["a.zip"]["sha256"] == pinned
        assert not (tmp_path / "root" / "toy" / "archives" / "a.zip").exists()


def test_one_failed_dataset_does_not_stop_the_others(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE, "cut.zip": ARCHIVE[:-30], "html.zip": b"<!doctype html><p>Log in"}) as server:
        urls = {"gone": "gone.zip", "cut": "cut.zip", "good": "a.zip", "page": "html.zip"}
        cards = [make_card(tmp_path, download(server.url(u)), identifier=i) for i, u in urls.items()]
        cards.append(make_card(tmp_path, download(server.url("a.zip"), checksum=sha256(b"")), identifier="wrong"))
        report = run(cards, tmp_path)
    assert report.exit_code == 1
    assert {d.id: d.state for d in report.datasets} == dict.fromkeys(urls, "failed") | {
        "good": "done",
        "wrong": "failed",
    }
    assert [d.id for d in report.datasets] == [c.id for c in cards]
    assert all("\n" not in d.error for d in report.datasets)
    assert [p.name for p in (tmp_path / "root").glob("*/files")] == ["files"]
    assert json.loads(json.dumps(report.to_json()))["datasets"][2]["unpacked_files"] == 2


def test_one_failed_file_does_not_stop_its_neighbours(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("gone.zip")), download(server.url("a.zip")))
        report = only(run(card, tmp_path))
    assert [f.state for f in report.files] == ["failed", "downloaded"]
    assert report.error == "gone.zip: 127.0.0.1 answered 404; see the dataset's page; fetch it by hand and use --from"
    assert not (tmp_path / "root" / "toy" / "files").exists()


def test_what_is_finished_when_the_server_dies_is_not_asked_for_again(tmp_path: Path) -> None:
    files = {"a.zip": ARCHIVE, "b.zip": make_zip({"b.png": b"b"})}
    with FaultyServer(files, {"b.zip": ["*fin:0.0"]}) as server:
        card = make_card(tmp_path, *(download(server.url(n), checksum=sha256(c)) for n, c in files.items()))
        report = run(card, tmp_path)
        assert report.exit_code == 1
        assert [(f.name, f.state) for f in only(report).files] == [("a.zip", "downloaded"), ("b.zip", "failed")]
        kept = stamps(tmp_path / "root" / "toy" / "archives")
        server.faults.clear()
        assert only(run(card, tmp_path)).state == "done"
        assert len(server.asked("a.zip")) == 1
    assert stamps(tmp_path / "root" / "toy" / "archives").items() >= kept.items()
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES | {"b.png": b"b"}


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked_for(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        report = run(make_card(tmp_path, download(server.url("a.zip"), bytes=1 << 60)), tmp_path)
        assert server.log == []
    assert report.exit_code == 1
    assert only(report).error.startswith("the disk is too small for the archives; expected 1,152,921,504,606,846,976")


def test_a_disk_with_room_for_what_is_still_missing_is_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, half = RANDOM.randbytes(len(ARCHIVE)), len(ARCHIVE) // 2
    monkeypatch.setattr(datasets_module, "free_bytes", lambda _: half + 100)
    with FaultyServer({"a.zip": ARCHIVE, "t.csv": table}) as server:
        entries = [download(server.url(n), bytes=len(c), checksum=sha256(c)) for n, c in server.files.items()]
        card = make_card(tmp_path, *entries)
        archives = tmp_path / "root" / "toy" / "archives"
        archives.mkdir(parents=True)
        (archives / "a.zip").write_bytes(ARCHIVE)
        (archives / "t.csv.part").write_bytes(table[: half // 2])
        assert only(run(card, tmp_path)).error.startswith("the disk is too small for the archives")
        assert server.log == []
        (archives / "t.csv.part").write_bytes(table[:half])
        assert only(run(card, tmp_path)).state == "done"
        assert [a.path for a in server.log] == ["t.csv"]
        assert server.log[0].range == f"bytes={half}-"


def test_a_mirror_of_the_card_is_tried_when_the_origin_fails(tmp_path: Path) -> None:
    with FaultyServer({"b/other.zip": ARCHIVE}) as server:
        mirrors = [{"source": "http", "locator": server.url(p)} for p in ("nowhere.zip", "b/other.zip")]
        card = make_card(tmp_path, download(server.url("a.zip"), checksum=sha256(ARCHIVE), mirrors=mirrors))
        assert only(run(card, tmp_path)).state == "done"
    assert ledger(tmp_path)["files"]["a.zip"]["url"].endswith("/b/other.zip")


@pytest.mark.parametrize("over_http", [True, False])
def test_a_mirror_of_the_users_is_used_with_the_cards_checksum_in_force(tmp_path: Path, over_http: bool) -> None:
    card = make_card(tmp_path, download("http://origin.invalid/a b.zip", checksum=sha256(ARCHIVE)))
    (tmp_path / "mirror" / "toy").mkdir(parents=True)
    (tmp_path / "mirror" / "toy" / "a b.zip").write_bytes(ARCHIVE[:-1] + b"x")
    with FaultyServer({"m/toy/a b.zip": ARCHIVE[:-1] + b"x"}) as server:
        base = server.url("m") if over_http else str(tmp_path / "mirror")
        assert "is not the published one" in only(run(card, tmp_path, mirror=base)).error
        server.files["m/toy/a b.zip"] = ARCHIVE
        (tmp_path / "mirror" / "toy" / "a b.zip").write_bytes(ARCHIVE)
        assert only(run(card, tmp_path, mirror=base)).state == "done"
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES


MANUAL = {"source": "manual", "locator": "https://example.org/form"}
STEPS = {"obtain": ["Register at https://example.org.", "Download a.zip."]}


def test_what_needs_a_person_is_explained_and_the_others_go_on(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        by_hand = make_card(tmp_path, MANUAL, identifier="hand", access="registration", **STEPS)
        terms = make_card(tmp_path, download(server.url("a.zip")), identifier="terms", access="data-use-agreement")
        good = make_card(tmp_path, download(server.url("a.zip")))
        report = run([by_hand, terms, good], tmp_path)
        assert [d.state for d in report.datasets] == ["needs-person", "needs-person", "done"]
        assert report.exit_code == 1
        assert "1. Register at https://example.org." in report.to_text()
        assert "--accept terms" in report.to_text()
        assert len(server.log) == 1
        assert [d.state for d in run([by_hand, terms], tmp_path, accept=["hand", "terms"]).datasets] == [
            "needs-person",
            "done",
        ]


@pytest.mark.parametrize("form", ["archive", "folder of archives", "folder of files", "folder with the card's names"])
def test_what_the_user_already_has_is_taken(tmp_path: Path, form: str) -> None:
    name = {"filename": "a.zip"} if form == "folder with the card's names" else {}
    card = make_card(tmp_path, MANUAL | name, access="data-use-agreement", **STEPS)
    have = tmp_path / "have"
    have.mkdir()
    if form == "folder of files":
        for path, content in PICTURES.items():
            (have / path).parent.mkdir(parents=True, exist_ok=True)
            (have / path).write_bytes(content)
    else:
        (have / "a.zip").write_bytes(ARCHIVE)
    before = stamps(have)
    source = have / "a.zip" if form == "archive" else have
    assert only(run(card, tmp_path, from_path=source)).state == "done"
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES
    assert stamps(have) == before
    kept = stamps(tmp_path / "root")
    assert only(run(card, tmp_path, from_path=source)).state == "unchanged"
    assert only(run(card, tmp_path)).state == "unchanged"
    assert stamps(tmp_path / "root") == kept


def test_several_datasets_are_taken_from_folders_of_their_ids(tmp_path: Path) -> None:
    cards = [make_card(tmp_path, MANUAL, identifier=i, **STEPS) for i in ("one", "two")]
    for card in cards:
        (tmp_path / "have" / card.id).mkdir(parents=True)
        (tmp_path / "have" / card.id / f"{card.id}.png").write_bytes(b"x")
    assert run(cards, tmp_path, from_path=tmp_path / "have").exit_code == 0
    assert sorted(tree(tmp_path / "root" / "two" / "files")) == ["two.png"]
    with pytest.raises(UsageError, match="--from names nothing"):
        run(cards, tmp_path, from_path=tmp_path / "nowhere")


def test_a_given_archive_that_is_not_the_published_one_is_said_pinned_and_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = make_card(tmp_path, MANUAL | {"filename": "a.zip", "checksum": sha256(b"other")}, **STEPS)
    given = tmp_path / "a.zip"
    given.write_bytes(ARCHIVE[:-30])
    assert only(run(card, tmp_path, from_path=given)).state == "failed"
    given.write_bytes(ARCHIVE)
    assert only(run(card, tmp_path, from_path=given)).state == "done"
    assert "not the published file" in caplog.text
    assert load_ledger(tmp_path / "root" / "toy", "toy").files["a.zip"].state == "pinned"
    assert only(run(card, tmp_path, from_path=given)).state == "unchanged"


@pytest.mark.parametrize("first", [ARCHIVE[:-3000], b"Error: quota used up"])
def test_what_cannot_be_unpacked_and_nothing_vouches_for_is_asked_for_again(tmp_path: Path, first: bytes) -> None:
    with FaultyServer({"a.zip": first}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        failed = only(run(card, tmp_path))
        assert failed.state == "failed"
        assert "kept as a.zip.bad; run this again" in failed.error
        assert list(tree(tmp_path / "root" / "toy" / "archives")) == ["a.zip.bad"]
        server.files["a.zip"] = ARCHIVE
        assert only(run(card, tmp_path)).state == "done"
    assert list(tree(tmp_path / "root" / "toy" / "archives")) == ["a.zip"]
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES


def test_only_the_damaged_archive_is_asked_for_again(tmp_path: Path) -> None:
    with FaultyServer({"1.zip": ARCHIVE, "11.zip": ARCHIVE[:-30]}) as server:
        card = make_card(tmp_path, *(download(server.url(n), into=n[:-4]) for n in ("1.zip", "11.zip")))
        assert "kept as 11.zip.bad;" in only(run(card, tmp_path)).error
    assert sorted(tree(tmp_path / "root" / "toy" / "archives")) == ["1.zip", "11.zip.bad"]


def test_archives_may_lie_where_fetch_puts_its_folders(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.zip").write_bytes(ARCHIVE)
    card = make_card(tmp_path, download("http://127.0.0.1:1/a.zip"))
    assert only(run(card, tmp_path, from_path=tmp_path / "root")).state == "done"
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES


def test_a_published_archive_that_cannot_be_unpacked_keeps_its_name(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE[:-3000]}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), checksum=sha256(ARCHIVE[:-3000])))
        assert only(run(card, tmp_path)).state == "failed"
    assert list(tree(tmp_path / "root" / "toy" / "archives")) == ["a.zip"]


def test_a_given_archive_takes_the_place_of_another_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.zip").write_bytes(make_zip({"mine.png": b"1"}))
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), checksum=sha256(ARCHIVE)))
        run(card, tmp_path)
        assert only(run(card, tmp_path, from_path=tmp_path / "mine.zip")).state == "done"
    assert "what --from names takes its place" in caplog.text
    assert "fetching it again" not in caplog.text
    assert tree(tmp_path / "root" / "toy" / "files") == {"mine.png": b"1"}


def test_many_small_files_of_a_given_folder_are_no_bomb(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / "mine" / f"{n}").mkdir(parents=True)
        (tmp_path / "mine" / f"{n}" / "label.txt").write_text("1")
    card = make_card(tmp_path, download("http://127.0.0.1:1/a.zip"))
    assert only(run(card, tmp_path, from_path=tmp_path / "mine", limits=Limits(per_member_from=10))).state == "done"


@pytest.mark.parametrize("given", ["empty", "root", "root/toy"])
def test_a_given_folder_that_holds_nothing_or_is_our_own_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        run(card, tmp_path)
        failed = only(run(card, tmp_path, from_path=tmp_path / given))
    assert failed.state == "failed"
    assert "holds no file" in failed.error or "that fetch itself fills" in failed.error
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES


@pytest.mark.parametrize("base", ["http://[::1", "http://127.0.0.1:none", "http://127.0.0.1:99999"])
def test_a_mirror_that_is_no_address_is_an_error_of_the_callers(tmp_path: Path, base: str) -> None:
    card = make_card(tmp_path, download("http://127.0.0.1:1/a.zip"))
    assert "not a web address" in only(run(card, tmp_path, mirror=base)).error


def test_a_root_that_may_only_be_read_is_named_and_what_is_complete_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        other = make_card(tmp_path, download(server.url("a.zip")), identifier="other")
        run(card, tmp_path)
        lock = str(tmp_path / "root" / "other" / ".lock")
        monkeypatch.setattr(datasets_module, "folder_lock", Mock(side_effect=OSError(errno.EROFS, "no", lock)))
        report = run([card, other], tmp_path)
    assert [d.state for d in report.datasets] == ["unchanged", "failed"]
    assert report.datasets[1].error == "other/.lock: read-only file system; name a --root that you may write to"


def test_what_stands_in_the_way_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "root" / "toy").mkdir(parents=True)
    (tmp_path / "root" / "toy" / "archives").write_text("in the way")
    card = make_card(tmp_path, download("http://127.0.0.1:1/a.zip"))
    failed = only(run(card, tmp_path))
    assert failed.error.startswith("toy/archives: file exists; something else stands")


def test_a_file_or_link_in_place_of_the_tree_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "root" / "toy").mkdir(parents=True)
    (tmp_path / "root" / "toy" / "files").symlink_to(tmp_path)
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        run(make_card(tmp_path, download(server.url("a.zip"))), tmp_path)
    assert sorted(p.name for p in (tmp_path / "root" / "toy").iterdir()) == [".lock", "archives", "fetch.json", "files"]
    assert tree(tmp_path / "root" / "toy" / "files") == PICTURES


def test_links_in_a_given_folder_are_refused(tmp_path: Path) -> None:
    card = make_card(tmp_path, MANUAL, **STEPS)
    (tmp_path / "have").mkdir()
    (tmp_path / "have" / "a.png").symlink_to("/etc/passwd")
    assert "a link" in only(run(card, tmp_path, from_path=tmp_path / "have")).error
    assert not (tmp_path / "root" / "toy" / "files").exists()


@pytest.mark.parametrize("published", [True, False])
def test_a_dry_run_shows_files_bytes_and_free_disk_and_writes_nothing(tmp_path: Path, published: bool) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        cards = [
            make_card(tmp_path, download(server.url("a.zip"), **({"bytes": len(ARCHIVE)} if published else {}))),
            make_card(tmp_path, MANUAL, identifier="hand", access="registration", **STEPS),
        ]
        report = run(cards, tmp_path, dry_run=True)
        assert server.log == []
        assert not (tmp_path / "root").exists()
        answer = report.to_json()
        assert answer["missing_bytes"] == len(ARCHIVE)
        assert int(str(answer["free_bytes"])) > 0
        assert [d.state for d in report.datasets] == ["planned", "needs-person"]
        run(cards[0], tmp_path)
        assert run(cards[0], tmp_path, dry_run=True).to_json()["missing_bytes"] == 0


def test_the_last_lines_say_how_many_ended_how_and_name_those_that_ask_for_something(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        cards = [
            make_card(tmp_path, download(server.url("a.zip")), identifier="good"),
            make_card(tmp_path, download(server.url("gone.zip")), identifier="gone"),
            make_card(tmp_path, MANUAL, identifier="hand", access="registration", **STEPS),
        ]
        planned = run(cards, tmp_path, dry_run=True).to_text().splitlines()
        text = run(cards, tmp_path).to_text().splitlines()
    assert planned[-2] == "3 datasets: 2 to fetch, 1 needs a person (hand)"
    assert planned[-1].startswith(f"to fetch: {len(ARCHIVE) / 1000:.1f} kB and 1 file of unknown size; free on")
    assert text[-1] == "3 datasets: 1 done, 1 needs a person (hand), 1 failed (gone)"


def test_a_dry_run_of_many_files_is_short_for_people_and_whole_for_machines(tmp_path: Path) -> None:
    card = make_card(tmp_path, *(download(f"http://127.0.0.1:9/{n:03d}.png", bytes=1000) for n in range(50)))
    report = run(card, tmp_path, dry_run=True)
    assert "  and 30 more; --json lists all" in report.to_text().splitlines()
    assert len(only(report).to_json()["files"]) == 50  # type: ignore[arg-type]


def test_archives_in_archives_are_unpacked_as_the_card_says(tmp_path: Path) -> None:
    outer = make_zip({"x/inner.zip": ARCHIVE, "x/other.zip": ARCHIVE})
    with FaultyServer({"a.zip": outer}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), inner=["x/inner.zip"], into="d"))
        run(card, tmp_path)
    expected = {f"d/x/{n}": c for n, c in PICTURES.items()} | {"d/x/other.zip": ARCHIVE}
    assert tree(tmp_path / "root" / "toy" / "files") == expected


def test_a_bomb_in_an_archive_that_itself_shrinks_well_is_stopped(tmp_path: Path) -> None:
    inner = make_zip({f"{n}.png": bytes(100_000) for n in range(100)})
    with FaultyServer({"a.zip": make_zip({"inner.zip": inner})}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), inner=["*.zip"]))
        dataset = only(run(card, tmp_path, limits=Limits(ratio=600, ratio_from_bytes=1 << 20)))
    assert "grows beyond reason" in dataset.error
    assert not (tmp_path / "root" / "toy" / "files").exists()


def test_archives_in_archives_beyond_the_depth_are_no_success(tmp_path: Path) -> None:
    deepest = make_zip({"d.zip": make_zip({"c.zip": make_zip({"b.zip": make_zip(PICTURES)})})})
    with FaultyServer({"a.zip": deepest}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), inner=["**/*.zip"]))
        assert "too deep; expected at most 2 levels" in only(run(card, tmp_path)).error
    assert not (tmp_path / "root" / "toy" / "files").exists()


def test_the_tree_is_not_walked_once_for_each_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = 0
    real_files = tree_module._files

    def count(folder: Path) -> list[os.DirEntry[str]]:
        nonlocal walks
        walks += 1
        return real_files(folder)

    monkeypatch.setattr(tree_module, "_files", count)
    (tmp_path / "m" / "toy").mkdir(parents=True)
    for number in range(40):
        (tmp_path / "m" / "toy" / f"{number}.png").write_bytes(b"x")
    card = make_card(tmp_path, *(download(f"http://origin.invalid/{n}.png") for n in range(40)))
    assert only(run(card, tmp_path, mirror=str(tmp_path / "m"))).unpacked_files == 40
    assert walks < 5


def test_a_file_that_two_archives_share_is_kept_once_and_two_that_differ_are_refused(tmp_path: Path) -> None:
    files = {
        "a.zip": ARCHIVE,
        "b.zip": make_zip(PICTURES | {"d.png": b"d"}),
        "c.zip": make_zip({"set/a.png": b"other"}),
    }
    with FaultyServer(files) as server:
        both = make_card(tmp_path, download(server.url("a.zip")), download(server.url("b.zip")), identifier="both")
        clash = make_card(tmp_path, download(server.url("a.zip")), download(server.url("c.zip")), identifier="clash")
        report = run([both, clash], tmp_path)
    assert tree(tmp_path / "root" / "both" / "files") == PICTURES | {"d.png": b"d"}
    assert "two archives hold different files of one name" in report.datasets[1].error
    with FaultyServer({"a.zip": ARCHIVE, "again.zip": ARCHIVE}) as server:  # one that holds nothing new
        twice = make_card(tmp_path, *(download(server.url(n)) for n in server.files), identifier="twice")
        assert only(run(twice, tmp_path)).state == "done"
    assert tree(tmp_path / "root" / "twice" / "files") == PICTURES
    assert not (tmp_path / "root" / "clash" / "files").exists()


def test_git_lfs_pointers_are_not_taken_for_pictures(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    card = make_card(tmp_path, {"source": "github", "locator": "o/r@abc", "filename": "r.zip"})
    (tmp_path / "m" / "toy").mkdir(parents=True)
    (tmp_path / "m" / "toy" / "r.zip").write_bytes(make_zip(PICTURES | {"set/z.png": pointer}))
    assert "1 files are Git LFS pointers" in only(run(card, tmp_path, mirror=str(tmp_path / "m"))).error


def test_git_lfs_pointers_from_elsewhere_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    have = tmp_path / "have"
    have.mkdir()
    (have / "z.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (have / "small.txt").write_bytes(b"version")
    assert only(run(make_card(tmp_path, MANUAL, **STEPS), tmp_path, from_path=have)).state == "done"
    assert "toy: 1 files are Git LFS pointers, not the files themselves" in caplog.text


def test_the_bar_ends_where_it_said_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, int] = {"total": 0, "done": 0}

    class Bar:
        def __init__(self, title: str, **_: Any) -> None:
            assert title == "fetch"

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def expect(self, total: int) -> None:
            told["total"] = total

        def advance(self, units: int, *, note: str) -> None:
            assert note.endswith(" MB/s")
            told["done"] += units

    monkeypatch.setattr(meter_module, "Progress", Bar)
    with meter_module.Meter(quiet=False) as meter:
        meter.expect(20_009_882)
        meter.hold(5_000_000)
        for _ in range(3):
            meter.add(5_003_294)  # quicker than the bar is drawn
    assert told == {"total": 21, "done": 21}


def test_a_bomb_fails_its_dataset_and_leaves_no_tree(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": make_zip({"zeros": bytes(30 << 20)})}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        report = run(card, tmp_path, limits=Limits(ratio_from_bytes=1 << 20))
    assert "beyond reason" in only(report).error
    assert not list((tmp_path / "root" / "toy").glob("files*"))


def test_a_checksum_of_a_kind_that_nobody_here_knows_is_said_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        url, sums = server.url("a.zip"), (f"MD5:{hashlib.md5(ARCHIVE).hexdigest()}", "crc32:12345678")
        offered = RemoteFile(filename="a.zip", url=url, source=url, checksums=sums)
        monkeypatch.setattr(plan_module, "source_of", lambda _: Mock(list=lambda *_: (offered,)))
        assert only(run(make_card(tmp_path, download(url)), tmp_path)).state == "done"
    assert "kind that is not known here (crc32)" in caplog.text
    assert ledger(tmp_path)["files"]["a.zip"]["state"] == "verified"


def test_names_from_a_listing_cannot_climb(tmp_path: Path) -> None:
    card = make_card(tmp_path, download("http://origin.invalid/a.zip") | {"filename": "../../a.zip"})
    assert "a name with .." in only(run(card, tmp_path)).error


@pytest.mark.parametrize(
    ("first", "second"), [("a.zip", "a.zip"), ("a.zip", "A.ZIP"), ("\u00e9.zip", "e\u0301.zip"), ("a", "a/b.zip")]
)
def test_downloads_whose_names_are_one_somewhere_are_refused(tmp_path: Path, first: str, second: str) -> None:
    entries = [download("http://origin.invalid/x") | {"filename": n} for n in (first, second)]
    report = only(run(make_card(tmp_path, *entries), tmp_path))
    assert report.state == "failed"
    assert "two " in report.error
    assert "also" in report.error


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip")))
        with folder_lock(tmp_path / "root" / "toy"):
            assert "another run works in this folder" in only(run(card, tmp_path)).error
        assert server.log == []


def test_no_credential_and_no_query_reaches_the_ledger_or_the_report(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        url = server.url("a.zip").replace("http://", "http://user:c0ffee@") + "?X-Amz-Signature=c0ffee"
        card = make_card(tmp_path, download(url) | {"filename": "a.zip"})
        report = run(card, tmp_path)
        assert report.exit_code == 0
    assert "c0ffee" not in (tmp_path / "root" / "toy" / "fetch.json").read_text() + json.dumps(report.to_json())


PROGRAM = """
import sys
from pathlib import Path
from openus_data.card import load_card
from openus_data.fetch import fetch
try:
    report = fetch([load_card(Path(sys.argv[1]))], Path(sys.argv[2]), quiet=True)
except KeyboardInterrupt:
    sys.exit(130)
print(report.to_text())
sys.exit(report.exit_code)
"""


def start(tmp_path: Path, root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cards" / "toy.toml"), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def slow_dataset(tmp_path: Path, server: FaultyServer) -> None:
    entries = [download(server.url(n), **({"checksum": sha256(c)} if n < "b" else {})) for n, c in server.files.items()]
    make_card(tmp_path, *entries)


SLOW = {f"{n}.zip": make_zip({f"{n}/{i}.png": RANDOM.randbytes(60_000) for i in range(12)}) for n in ("a1", "a2", "b1")}


SMALL = {f"{n}{i}.png": RANDOM.randbytes(40_000) for n in ("a3-", "b2-") for i in range(8)}


def test_kill_9_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    files = SMALL | SLOW
    with FaultyServer(dict(files), block_bytes=16_000, delay_s=0.004) as server:
        slow_dataset(tmp_path, server)
        undisturbed = start(tmp_path, tmp_path / "undisturbed")
        undisturbed.communicate()
        server.log.clear()
        killed, moments = 0, random.Random(5)
        while killed < 10:
            process = start(tmp_path, tmp_path / "root")
            seen = len(server.log)
            deadline = time.monotonic() + 10
            while len(server.log) == seen and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.12))
            process.kill()
            process.communicate()
            killed += 1
            names = {p.name for p in (tmp_path / "root" / "toy").rglob("*") if p.is_file()}
            for name in names & set(files):  # what has its final name is whole
                assert (tmp_path / "root" / "toy" / "archives" / name).read_bytes() == files[name]
        last = start(tmp_path, tmp_path / "root")
        last.communicate()
        assert last.returncode == 0
        assert any(a.range for a in server.log)
    assert tree(tmp_path / "root") == tree(tmp_path / "undisturbed")


def test_what_a_kill_leaves_beside_a_finished_file_goes(tmp_path: Path) -> None:
    with FaultyServer({"a.zip": ARCHIVE}) as server:
        card = make_card(tmp_path, download(server.url("a.zip"), checksum=sha256(ARCHIVE)))
        assert only(run(card, tmp_path)).state == "done"
        dataset = tmp_path / "root" / card.id
        (dataset / "fetch.json").unlink()  # killed after the renaming and before the ledger knew
        (dataset / "archives" / "a.zip.state.part").write_text("{}")
        assert only(run(card, tmp_path)).state == "done"
    assert [p.name for p in (dataset / "archives").iterdir()] == ["a.zip"]


def test_ctrl_c_is_quick_and_leaves_only_parts(tmp_path: Path) -> None:
    with FaultyServer(dict(SLOW), {"b1.zip": ["stall:0.5:20"]}, block_bytes=16_000, delay_s=0.02) as server:
        slow_dataset(tmp_path, server)
        process = start(tmp_path, tmp_path / "root")
        while sum(a.sent for a in server.log) < 200_000 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        output, _ = process.communicate()
        assert time.monotonic() - began < 3
        assert process.returncode == 130
        assert output == b""
        left = [p.name for p in (tmp_path / "root" / "toy" / "archives").iterdir()]
        assert left
        assert all(n.endswith(".part") for n in left)
        server.delay_s = 0
        again = start(tmp_path, tmp_path / "root")
        again.communicate()
        assert again.returncode == 0


def test_two_processes_on_one_dataset_download_it_once(tmp_path: Path) -> None:
    with FaultyServer(dict(SLOW), block_bytes=16_000, delay_s=0.05) as server:
        slow_dataset(tmp_path, server)
        first = start(tmp_path, tmp_path / "root")
        while not server.log:
            time.sleep(0.01)
        second = start(tmp_path, tmp_path / "root")
        output, _ = second.communicate()
        first.communicate()
        assert first.returncode == 0
        assert second.returncode == 1
        assert b"another run works in this folder" in output
        assert len(server.log) == len(SLOW)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    big = os.urandom(1 << 20) * 150
    with FaultyServer({"big.bin": big}, block_bytes=1 << 20) as server:
        make_card(tmp_path, download(server.url("big.bin"), checksum=sha256(big)))
        peak = "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]); print(report"
        code = PROGRAM.replace("print(report", peak)
        command = [sys.executable, "-c", code, str(tmp_path / "cards" / "toy.toml"), str(tmp_path / "root")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) < 150_000
