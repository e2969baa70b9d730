"""Equal rows give equal Parquet bytes, and a file that is not ours is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openus_data import manifest
from openus_data.errors import CorpusError
from openus_data.records import Reject
from openus_data.schema import MANIFEST_COLUMNS, MANIFEST_NAME, manifest_schema

EXAMPLES = {
    pa.string(): "x",
    pa.int32(): 1,
    pa.int64(): 2,
    pa.int8(): 1,
    pa.float64(): 0.5,
    pa.float32(): 0.5,
    pa.bool_(): True,
}


def row(**changes: object) -> dict[str, object]:
    return {c.name: None if c.nullable else EXAMPLES.get(c.type, []) for c in MANIFEST_COLUMNS} | changes


def test_rows_come_back_and_two_writes_are_equal(tmp_path: Path) -> None:
    shards = [[row(sample_id="a"), row(sample_id="b")], [row(sample_id="c", cone_polygon=[[0.0, 1.5]], labels="{}")]]
    for place in (tmp_path / "1", tmp_path / "2"):
        assert manifest.write_manifest(place, shards) == 3
    assert (tmp_path / "1" / MANIFEST_NAME).read_bytes() == (tmp_path / "2" / MANIFEST_NAME).read_bytes()
    table = manifest.read_manifest(tmp_path / "1")
    assert table.schema.equals(manifest_schema()) and table.column("sample_id").to_pylist() == ["a", "b", "c"]
    assert pq.ParquetFile(tmp_path / "1" / MANIFEST_NAME).num_row_groups == 2


def test_an_empty_build_still_has_the_schema(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, [])
    assert manifest.read_manifest(tmp_path).num_rows == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, "columns of the schema"),
        ({"sample_id": None}, "required"),
        ({"width_px": "wide"}, "another type"),
        ({"width_px": 2**40}, "another type"),
    ],
)
def test_a_wrong_row_is_refused_and_leaves_nothing(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(CorpusError, match=words):
        manifest.write_manifest(tmp_path, [[row(**change)]])
    assert list(tmp_path.iterdir()) == []


def test_nothing_foreign_is_in_the_metadata(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, [[row()]])
    metadata = pq.ParquetFile(tmp_path / MANIFEST_NAME).metadata.metadata
    assert set(metadata) == {b"openus.schema_version", b"ARROW:schema"}


def test_rejects_are_sorted_whatever_order_they_came_in(tmp_path: Path) -> None:
    rejects = [Reject(dataset="d", item=i, stage="decode", reason="torn") for i in "cab"]
    manifest.write_rejects(tmp_path / "1", rejects)
    manifest.write_rejects(tmp_path / "2", reversed(rejects))
    assert manifest.read_rejects(tmp_path / "1").column("item").to_pylist() == ["a", "b", "c"]
    assert (tmp_path / "1/rejects.parquet").read_bytes() == (tmp_path / "2/rejects.parquet").read_bytes()


def test_a_torn_a_foreign_and_a_missing_file_each_give_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="missing"):
        manifest.read_manifest(tmp_path)
    manifest.write_manifest(tmp_path, [[row()]])
    whole = (tmp_path / MANIFEST_NAME).read_bytes()
    (tmp_path / MANIFEST_NAME).write_bytes(whole[:-40])
    with pytest.raises(CorpusError, match="torn"):
        manifest.read_manifest(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / MANIFEST_NAME)
    with pytest.raises(CorpusError, match="another schema"):
        manifest.read_manifest(tmp_path)
