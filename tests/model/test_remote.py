"""Remote shards: copied once, checked against their sidecars, read like local ones."""

from __future__ import annotations

import functools
import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from openus_model.errors import DataError, MissingExtra
from openus_model.remote import local_copy
from openus_model.stream import ShardStream
from openus_model.views import CropGroup

GROUPS = (CropGroup(count=2, size=64, scale=(0.3, 1.0)),)


@pytest.fixture
def served(make_corpus) -> Iterator[tuple[Path, str, list[str]]]:
    """A corpus behind a server on loopback, and the paths that were asked for."""
    root, asked = make_corpus(8), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stream_over_http_gives_the_batches_of_the_local_one(served, tmp_path: Path) -> None:
    root, url, asked = served
    remote = ShardStream(url, batch_size=4, groups=GROUPS, cache=tmp_path / "cache")
    local = ShardStream(root, batch_size=4, groups=GROUPS)
    for a, b in zip(itertools.islice(remote, 3), local, strict=False):
        assert a.sample_ids == b.sample_ids and torch.equal(a.global_BVCHW, b.global_BVCHW)
    before = sum(path.endswith(".tar") for path in asked)
    ShardStream(url, batch_size=4, groups=GROUPS, cache=tmp_path / "cache")
    assert sum(path.endswith(".tar") for path in asked) == before == 3  # a copy that is sound is not fetched again


def test_a_shard_that_is_not_what_its_sidecar_says_is_refused_and_leaves_nothing(served, tmp_path: Path) -> None:
    root, url, _ = served
    shard = next((root / "shards" / "pretrain").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError, match="not what its sidecar says"):
        local_copy(url, "pretrain", tmp_path / "cache")
    assert (
        not list((tmp_path / "cache").rglob("*.part")) and not (tmp_path / "cache" / shard.relative_to(root)).exists()
    )


def test_a_missing_file_a_dead_server_and_an_unknown_scheme_are_said(served, tmp_path: Path) -> None:
    root, url, _ = served
    next((root / "shards" / "pretrain").glob("*.tar")).unlink()
    with pytest.raises(DataError, match="no such file"):
        local_copy(url, "pretrain", tmp_path / "cache")
    with pytest.raises(DataError, match="does not answer"):
        local_copy("http://127.0.0.1:9", None, tmp_path / "other")
    with pytest.raises((DataError, MissingExtra)):
        local_copy("nosuch://bucket/out", None, tmp_path / "third")


def test_a_file_url_is_the_folder_itself(make_corpus) -> None:
    root = make_corpus(4)
    assert local_copy(f"file://{root}", None, None) == root
