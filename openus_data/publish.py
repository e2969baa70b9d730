"""From OUT/.staging/new to the final names, so that no kill leaves a mixture of two builds unnoticed.

1. Everything new lies complete and synced in .staging/new; then `commit.json` names it all, and the step can no longer
   fail half-way: whoever opens OUT next finishes it.
2. Where a shard changes, manifest, build.json and data cards of the last build go first: OUT without a manifest is an
   unfinished build to every reader.
3. Files move to their names, shards first, manifest and build.json last. A file that is already there with the same
   bytes is left alone, its time included.
4. Shards that no longer belong are removed, then the staging folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from openus_data.first_stage.folder import NEW_DIR, RECORDS_NAME, STAGING_DIR
from openus_data.schema import BUILD_NAME, MANIFEST_NAME, REJECTS_NAME
from openus_data.shards import list_shards, sidecar_path
from openus_data.store import fsync_folder, sha256_file, write_text_aside

COMMIT_NAME: Final = "commit.json"
LAST_NAMES: Final = (RECORDS_NAME, REJECTS_NAME, MANIFEST_NAME, BUILD_NAME)
"""In the order in which they get their names."""
DERIVED_NAMES: Final = ("datacard.md", "croissant.json")


def publish(out: Path, shards: Iterable[str]) -> bool:
    """Give a finished build its names.

    Args:
        out: the OUT folder, locked; all that is new lies in its staging folder.
        shards: every shard of the build, old and new.

    Returns:
        Whether anything in OUT changed.
    """
    write_text_aside(out / STAGING_DIR / COMMIT_NAME, json.dumps(sorted(shards), indent=0))
    return finish_commit(out)


def finish_commit(out: Path) -> bool:
    """Carry out a commit that was decided on, in this run or in one that was killed; returns whether OUT changed."""
    commit = out / STAGING_DIR / COMMIT_NAME
    if not commit.exists():
        return False
    wanted = set(json.loads(commit.read_text("utf-8")))
    new = out / STAGING_DIR / NEW_DIR
    moving = [name for name in sorted(wanted) if (new / name).exists() or sidecar_path(new / name).exists()]
    stale = [name for name in list_shards(out) if name not in wanted]
    changed = [n for n in LAST_NAMES if (new / n).exists() and not _same(new / n, out / n)]
    if moving or stale or changed:
        for name in (BUILD_NAME, MANIFEST_NAME, *DERIVED_NAMES):
            if name in changed or name in DERIVED_NAMES or moving or stale:
                (out / name).unlink(missing_ok=True)
    for name in moving:
        for part in (Path(name), sidecar_path(Path(name))):
            _move(new / part, out / part)
    for name in stale:
        (out / name).unlink(missing_ok=True)
        sidecar_path(out / name).unlink(missing_ok=True)
    for name in LAST_NAMES:
        if (new / name).exists() and not _same(new / name, out / name):
            _move(new / name, out / name)
    _remove_empty_splits(out)
    fsync_folder(out)
    commit.unlink()
    shutil.rmtree(out / STAGING_DIR)
    return bool(moving or stale or changed)


def _same(new: Path, old: Path) -> bool:
    return old.exists() and old.stat().st_size == new.stat().st_size and sha256_file(old) == sha256_file(new)


def _move(new: Path, old: Path) -> None:
    if new.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        new.replace(old)


def _remove_empty_splits(out: Path) -> None:
    for folder in (out / "shards").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
