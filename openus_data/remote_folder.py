"""ROOT, OUT or a private folder on a URL: copied to a local mirror, and OUT copied back when the build is done.

Anything that fsspec opens works (`s3://`, `gs://`, `memory://`, ...); `file://` is the local disk. A build works in the
mirror, so that resuming, locking and atomic names are those of a local disk. The manifest leaves OUT's URL before the
first changed shard goes there, and comes back last.

    with local_request(request) as local: ...
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from openus_data.build_plan import BuildRequest
from openus_data.errors import MissingExtra, SourceUnavailable, UsageError
from openus_data.schema import BUILD_NAME, MANIFEST_NAME
from openus_data.store import LOCK_NAME, sha256_file, write_text_aside

CACHE_VARIABLE: Final = "OPENUS_CACHE"
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
_LAST: Final[tuple[str, ...]] = (MANIFEST_NAME, BUILD_NAME)
INDEX_SUFFIX: Final = ".index.json"
"""Beside a mirror: what the server said of each when it was fetched."""
_LOCAL_ONLY: Final = (LOCK_NAME, ".staging")


def split_url(path: Path) -> tuple[str, str] | None:
    """Protocol and the rest of a URL that was taken for a path, which loses one of its slashes; None for a path."""
    match = _URL.fullmatch(str(path))
    return None if match is None else (match[1], match[2])


@contextmanager
def local_request(request: BuildRequest) -> Iterator[BuildRequest]:
    """The request with every URL replaced by a local folder that holds what lies there; OUT goes back at the end.

    Raises:
        MissingExtra: fsspec, or its driver for the protocol, is not installed.
        UsageError: private data would be named with a key that lies on a server.
        SourceUnavailable: the server does not answer, or refuses.
    """
    private = request.images is not None or any(card.private for card in request.cards)
    if _is_remote(request.root) and private and request.key_file is None:
        raise UsageError("the secret key must not lie on a server", next_step="give --key-file")
    root = _pulled(request.root, [f"{card.id}/files" for card in request.cards] or [""])
    images = None if request.images is None else _pulled(request.images)
    out = _pulled_out(request.out)
    yield replace(request, root=root, images=images, out=out)
    if _is_remote(request.out) and not request.dry_run:
        _push(out, request.out)


def _is_remote(path: Path) -> bool:
    found = split_url(path)
    return found is not None and found[0] != "file"


def _pulled(path: Path, parts: Sequence[str] = ("",)) -> Path:
    """The local folder of a path or URL; of a URL, the files below `parts` of it are brought there first."""
    found = split_url(path)
    if found is None:
        return path
    if found[0] == "file":
        return Path("/" + found[1])
    files, base = _file_system(*found)
    mirror = _mirror(found[0], base)
    with _guarded(found[0]):
        there = {n: s for part in parts for n, s in _listed(files, base, part).items()}
        _fetch(files, base, there, mirror)
    return mirror


def _pulled_out(path: Path) -> Path:
    """The mirror of OUT: as the last build left it, unless another machine has built there since."""
    found = split_url(path)
    if found is None or found[0] == "file":
        return _pulled(path)
    files, base = _file_system(*found)
    mirror = _mirror(found[0], base)
    with _guarded(found[0]):
        name = f"{base}/{BUILD_NAME}"
        there = files.cat_file(name) if files.exists(name) else None
        here = (mirror / BUILD_NAME).read_bytes() if (mirror / BUILD_NAME).exists() else None
        if there is not None and there != here:
            shutil.rmtree(mirror)
            mirror.mkdir()
            mirror.with_name(mirror.name + INDEX_SUFFIX).unlink(missing_ok=True)
            _fetch(files, base, _listed(files, base), mirror)
    return mirror


def _mirror(protocol: str, base: str) -> Path:
    cache = Path(os.environ.get(CACHE_VARIABLE, Path.home() / ".cache/openus"))
    mirror = cache / hashlib.sha256(f"{protocol}://{base}".encode()).hexdigest()[:20]
    mirror.mkdir(parents=True, exist_ok=True)
    return mirror


def _fetch(files: Any, base: str, there: Mapping[str, int], mirror: Path) -> None:
    """Make the mirror hold the files that are there, and no other; what has not changed is not fetched again."""
    index_path = mirror.with_name(mirror.name + INDEX_SUFFIX)
    old: dict[str, str] = json.loads(index_path.read_text("utf-8")) if index_path.exists() else {}
    index: dict[str, str] = {}
    for name in sorted(there):
        if ".." in PurePosixPath(name).parts:
            raise UsageError("a name that leaves its folder", where="URL")
        index[name] = str(files.checksum(f"{base}/{name}"))
        target = mirror / name
        if old.get(name) != index[name] or not target.is_file() or target.stat().st_size != there[name]:
            target.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(f"{base}/{name}", str(target))
    for name in old.keys() - index.keys():
        (mirror / name).unlink(missing_ok=True)
    write_text_aside(index_path, json.dumps(index, sort_keys=True))


def _push(folder: Path, url: Path) -> None:
    """Make the URL hold what the folder holds: what changed goes up, what is gone goes away, the manifest is last."""
    found = split_url(url)
    assert found is not None, "called for URLs only"
    files, base = _file_system(*found)
    local = {
        p.relative_to(folder).as_posix(): p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.relative_to(folder).parts[0] not in _LOCAL_ONLY
    }
    with _guarded(found[0]):
        there = _listed(files, base)
        changed = [n for n, p in local.items() if not _is_same(files, f"{base}/{n}", there.get(n), p)]
        if changed:
            for name in (n for n in _LAST if n in there):
                files.rm_file(f"{base}/{name}")
        for name in sorted(changed, key=lambda n: (n in _LAST, n)):
            files.makedirs(str(PurePosixPath(f"{base}/{name}").parent), exist_ok=True)
            files.put_file(str(local[name]), f"{base}/{name}")
        for name in (n for n in _LAST if changed and n in local and n not in changed):
            files.put_file(str(local[name]), f"{base}/{name}")
        for name in sorted(there.keys() - local.keys()):
            files.rm_file(f"{base}/{name}")


def _is_same(files: Any, name: str, size: int | None, local: Path) -> bool:
    if size != local.stat().st_size:
        return False
    digest = hashlib.sha256()
    with files.open(name, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == sha256_file(local)


def _listed(files: Any, base: str, part: str = "") -> dict[str, int]:
    """Size of every file below a part of a folder of the server, by its name below the folder."""
    folder = f"{base}/{part}".rstrip("/")
    if not files.exists(folder):
        return {}
    found = files.find(folder, detail=True).items()
    return {PurePosixPath(n).relative_to(base).as_posix(): int(e["size"]) for n, e in found if e["type"] == "file"}


def _file_system(protocol: str, rest: str) -> tuple[Any, str]:
    try:
        import fsspec

        files = fsspec.filesystem(protocol)
        files.invalidate_cache()  # drivers are shared by a process, and others write there in the meantime
    except (ImportError, ValueError) as error:
        raise MissingExtra(
            f"{protocol}:// cannot be opened",
            next_step=f"pip install 'openus[remote]' and fsspec's driver for {protocol}",
        ) from error
    return files, str(files._strip_protocol(f"{protocol}://{rest}")).rstrip("/")


@contextmanager
def _guarded(protocol: str) -> Iterator[None]:
    """A server's many errors as one of ours; their texts may quote names and are dropped."""
    try:
        yield
    except OSError as error:
        raise SourceUnavailable(
            "the server does not answer as it should",
            where=f"{protocol}://",
            got=type(error).__name__,
            next_step="check address and rights, and run again",
        ) from error
