"""SQL over the manifest: it reads, and can do nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_maker import make_corpus

from openus_data.errors import CorpusError, UsageError
from openus_data.query import query
from openus_data.records import Reject


@pytest.fixture
def out(tmp_path: Path) -> Path:
    samples = [{"organ": "breast"}, {"organ": "breast"}, {"organ": None}]
    rejects = [Reject(dataset="toy", item="00ff", stage="decode", reason="truncated", detail="cut")]
    return make_corpus(tmp_path / "out", samples, rejects=rejects)


def test_a_query_counts_rows_and_shows_unknown_as_empty(out: Path) -> None:
    report = query(out, "select organ, count(*) as images from manifest group by organ order by images desc")
    assert report.to_json() == {"columns": ["organ", "images"], "rows": [["breast", 2], [None, 1]]}
    assert report.to_text().splitlines()[2].split() == ["breast", "2"]
    assert query(out, "select reason from rejects", as_csv=True).to_text() == "reason\ntruncated"


@pytest.mark.parametrize(
    "sql",
    [
        "select nothing from manifest",
        "drop view manifest",
        "copy manifest to 'stolen.csv'",
        "select * from read_csv('/etc/passwd')",
        "attach 'x.db'",
        "select 1; select 2",
        "",
        "set enable_external_access = true",
    ],
)
def test_what_is_not_a_read_of_the_tables_is_refused(out: Path, sql: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        query(out, sql)
    assert not (tmp_path / "stolen.csv").exists() and not Path("stolen.csv").exists()


def test_a_folder_without_a_build_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no finished build"):
        query(tmp_path, "select 1")
