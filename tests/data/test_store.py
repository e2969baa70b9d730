"""store: whole or absent, and one run per folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openus_data.errors import LockedError
from openus_data.store import (
    digest_file,
    folder_lock,
    free_bytes,
    sha256_file,
    write_aside,
    write_bytes_aside,
    write_text_aside,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    with write_aside(target) as handle:
        handle.write(b"one")
        assert not target.exists()
        assert names(target.parent)[0].endswith(".part")
    assert target.read_bytes() == b"one"
    assert names(target.parent) == ["a.bin"]


def test_a_failed_block_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes_aside(target, b"old")
    with pytest.raises(KeyboardInterrupt), write_aside(target) as handle:
        handle.write(b"new")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_the_handle_can_be_read_back_and_sought_in(tmp_path: Path) -> None:
    with write_aside(tmp_path / "a.bin") as handle:
        handle.write(b"0123456789")
        handle.seek(2)
        assert handle.read(3) == b"234"
    assert (tmp_path / "a.bin").read_bytes() == b"0123456789"


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with write_aside(target) as first, write_aside(target) as second:
        first.write(b"first" * 100)
        second.write(b"second")
    assert target.read_bytes() == b"first" * 100  # the outer block ended last


def test_text_is_utf8_with_the_line_ends_it_was_given(tmp_path: Path) -> None:
    write_text_aside(tmp_path / "t", "é\r\n\n")
    assert (tmp_path / "t").read_bytes() == b"\xc3\xa9\r\n\n"


def test_a_very_long_name_still_has_room_for_the_suffix(tmp_path: Path) -> None:
    write_bytes_aside(tmp_path / ("n" * 250), b"x")
    assert names(tmp_path) == ["n" * 250]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes_aside(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_held_folder_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "busi"):
        with pytest.raises(LockedError, match="busi: another run works in this folder"), folder_lock(tmp_path / "busi"):
            pass
        with folder_lock(tmp_path / "other"):
            pass
    before = (tmp_path / "busi" / ".lock").stat().st_mtime_ns
    with folder_lock(tmp_path / "busi"):
        pass
    assert (tmp_path / "busi" / ".lock").stat().st_mtime_ns == before


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from openus_data.store import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError), folder_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with folder_lock(tmp_path):
        pass


def test_digests_are_those_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert digest_file(tmp_path / "a", "md5") == hashlib.md5(content).hexdigest()


def test_free_space_is_asked_of_the_disk_even_for_a_folder_to_come(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path / "not" / "there" / "yet") <= free_bytes(Path("/")) * 10**9
