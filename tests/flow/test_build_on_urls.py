"""ROOT, OUT and private folders may lie on any URL that fsspec opens; the bytes are those of a local build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_builds import inline, run_build, tree, write_pictures

from openus_data.build import BuildRequest, build
from openus_data.errors import MissingExtra, UsageError
from openus_data.remote_folder import split_url

fsspec = pytest.importorskip("fsspec")
__all__ = ["inline"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store in memory, and a cache of its own."""
    monkeypatch.setenv("OPENUS_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    yield files
    for name in files.find("/"):
        files.rm_file(name)


def downloaded(files: Any, base: str, target: Path) -> dict[str, str]:
    for name in files.find(base):
        path = target / name.removeprefix(base).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.cat_file(name))
    return tree(target)


def test_a_build_from_and_to_an_object_store_is_the_local_one(tmp_path: Path, inline: None, server: Any) -> None:
    write_pictures(tmp_path / "images", range(5))
    run_build(tmp_path, tmp_path / "images", out="plain", policy="keep")
    reference = {n: d for n, d in tree(tmp_path / "plain").items() if n != ".lock"}
    server.put(str(tmp_path / "images"), "/bucket/images", recursive=True)
    request = BuildRequest(
        out=Path("memory://bucket/out"),
        images=Path("memory://bucket/images"),
        name="clinic",
        root=tmp_path / "root",
        policy="keep",
        quiet=True,
    )
    assert build(request).worked_on == 5
    assert downloaded(server, "/bucket/out", tmp_path / "copy") == reference
    before = {n: server.created(n) for n in server.find("/bucket/out")}
    assert build(request).reused == 5
    assert {n: server.created(n) for n in server.find("/bucket/out")} == before
    server.rm_file("/bucket/images/p0/000.png")
    build(request)
    assert downloaded(server, "/bucket/out", tmp_path / "copy2") != reference


def test_a_file_url_is_the_local_disk(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(2))
    run_build(tmp_path, tmp_path / "images", out="plain", policy="keep")
    run_build(Path(f"file://{tmp_path}"), Path(f"file://{tmp_path}/images"), root=tmp_path / "root", policy="keep")
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_the_secret_key_does_not_go_to_a_server(tmp_path: Path, server: Any) -> None:
    write_pictures(tmp_path / "images", range(1))
    with pytest.raises(UsageError, match="must not lie on a server"):
        build(BuildRequest(out=tmp_path / "out", root=Path("memory://b/root"), images=tmp_path / "images", name="x"))


def test_an_unknown_protocol_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="nosuch://"):
        build(BuildRequest(out=Path("nosuch://x/out"), images=tmp_path, name="x", root=tmp_path))


@pytest.mark.parametrize("path", ["/a/b", "a/b", "C:/x", "out:1/x", ".", "a b:/c"])
def test_paths_are_not_taken_for_urls(path: str) -> None:
    assert split_url(Path(path)) is None
