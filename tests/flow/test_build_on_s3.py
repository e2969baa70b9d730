"""A build from and to S3 gives the bytes of a local one. Skipped without s3fs, and moto to play the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_builds import TOY_CARD, inline, sector, tree, write_pictures

from openus_data.build import BuildRequest, build
from openus_data.card import load_card

pytest.importorskip("moto.server", reason="moto[server] is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
__all__ = ["inline"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the libraries that play server and client


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, reached as users reach theirs: through the environment."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "OPENUS_CACHE": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    files.mkdir("corpora")
    yield files
    files.rm("corpora", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def toy(tmp: Path, root: Path, out: Path, **options: Any) -> int:
    (tmp / "toy.toml").write_text(TOY_CARD)
    card = load_card(tmp / "toy.toml")
    return build(BuildRequest(root=root, out=out, cards=(card,), policy="keep", quiet=True, **options)).worked_on


def downloaded(files: Any, folder: str, target: Path) -> dict[str, str]:
    """Digest of every file below a folder of the server, by its name."""
    for name in files.find(folder):
        path = target / name.removeprefix(folder).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.cat_file(name))
    return tree(target)


def test_root_and_out_on_s3_give_the_bytes_of_a_local_build(tmp_path: Path, inline: None, bucket: Any) -> None:
    write_pictures(tmp_path / "root/toy/files/images", range(4), subject=lambda s: "")
    for seed, path in enumerate(sorted((tmp_path / "root/toy/files/images").glob("*.png"))):
        path.rename(path.with_name(f"p{seed // 2}_{seed}.png"))
    toy(tmp_path, tmp_path / "root", tmp_path / "plain")
    reference = {name: digest for name, digest in tree(tmp_path / "plain").items() if name != ".lock"}
    for path in (tmp_path / "root/toy/files").rglob("*.png"):
        bucket.put_file(str(path), f"corpora/root/{path.relative_to(tmp_path / 'root').as_posix()}")
    there = (Path("s3://corpora/root"), Path("s3://corpora/out"))
    assert toy(tmp_path, *there) == 4
    assert downloaded(bucket, "corpora/out", tmp_path / "copy") == reference
    before = {name: entry["LastModified"] for name, entry in bucket.find("corpora/out", detail=True).items()}
    assert toy(tmp_path, *there) == 0
    after = {name: entry["LastModified"] for name, entry in bucket.find("corpora/out", detail=True).items()}
    assert after == before


def test_what_another_machine_put_there_since_is_seen(tmp_path: Path, inline: None, bucket: Any) -> None:
    import cv2

    def put(seed: int) -> None:
        cv2.imwrite(str(tmp_path / "one.png"), sector(seed))
        bucket.put_file(str(tmp_path / "one.png"), f"corpora/root/toy/files/images/p{seed}_{seed}.png")

    there = (Path("s3://corpora/root"), Path("s3://corpora/out"))
    put(0)
    assert toy(tmp_path, *there) == 1
    put(1)
    assert toy(tmp_path, *there) == 1
    shards = [name for name in bucket.find("corpora/out") if name.endswith(".tar")]
    assert len(shards) == len({name.rsplit("/", 1)[0] for name in shards}) > 0
