"""Shards are plain tars with the same bytes every time, and damage to them is seen."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import example, given
from hypothesis import strategies as st

from openus_data import shards
from openus_data.errors import CorpusError

SAMPLES = [
    ("a-01", [("png", b"P" * 700), ("json", b"{}")]),
    ("b_02", [("jpg", b""), ("json", b"{}"), ("mask.png", b"m" * 512)]),
]


def write(out: Path) -> shards.Sidecar:
    with shards.ShardWriter(out, "train", 3) as shard:
        for sample_id, files in SAMPLES:
            shard.add(sample_id, files)
    return shard.sidecar


def test_a_shard_is_a_tar_with_fixed_owner_mode_and_time(tmp_path: Path) -> None:
    write(tmp_path)
    with tarfile.open(tmp_path / "shards/train/openus-train-000003.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == ["a-01.png", "a-01.json", "b_02.jpg", "b_02.json", "b_02.mask.png"]
        assert {(m.uid, m.gid, m.mode, m.mtime, m.uname, m.gname) for m in members} == {(0, 0, 0o644, 0, "", "")}
        handle = tar.extractfile(members[0])
        assert handle is not None and handle.read() == b"P" * 700
    assert (tmp_path / "shards/train/openus-train-000003.tar").stat().st_size % shards.RECORD_BYTES == 0


def test_tarfile_reads_the_header_strictly() -> None:
    for name, size in [("a.png", 0), ("x" * 96 + ".png", 123456789)]:
        info = tarfile.TarInfo.frombuf(shards.tar_header(name, size), "ascii", "strict")
        assert (info.name, info.size, info.type) == (name, size, tarfile.REGTYPE)


@pytest.mark.filterwarnings("ignore")  # the stock reader leaves its file open
def test_the_stock_reader_gets_every_sample(tmp_path: Path) -> None:
    write(tmp_path)
    pipeline = webdataset.WebDataset(str(tmp_path / "shards/train/openus-train-000003.tar"), shardshuffle=False)
    samples = list(pipeline)
    assert [s["__key__"] for s in samples] == ["a-01", "b_02"]
    assert samples[1]["mask.png"] == b"m" * 512


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1"), write(tmp_path / "2")
    assert first == second
    name = "shards/train/openus-train-000003"
    for suffix in (".tar", ".json"):
        assert (tmp_path / "1" / (name + suffix)).read_bytes() == (tmp_path / "2" / (name + suffix)).read_bytes()


def test_the_sidecar_reads_back_and_addresses_every_member(tmp_path: Path) -> None:
    sidecar = write(tmp_path)
    path = tmp_path / "shards/train/openus-train-000003.tar"
    assert shards.read_sidecar(path) == sidecar
    with path.open("rb") as handle:
        assert tuple(shards.walk_tar(handle)) == sidecar.members
    row = {"shard": "shards/train/openus-train-000003.tar", "offset": sidecar.members[0].offset, "size_bytes": 700}
    assert shards.read_member(tmp_path, row) == b"P" * 700


def test_an_error_leaves_no_shard_behind(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="WebDataset would cut"), shards.ShardWriter(tmp_path, "train", 0) as shard:
        shard.add("1.2.840", [("png", b"")])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    "name",
    ["../x.tar", "/etc/passwd", "pipe:cat", "shards/train/openus-val-000000.tar", "shards/x/openus-x-000000.tar"],
)
def test_a_row_cannot_name_a_file_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match="not the name of a shard"):
        shards.read_member(tmp_path, {"shard": name, "offset": 0, "size_bytes": 1})


@pytest.mark.parametrize("cut", [100, 512, 1000, 1536, 3000])
def test_a_cut_tar_raises_wherever_it_is_cut(tmp_path: Path, cut: int) -> None:
    write(tmp_path)
    data = (tmp_path / "shards/train/openus-train-000003.tar").read_bytes()[:cut]
    with pytest.raises(CorpusError):
        list(shards.walk_tar(io.BytesIO(data)))


@example(at=124, bit=3)
@given(st.integers(0, 511), st.integers(0, 7))
def test_a_flipped_bit_in_a_header_raises(at: int, bit: int) -> None:
    block = bytearray(shards.tar_header("a-01.png", 4))
    block[at] ^= 1 << bit
    with pytest.raises(CorpusError):
        list(shards.walk_tar(io.BytesIO(bytes(block) + b"\0" * 1536)))


@given(st.lists(st.integers(1, 5000), max_size=60), st.integers(1, 9), st.integers(2000, 9000))
def test_a_plan_takes_every_sample_once_and_keeps_the_bounds(sizes: list[int], most: int, room: int) -> None:
    counts = shards.plan_shards(sizes, max_samples=most, max_bytes=room)
    assert sum(counts) == len(sizes) and all(0 < c <= most for c in counts)
    at = 0
    for count in counts:
        part = sizes[at : at + count]
        assert count == 1 or sum(part) <= room - 1024
        at += count


def test_offsets_are_known_before_writing(tmp_path: Path) -> None:
    sidecar = write(tmp_path)
    assert shards.member_offsets([m.size for m in sidecar.members]) == [m.offset for m in sidecar.members]
