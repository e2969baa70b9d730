"""The searching engine finds what is hidden, in every form it claims; a blind engine would pass every leak."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canary_search import Searcher
from planted import Canaries


@pytest.fixture
def planted() -> tuple[Searcher, str]:
    canary = Canaries()
    word = canary("the place")
    return Searcher(canary, {"19610307": "the birth date"}), word


FORMS = (
    "plain", "upper", "utf-16-le", "utf-16-be", "hex", "base64", "base64 later", "zlib", "gzip", "md5", "sha256",
    "json escape", "date",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found(planted: tuple[Searcher, str], form: str) -> None:
    searcher, word = planted
    raw = word.encode()
    content = {
        "plain": b"xx" + raw,
        "upper": raw.upper(),
        "utf-16-le": word.encode("utf-16-le"),
        "utf-16-be": word.encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "base64": base64.b64encode(raw),
        "base64 later": base64.b64encode(b"abcde" + raw),
        "zlib": b"??" + zlib.compress(raw * 3),
        "gzip": gzip.compress(raw * 3),
        "md5": hashlib.md5(raw).hexdigest()[:20].encode(),
        "sha256": hashlib.sha256(raw).hexdigest().encode(),
        "json escape": json.dumps(word).replace("Qz", "\\u0051z").encode(),
        "date": b"born 19610307",
    }[form]
    assert searcher.in_bytes(content, "x")


def test_containers_are_opened(planted: tuple[Searcher, str], tmp_path: Path) -> None:
    searcher, word = planted
    table = pa.table({"a": [word, "b"]}).replace_schema_metadata({"note": word})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.uname, member.size = word, 5
        archive.addfile(member, io.BytesIO(b"plain"))
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.txt", word * 9)
    (tmp_path / f"{word}.txt").write_text("x")
    found = {leak.where.split(" ")[0] for leak in searcher.in_folders([tmp_path])}
    assert found == {"t.parquet", "t.tar", "t.zip", "name"}


def test_innocent_bytes_give_no_leak(planted: tuple[Searcher, str], tmp_path: Path) -> None:
    searcher, _ = planted
    (tmp_path / "a.json").write_text(json.dumps({"sample_id": "busi-0123456789abcdef0123", "n": list(range(500))}))
    (tmp_path / "b.bin").write_bytes(bytes(range(256)) * 400)
    assert searcher.in_folders([tmp_path]) == []
