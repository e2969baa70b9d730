"""A build with nothing new reads no picture, and what it does not read cannot deceive it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_builds import inline, run_build, times, tree, write_pictures

from openus_data.first_stage import candidate, seen
from openus_data.first_stage.seen import SeenFiles
from openus_data.verify import verify

__all__ = ["inline"]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files just written count as settled, which else takes two seconds."""
    monkeypatch.setattr(seen, "_RACY_SECONDS", -1.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were hashed."""
    found: list[Path] = []
    real: Callable[[Path, bytes], str] = candidate.keyed_digest

    def noted(path: Path, key: bytes) -> str:
        found.append(path)
        return real(path, key)

    monkeypatch.setattr(candidate, "keyed_digest", noted)
    return found


def test_an_unchanged_folder_is_listed_and_not_read(
    tmp_path: Path, inline: None, settled: None, reads: list[Path]
) -> None:
    write_pictures(tmp_path / "images", range(5))
    (tmp_path / "images/p0/notes.txt").write_text("no picture")
    first = run_build(tmp_path, tmp_path / "images")
    before, stamps = tree(tmp_path / "out"), times(tmp_path / "out")
    reads.clear()
    report = run_build(tmp_path, tmp_path / "images")
    assert reads == []
    assert (report.worked_on, report.reused, report.is_changed) == (0, 6, False)
    assert (report.failures, report.exit_code) == (first.failures, first.exit_code)
    assert report.to_json()["datasets"] == first.to_json()["datasets"]
    assert tree(tmp_path / "out") == before and times(tmp_path / "out") == stamps


def test_a_file_just_written_is_read_again(tmp_path: Path, inline: None, reads: list[Path]) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    reads.clear()
    assert run_build(tmp_path, tmp_path / "images").reused == 3
    assert len(reads) == 3


def test_another_content_of_the_same_size_and_time_is_seen(tmp_path: Path, inline: None, settled: None) -> None:
    write_pictures(tmp_path / "images", range(3))
    victim = tmp_path / "images/p0/000.png"
    victim.write_bytes((tmp_path / "images/p1/002.png").read_bytes() + b"tail")
    run_build(tmp_path, tmp_path / "images")
    state = victim.stat()
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run_build(tmp_path, tmp_path / "images").worked_on == 1


@pytest.mark.parametrize("damage", ["gone", "torn", "of another kind"])
def test_a_damaged_memory_costs_time_and_nothing_else(
    tmp_path: Path, inline: None, settled: None, reads: list[Path], damage: str
) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    before = tree(tmp_path / "out")
    (memory,) = (tmp_path / "root/.seen").rglob("*.npy")
    if damage == "gone":
        shutil.rmtree(tmp_path / "root/.seen")
    else:
        memory.write_bytes(memory.read_bytes()[:40] if damage == "torn" else b"hello")
    reads.clear()
    assert run_build(tmp_path, tmp_path / "images").reused == 3
    assert len(reads) == 3 and tree(tmp_path / "out") == before


def test_a_file_taken_away_and_a_shard_taken_away_are_noticed(tmp_path: Path, inline: None, settled: None) -> None:
    write_pictures(tmp_path / "images", range(5))
    run_build(tmp_path, tmp_path / "images")
    (tmp_path / "images/p2/004.png").unlink()
    assert run_build(tmp_path, tmp_path / "images").samples == 4
    next((tmp_path / "out/shards").rglob("*.tar")).unlink()
    assert run_build(tmp_path, tmp_path / "images").worked_on == 4
    assert verify(tmp_path / "out").faults == ()


@pytest.mark.parametrize("name", ["manifest.parquet", "rejects.parquet", ".records", "build.json"])
def test_a_damaged_table_is_made_again(tmp_path: Path, inline: None, settled: None, name: str) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    before = tree(tmp_path / "out")
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    run_build(tmp_path, tmp_path / "images")
    assert tree(tmp_path / "out") == before


def test_a_missing_data_card_is_written_again(tmp_path: Path, inline: None, settled: None) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    before = tree(tmp_path / "out")
    (tmp_path / "out/datacard.md").unlink()
    run_build(tmp_path, tmp_path / "images")
    assert tree(tmp_path / "out") == before


def test_a_dataset_added_leaves_the_memory_of_the_others(
    tmp_path: Path, inline: None, settled: None, reads: list[Path]
) -> None:
    write_pictures(tmp_path / "images", range(4))
    write_pictures(tmp_path / "more", range(20, 22))
    run_build(tmp_path, tmp_path / "images")
    run_build(tmp_path, tmp_path / "more", name="other")
    reads.clear()
    for folder, name in (("images", "clinic"), ("more", "other")):
        report = run_build(tmp_path, tmp_path / folder, name=name)
        assert (report.is_changed, report.worked_on, set(report.datasets)) == (False, 0, {"clinic", "other"})
    assert reads == []


def test_a_key_is_found_again(tmp_path: Path) -> None:
    memory = SeenFiles.load(tmp_path, tmp_path / "out", "clinic")
    keys = [2**64 - 1, 0, 17]
    assert not any(key in memory for key in keys)
    memory.save(keys)
    again = SeenFiles.load(tmp_path, tmp_path / "out", "clinic")
    assert all(key in again for key in keys) and 18 not in again
