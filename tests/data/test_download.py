"""The engine against a server that misbehaves: right bytes or a clear error, never a wrong file under its name."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import logging
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer
from urllib3.response import HTTPResponse

from openus_data.errors import ChecksumMismatch, NoSpace, SourceError, SourceRefused, SourceUnavailable
from openus_data.transfer import Client, Engine, Job, Policy, Stopped, Watcher
from openus_data.transfer import part as part_module
from openus_data.transfer.answer import Answer
from openus_data.transfer.policy import parse_retry_after
from openus_data.transfer.version import Version

QUICK = Policy(
    connect_timeout_s=2,
    silence_timeout_s=0.5,
    slow_window_s=0.5,
    attempts=4,
    backoff_s=0.01,
    backoff_cap_s=0.05,
    retry_after_cap_s=3,
    reserve_bytes=0,
    max_unknown_bytes=4 << 20,
)
CONTENT = random.Random(7).randbytes(1_000_003)
OTHER = random.Random(8).randbytes(1_000_003)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def fetch(server: FaultyServer, folder: Path, *, policy: Policy = QUICK, path: str = "a.bin", **job: Any) -> Any:
    target = folder / "a.bin"
    url = server.url(path)
    wanted = {"url": url, "source": url, "target": target, "size_bytes": len(CONTENT)} | job
    return Engine(policy, threading.Event()).download(Job(**wanted))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


RESUMED = ["reset:0.5", "fin:0.5", "chunkcut:0.5", "stall:0.5:2"]
REPEATED = ["norange", "bitflip", "garbage", "empty", "dup", "clhigh", "cllow", "gzipenc", "noclcut:0.5", "chunked"]
BUSY = ["status:500", "status:502", "status:503:0", "status:429:0", "status:408", "date:0"]


@pytest.mark.parametrize("fault", RESUMED)
@pytest.mark.parametrize("checksummed", [True, False])
def test_a_broken_body_is_resumed_and_little_is_sent_twice(tmp_path: Path, fault: str, checksummed: bool) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}) as server:
        got = fetch(server, tmp_path, checksums=(sha256(CONTENT),) if checksummed else ())
        first, *later = server.asked("a.bin")
        assert first.range is None
        assert all(a.range and a.headers["if-range"] == server.tag(CONTENT) for a in later)
        missing = len(CONTENT) - first.sent
        assert sum(a.sent for a in later) <= 1.1 * missing + server.block_bytes
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert got.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("fault", REPEATED + BUSY)
@pytest.mark.parametrize("checksummed", [True, False])
def test_one_fault_of_any_kind_ends_with_the_right_bytes(tmp_path: Path, fault: str, checksummed: bool) -> None:
    if fault in ("bitflip", "garbage") and not checksummed:
        pytest.skip("nothing tells wrong bytes of the right length without a checksum")
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}) as server:
        fetch(server, tmp_path, checksums=(sha256(CONTENT),) if checksummed else ())
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("second", ["range_off", "range_ahead", "range_short", "range_star", "range_beyond", "norange"])
def test_an_answer_to_a_range_that_is_not_the_range_is_never_appended(tmp_path: Path, second: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5", second]}) as server:
        fetch(server, tmp_path, size_bytes=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_splice_that_no_header_shows_is_found_by_the_digest_and_fetched_whole(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5", "evil206same"]}) as server:
        fetch(server, tmp_path, checksums=(sha256(CONTENT),))
        assert [a.range is None for a in server.log] == [True, False, True]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_name_in_the_answers_head_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    headers = {"Content-Disposition": 'attachment; filename="../../canary"'}
    with FaultyServer({"a.bin": CONTENT}, headers=headers) as server:
        fetch(server, folder)
    assert names(tmp_path) == ["archives"]
    assert names(folder) == ["a.bin"]


@pytest.mark.parametrize("etag", ["strong", "weak", "none"])
@pytest.mark.parametrize("second", ["", "evil206"])
def test_a_file_that_changed_between_two_requests_is_never_spliced(tmp_path: Path, etag: str, second: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5", *([second] if second else [])]}, etag=etag) as server:

        def swap() -> None:
            while not server.log or server.log[0].sent < len(CONTENT) // 2:
                time.sleep(0.001)
            server.files["a.bin"] = OTHER

        swapper = threading.Thread(target=swap)
        swapper.start()
        fetch(server, tmp_path, policy=replace(QUICK, backoff_s=0.3, backoff_cap_s=0.3), checksums=(sha256(OTHER),))
        swapper.join()
    assert (tmp_path / "a.bin").read_bytes() == OTHER


def test_without_a_strong_validator_and_without_a_checksum_nothing_is_resumed(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5"]}, etag="weak") as server:
        fetch(server, tmp_path)
        assert [a.range for a in server.asked("a.bin")] == [None, None]


def test_a_date_serves_as_a_validator_once_it_is_old_enough(tmp_path: Path) -> None:
    day = "Mon, 06 Jan 2020 10:00:00 GMT"
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5"]}, etag="none", last_modified=day) as server:
        fetch(server, tmp_path)
        assert server.asked("a.bin")[1].headers["if-range"] == day


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_no_is_not_asked_twice(tmp_path: Path, status: int) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [f"*status:{status}"]}) as server:
        with pytest.raises(SourceRefused, match=f"a.bin: 127.0.0.1 answered {status}"):
            fetch(server, tmp_path)
        assert len(server.log) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("fault", ["status:429:1", "date:2"])
def test_the_server_may_ask_for_a_pause(tmp_path: Path, fault: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}) as server:
        began = time.monotonic()
        fetch(server, tmp_path)
        assert 0.9 <= time.monotonic() - began < 3


def test_a_pause_without_end_is_capped(tmp_path: Path) -> None:
    assert QUICK.wait_s(1, 1e9) == QUICK.retry_after_cap_s
    assert parse_retry_after("nonsense") is None
    assert parse_retry_after("120") == 120


@pytest.mark.parametrize("fault", ["*bitflip", "*garbage"])
def test_wrong_bytes_are_fetched_twice_then_put_aside(tmp_path: Path, fault: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}) as server:
        with pytest.raises(ChecksumMismatch, match=r"a\.bin: .*expected [0-9a-f]{64}; got [0-9a-f]{64}"):
            fetch(server, tmp_path, checksums=(sha256(CONTENT),))
        assert len(server.log) == 2
        assert names(tmp_path) == ["a.bin.bad"]
        server.faults.clear()
        fetch(server, tmp_path, checksums=(sha256(CONTENT),))
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("fault", ["*reset:0.0", "*stall:0.01:2", "*status:503", "*fin:0.2", "*hugehdr"])
def test_a_fault_that_stays_ends_in_one_line_and_keeps_what_came(tmp_path: Path, fault: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}) as server:
        with pytest.raises(SourceUnavailable, match=r"a\.bin"):
            fetch(server, tmp_path)
        assert not (tmp_path / "a.bin").exists()
        server.faults.clear()
        held = (tmp_path / "a.bin.part").stat().st_size if (tmp_path / "a.bin.part").exists() else 0
        before = server.sent_bytes("a.bin")
        fetch(server, tmp_path)
        assert server.sent_bytes("a.bin") - before <= 1.1 * (len(CONTENT) - held)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_silence_ends_within_its_timeout(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*stall:0.0:4"]}) as server:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="the server went silent"):
            fetch(server, tmp_path, policy=replace(QUICK, attempts=1))
        assert time.monotonic() - began < QUICK.silence_timeout_s + 1


def test_a_drip_is_given_up(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*drip:0.05"]}) as server:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="bytes/s came"):
            fetch(server, tmp_path, policy=replace(QUICK, attempts=1))
        assert time.monotonic() - began < 2


def test_progress_earns_new_patience(tmp_path: Path) -> None:
    faults = ["reset:0.2"] * 10
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": faults}) as server:
        fetch(server, tmp_path, policy=replace(QUICK, attempts=2, progress_bytes=10_000))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_web_page_is_not_an_archive(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*html"]}) as server:
        with pytest.raises(SourceRefused, match=r"a web page came, not an archive.*licence"):
            fetch(server, tmp_path, size_bytes=None)
        assert len(server.log) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "kind", "block"),
    [
        (b"<!-- v2 -->\n<?xml version='1.0'?><!DOCTYPE html><html></html>", "application/zip", 100),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "application/zip", 1),
        (b"<form action='/login'>", "text/html; charset=utf-8", 100),
        (b"Please log in", "text/html", 100),
    ],
)
def test_a_web_page_is_known_however_it_begins_and_comes(tmp_path: Path, page: bytes, kind: str, block: int) -> None:
    server = FaultyServer({"a.bin": page}, block_bytes=block, headers={"Content-Type": kind})
    with server, pytest.raises(SourceRefused, match="a web page came"):
        fetch(server, tmp_path, size_bytes=None)
    assert names(tmp_path) == []


def test_a_page_of_nothing_but_comments_is_judged_at_once(tmp_path: Path) -> None:
    page = b"<!---->" * 20_000 + b"<svg>"
    with FaultyServer({"a.bin": page}) as server:
        began = time.process_time()
        fetch(server, tmp_path, size_bytes=None)
        assert time.process_time() - began < 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{" * 3])
def test_a_listing_that_cannot_be_parsed_is_refused(body: bytes) -> None:
    with FaultyServer({"list": body}) as server, pytest.raises(SourceRefused, match="not JSON"):
        Client(QUICK, threading.Event()).json(server.url("list"), where="a host")


def test_a_listing_that_drips_is_given_up() -> None:
    policy = replace(QUICK, attempts=1)
    server = FaultyServer({"list": b"x" * 100}, {"list": ["*drip:0.05"]})
    with server, pytest.raises(SourceUnavailable, match="bytes/s came"):
        Client(policy, threading.Event()).text(server.url("list"), where="a host")


def test_bytes_that_the_server_calls_a_page_are_taken(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, headers={"Content-Type": "text/html"}) as server:
        fetch(server, tmp_path, size_bytes=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT, CONTENT[:3000]])
def test_a_stated_length_that_is_too_short_is_no_success(tmp_path: Path, content: bytes) -> None:
    server = FaultyServer({"a.bin": content}, {"a.bin": ["*cllow"]})
    with server, pytest.raises(ChecksumMismatch, match="beyond its stated length"):
        fetch(server, tmp_path, size_bytes=None)
    assert not (tmp_path / "a.bin").exists()
    with FaultyServer({"a.bin": content}, {"a.bin": ["cllow"]}) as server:
        fetch(server, tmp_path, size_bytes=None)
    assert (tmp_path / "a.bin").read_bytes() == content


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "\xb2"},
        {"Content-Length": "9" * 5000},
        {"Date": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Last-Modified": "Mon, 01 Jan 2001 00:00:00 GMT"},
    ],
)
def test_numbers_and_dates_that_make_no_sense_are_one_of_our_errors(tmp_path: Path, headers: dict[str, str]) -> None:
    answer = Answer(status=200, headers=headers, url="", response=HTTPResponse(b""), where="a.bin")
    version = Version.of(headers, source="", total=None)
    assert version.validator == ""
    if "Content-Length" in headers:
        with pytest.raises(SourceUnavailable, match="makes no sense"):
            _ = answer.length
    assert parse_retry_after(headers.get("Date") or headers["Content-Length"]) in (None, float("inf"))


def test_a_confirm_page_is_passed_through_and_the_file_behind_it_resumed(tmp_path: Path) -> None:
    page = b"<html><form action='/b.bin'></form></html>"
    with FaultyServer({"page": page, "b.bin": CONTENT}, {"b.bin": ["reset:0.5"]}) as server:
        fetch(server, tmp_path, path="page", through_page=lambda text, url: url.replace("page", "b.bin"))
        assert [a.range is None for a in server.asked("b.bin")] == [True, False]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_body_without_end_is_cut_at_the_cap(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*infinite"]}) as server:
        with pytest.raises(ChecksumMismatch, match="beyond its stated length"):
            fetch(server, tmp_path)
        (tmp_path / "a.bin.bad").unlink()
        asked = len(server.log)
        with pytest.raises(SourceRefused, match=f"no end; expected at most {QUICK.max_unknown_bytes} bytes"):
            fetch(server, tmp_path, size_bytes=None)
        assert len(server.log) == asked + 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("header", ["Content-MD5", "x-goog-hash"])
def test_a_digest_in_the_answers_head_is_checked_where_none_is_published(tmp_path: Path, header: str) -> None:
    digest = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    value = digest if header == "Content-MD5" else f"crc32c=AAAAAA==, md5={digest}"
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["bitflip", "reset:0.5"]}, headers={header: value}) as server:
        fetch(server, tmp_path)
        assert [a.range is None for a in server.log] == [True, True, False]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_redirects_are_followed_without_the_credentials(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}) as other, FaultyServer({}, redirects={"go": other.url("a.bin")}) as server:
        fetch(server, tmp_path, path="go", credentials={"Authorization": "Bearer secret", "X-Key": "secret"})
        assert server.log[0].headers["authorization"] == "Bearer secret"
        assert "secret" not in str(other.log[0].headers)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_cookie_goes_to_no_other_port(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}) as other, FaultyServer({}, redirects={"go": other.url("a.bin")}) as server:
        server.redirect_headers = {"Set-Cookie": "sid=secret; Path=/"}
        fetch(server, tmp_path, path="go")
        assert "cookie" not in other.log[0].headers
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "target",
    ["/go", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1", "http://127.0.0.1:99999/x", "http://h:x/"],
)
def test_redirects_end(tmp_path: Path, target: str) -> None:
    with FaultyServer({}, redirects={"go": target}) as server:
        with pytest.raises(SourceRefused, match=r"redirect|not a web address"):
            fetch(server, tmp_path, path="go")
        assert len(server.log) <= QUICK.max_redirects + 1
    assert names(tmp_path) == []


def test_a_dead_host_costs_its_full_patience_twice_and_no_more(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}) as server:
        url = server.url("a.bin")
    engine = Engine(QUICK, threading.Event())
    for index in range(5):
        with pytest.raises(SourceUnavailable, match="no connection"):
            engine.download(Job(url=url, target=tmp_path / f"{index}.bin"))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EFBIG, "the file is too large here"),
    ],
)
def test_a_full_disk_is_named_and_what_came_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    with FaultyServer({"a.bin": CONTENT}) as server:
        with pytest.raises(NoSpace, match=r"a\.bin: the disk is too small; expected"):
            fetch(server, tmp_path, policy=replace(QUICK, reserve_bytes=1 << 60))
        real_write, limit = part_module.os.pwrite, 400_000

        def write(descriptor: int, block: Any, at: int) -> int:
            if at + len(block) > limit:
                raise OSError(number, "No space left on device")
            return real_write(descriptor, block, at)

        monkeypatch.setattr(part_module.os, "pwrite", write)
        with pytest.raises(NoSpace, match=rf"a\.bin: {words}; expected room for [0-9,]+ bytes more"):
            fetch(server, tmp_path)
        monkeypatch.undo()
        assert names(tmp_path) == ["a.bin.part", "a.bin.state.part"]
        fetch(server, tmp_path)
        assert server.log[-1].range is not None
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_stop_leaves_a_part_that_the_next_run_resumes(tmp_path: Path) -> None:
    stop = threading.Event()
    with FaultyServer({"a.bin": CONTENT}, block_bytes=50_000, delay_s=0.01) as server:
        seen = 0

        class Stopper(Watcher):
            def add(self, size: int) -> None:
                nonlocal seen
                seen += size
                if seen > 300_000:
                    stop.set()

        with pytest.raises(Stopped):
            Engine(QUICK, stop, Stopper()).download(Job(url=server.url("a.bin"), source="s", target=tmp_path / "a.bin"))
        assert names(tmp_path) == ["a.bin.part", "a.bin.state.part"]
        fetch(server, tmp_path, source="s")
        assert server.log[-1].range is not None
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


class Tally(Watcher):
    """What a watcher was told, in sums."""

    def __init__(self) -> None:
        self.held = self.expected = self.seen = 0

    def hold(self, size: int) -> None:
        self.held += size

    def expect(self, size: int) -> None:
        self.expected += size

    def add(self, size: int) -> None:
        self.seen += size


@pytest.mark.parametrize("faults", [[], ["reset:0.5"], ["norange"], ["reset:0.5", "norange"], ["bitflip"]])
@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("held", [0, 400_000])
def test_what_a_watcher_is_told_sums_to_the_file(tmp_path: Path, faults: list[str], published: bool, held: int) -> None:
    tally, size = Tally(), len(CONTENT) if published else None
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:held])
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": list(faults)}) as server:
        job = Job(url=server.url("a.bin"), target=tmp_path / "a.bin", size_bytes=size, checksums=(sha256(CONTENT),))
        Engine(QUICK, threading.Event(), tally).download(job)
    assert tally.held == held
    assert tally.held + tally.seen == len(CONTENT)
    assert tally.expected == (0 if published else len(CONTENT))


def test_a_part_of_another_object_is_not_resumed_without_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    with FaultyServer({"a.bin": CONTENT}) as server:
        fetch(server, tmp_path)
        assert server.log[0].range is None
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_that_was_whole_when_the_run_died_is_checked_and_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    with FaultyServer({"a.bin": CONTENT}) as server:
        fetch(server, tmp_path, checksums=(sha256(CONTENT),))
        assert server.log == []
    assert names(tmp_path) == ["a.bin"]


def test_messages_hold_no_part_of_a_signed_url(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="openus_data")
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5", "status:503", "*status:403"]}) as server:
        url, key = server.url("a.bin?X-Amz-Signature=c0ffee"), {"Authorization": "Bearer c0ffee"}
        with pytest.raises(SourceError) as caught:
            fetch(server, tmp_path, url=url, credentials=key)
        assert server.log[0].headers["authorization"] == "Bearer c0ffee"
    assert "c0ffee" not in caplog.text + str(caught.value)
    assert caplog.text
    assert all("c0ffee" not in p.read_text(errors="replace") for p in tmp_path.glob("*.state.part") if p.is_file())


def test_a_listing_is_tried_again_and_must_be_json() -> None:
    client = Client(QUICK, threading.Event())
    with FaultyServer({"l": b'{"a": [1]}', "h": b"<html>"}, {"l": ["status:503", "reset:0.5"]}) as server:
        assert client.json(server.url("l"), where="list") == {"a": [1]}
        with pytest.raises(SourceRefused, match="not JSON"):
            client.json(server.url("h"), where="list")


@pytest.mark.parametrize("checksummed", [True, False])
def test_a_server_that_always_encodes_the_body_is_decoded(tmp_path: Path, checksummed: bool) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*gzipenc"]}) as server:
        fetch(server, tmp_path, checksums=(sha256(CONTENT),) if checksummed else ())
        assert len(server.log) == 1
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(CONTENT)[:-1000], "gzip"),
        (gzip.compress(CONTENT) + b"more", "gzip"),
        (gzip.compress(CONTENT), "br"),
        (gzip.compress(gzip.compress(CONTENT)), "gzip, gzip"),
    ],
)
def test_an_encoded_body_that_is_cut_or_of_another_kind_is_no_success(
    tmp_path: Path, body: bytes, encoding: str
) -> None:
    server = FaultyServer({"a.bin": body}, headers={"Content-Encoding": encoding})
    with server, pytest.raises(SourceError, match="encod"):
        fetch(server, tmp_path, size_bytes=None)
    assert not (tmp_path / "a.bin").exists()


def test_an_encoded_body_of_several_members_is_decoded_whole(tmp_path: Path) -> None:
    body = gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:])
    with FaultyServer({"a.bin": body}, headers={"Content-Encoding": "gzip"}) as server:
        fetch(server, tmp_path, size_bytes=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_what_a_kill_in_the_middle_of_the_decoding_leaves_goes(tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "a.bin.decoded.part").write_bytes(b"half of it")
    with FaultyServer({"a.bin": CONTENT}) as server:
        fetch(server, tmp_path)
    assert names(tmp_path) == ["a.bin"]
