"""Small files: in memory until they are whole, and otherwise with every promise that a large one has."""

from __future__ import annotations

import errno
import hashlib
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer

from openus_data.errors import ChecksumMismatch, NoSpace, SourceUnavailable
from openus_data.transfer import Engine, Job, Policy
from openus_data.transfer import part as part_module

QUICK = Policy(
    connect_timeout_s=2, silence_timeout_s=0.5, attempts=2, backoff_s=0.01, backoff_cap_s=0.05, reserve_bytes=0
)
CONTENT = random.Random(3).randbytes(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHECKED = {"checksums": (f"sha256:{SHA256}",)}


def fetch(server: FaultyServer, folder: Path, *, policy: Policy = QUICK, name: str = "a.bin", **job: Any) -> Any:
    url = server.url(name)
    return Engine(policy, threading.Event()).download(Job(**{"url": url, "source": url, "target": folder / name} | job))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_disk_sees_a_small_file_only_once_it_is_whole(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, block_bytes=5_000, delay_s=0.02) as server:
        thread = threading.Thread(target=fetch, args=(server, tmp_path))
        thread.start()
        while sum(a.sent for a in server.log) < 20_000:
            time.sleep(0.005)
        assert names(tmp_path) == []
        thread.join()
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["reset:0.5", "fin:0.5", "stall:0.5:2"])
def test_a_broken_body_goes_on_from_what_is_in_memory(tmp_path: Path, fault: str) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": [fault]}, block_bytes=5_000) as server:
        assert fetch(server, tmp_path).sha256 == SHA256
        first, second = server.log
        assert int(str(second.range).removeprefix("bytes=").removesuffix("-")) > 0
        assert first.sent + second.sent <= len(CONTENT) + server.block_bytes
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_what_came_before_the_last_try_failed_is_kept_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["reset:0.5", "*status:503"]}, block_bytes=5_000) as server:
        with pytest.raises(SourceUnavailable):
            fetch(server, tmp_path, **CHECKED)
        assert names(tmp_path) == ["a.bin.part"]
        held = (tmp_path / "a.bin.part").read_bytes()
        assert held
        assert CONTENT.startswith(held)
        server.faults.clear()
        assert fetch(server, tmp_path, **CHECKED).received_bytes == len(CONTENT) - len(held)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_wrong_bytes_twice_are_put_aside_and_right_ones_clear_them_away(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT}, {"a.bin": ["*bitflip"]}) as server:
        with pytest.raises(ChecksumMismatch, match="is not the published one"):
            fetch(server, tmp_path, **CHECKED)
        assert len(server.log) == 2
        assert names(tmp_path) == ["a.bin.bad"]
        assert (tmp_path / "a.bin.bad").read_bytes()[1:] == CONTENT[1:]
        server.faults.clear()
        fetch(server, tmp_path, **CHECKED)
    assert names(tmp_path) == ["a.bin"]


def test_an_encoded_body_is_decoded_and_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with FaultyServer({"a.bin": CONTENT, "b.bin": b""}, {"a.bin": ["*gzipenc"]}) as server:
        assert fetch(server, tmp_path, **CHECKED).size_bytes == len(CONTENT)
        assert fetch(server, tmp_path, name="b.bin", size_bytes=0).size_bytes == 0
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin", "b.bin"]


def test_a_disk_that_is_full_at_the_last_moment_is_named_and_nothing_torn_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = part_module.os.pwrite

    def write(descriptor: int, block: Any, at: int) -> int:
        if at or len(block) < len(CONTENT):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, block[:1000], at)

    with FaultyServer({"a.bin": CONTENT}) as server:
        monkeypatch.setattr(part_module.os, "pwrite", write)
        with pytest.raises(NoSpace, match=r"a\.bin: the disk is full; expected room for 50,000 bytes more"):
            fetch(server, tmp_path)
        monkeypatch.undo()
        assert names(tmp_path) == []
        fetch(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
