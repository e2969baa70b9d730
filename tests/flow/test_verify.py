"""Every kind of damage to a corpus is found, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_builds import InlineExecutor, run_build, write_pictures

from openus_data import build as build_module
from openus_data.errors import CorpusError, UsageError
from openus_data.manifest import TableWriter, read_manifest
from openus_data.schema import MANIFEST_NAME, REJECTS_NAME, manifest_schema
from openus_data.verify import FAULT_KINDS, verify

SMALL_SHARDS = "shards: {most_samples: 4}\nquality: {least_side_px: 8}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in three shards."""
    tmp = tmp_path_factory.mktemp("corpus")
    write_pictures(tmp / "images", range(12))
    (tmp / "small.yaml").write_text(SMALL_SHARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "open_executor", lambda *args, **options: InlineExecutor())
        run_build(tmp, tmp / "images", recipe=str(tmp / "small.yaml"))
    return tmp / "out"


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(corpus, tmp_path / "out"))


def shard(out: Path, number: int) -> Path:
    return out / f"shards/pretrain/openus-pretrain-{number:06d}.tar"


def test_a_sound_corpus_has_no_fault(corpus: Path) -> None:
    report = verify(corpus)
    assert (report.exit_code, report.shards, report.samples) == (0, 3, 12)
    assert report.to_json()["ok"] and "no fault" in report.to_text()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def remove_shard(out: Path) -> None:
    shard(out, 1).unlink()


def add_shard(out: Path) -> None:
    for suffix in (".tar", ".json"):
        shutil.copy(shard(out, 0).with_suffix(suffix), shard(out, 7).with_suffix(suffix))


def tear_shard(out: Path) -> None:
    shard(out, 1).write_bytes(shard(out, 1).read_bytes()[:9000])


def flip_in_a_picture(out: Path) -> None:
    flip(shard(out, 1), 900)


def flip_in_a_header(out: Path) -> None:
    offset = json.loads(shard(out, 1).with_suffix(".json").read_bytes())["members"][3]["offset"]
    flip(shard(out, 1), offset - 500)


def swap_shards(out: Path) -> None:
    swap(shard(out, 0), shard(out, 1))


def swap_shards_and_sidecars(out: Path) -> None:
    swap_shards(out)
    swap(shard(out, 0).with_suffix(".json"), shard(out, 1).with_suffix(".json"))


def rename_shard(out: Path) -> None:
    for suffix in (".tar", ".json"):
        shard(out, 2).with_suffix(suffix).rename(shard(out, 5).with_suffix(suffix))


def drop_sidecar(out: Path) -> None:
    shard(out, 1).with_suffix(".json").unlink()


def write_manifest(out: Path, table: pa.Table) -> None:
    with TableWriter(out / MANIFEST_NAME, manifest_schema()) as writer:
        writer.write_table(table)


def add_row(out: Path) -> None:
    table = read_manifest(out)
    extra = table.slice(0, 1).to_pylist()[0] | {"sample_id": "clinic-00000000000000000000"}
    write_manifest(out, pa.concat_tables([table, pa.Table.from_pylist([extra], schema=table.schema)]))


def drop_row(out: Path) -> None:
    write_manifest(out, read_manifest(out).slice(1))


def move_row(out: Path) -> None:
    rows = read_manifest(out).to_pylist()
    rows[0]["offset"] += 512
    write_manifest(out, pa.Table.from_pylist(rows, schema=manifest_schema()))


def relabel_row(out: Path) -> None:
    rows = read_manifest(out).to_pylist()
    rows[0]["split"] = "test"
    write_manifest(out, pa.Table.from_pylist(rows, schema=manifest_schema()))


def empty_rejects(out: Path) -> None:
    pq.write_table(pq.read_table(out / REJECTS_NAME).slice(0, 0), out / REJECTS_NAME, compression="none")


def tear_rejects(out: Path) -> None:
    (out / REJECTS_NAME).write_bytes(b"PAR1")


def leave_a_part(out: Path) -> None:
    (out / "shards/pretrain/x.tar.abc.part").write_bytes(b"")


def drop_build(out: Path) -> None:
    (out / "build.json").write_text("{")


DAMAGES: dict[Callable[[Path], None], set[str]] = {
    remove_shard: {"shard_missing"},
    add_shard: {"shard_extra", "sample_repeated"},
    tear_shard: {"shard_torn"},
    flip_in_a_picture: {"shard_changed", "sample_damaged"},
    flip_in_a_header: {"shard_changed", "shard_torn", "sample_missing"},
    swap_shards: {"shard_changed", "sample_missing", "sample_extra"},
    swap_shards_and_sidecars: {"build_differs", "sample_missing", "sample_extra"},
    rename_shard: {"shard_missing", "shard_extra"},
    drop_sidecar: {"sidecar_missing"},
    add_row: {"table_changed", "sample_missing"},
    drop_row: {"table_changed", "sample_extra", "counts_differ"},
    move_row: {"table_changed", "sample_misplaced"},
    relabel_row: {"table_changed", "split_differs"},
    empty_rejects: {"table_changed"},
    tear_rejects: {"table_changed", "table_torn"},
    leave_a_part: {"unfinished"},
    drop_build: {"build_missing"},
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_is_found_and_named(copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy)
    report = verify(copy)
    kinds = {f.kind for f in report.faults}
    assert report.exit_code == 1 and kinds >= DAMAGES[damage] and kinds <= set(FAULT_KINDS)
    assert all(f.where in report.to_text() for f in report.faults)


def test_one_flipped_byte_names_the_one_sample(copy: Path) -> None:
    flip_in_a_picture(copy)
    damaged = [f.sample_id for f in verify(copy).faults if f.kind == "sample_damaged"]
    rows = read_manifest(copy).to_pylist()
    assert damaged == [r["sample_id"] for r in rows if r["shard"].endswith("000001.tar")][:1]


def test_no_folder_and_no_manifest_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(CorpusError, match="no finished build"):
        verify(tmp_path)
