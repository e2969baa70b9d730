"""RAR, through whichever tool is installed, into a folder of its own that is then judged like any archive."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from openus_data.archive.names import shown
from openus_data.archive.sink import DISK_BLOCK_BYTES, Sink
from openus_data.errors import ArchiveLimit, DamagedArchive, UnsafeArchive, UnsupportedArchive

# the archive and the folder stand last; none of these asks questions, and none gets a password
_TOOLS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("unrar", ("x", "-idq", "-o-", "-p-", "-y", "--")),
    ("bsdtar", ("-x", "--no-same-owner", "--no-same-permissions", "-f")),
    ("7zz", ("x", "-bd", "-y", "-p-", "--")),
    ("7z", ("x", "-bd", "-y", "-p-", "--")),
)
_POLL_S: Final = 0.2


def read_with_tool(path: Path, sink: Sink) -> None:
    """Unpack with an outside tool and move what came to the sink.

    Raises:
        UnsupportedArchive: no tool is installed, or the archive is encrypted.
        DamagedArchive: the tool failed.
        UnsafeArchive: a link or a device came out.
    """
    tool = next(((found, options) for name, options in _TOOLS if (found := shutil.which(name))), None)
    if tool is None:
        raise UnsupportedArchive(
            "RAR needs a tool that is not installed",
            where=path.name,
            next_step="install unrar, bsdtar or 7z, or unpack it by hand and use --from",
        )
    scratch = sink.root.with_name(f"{sink.root.name}.tool")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        _run([tool[0], *tool[1], str(path.absolute())], scratch, sink, path.name)
        copy_folder(scratch, sink)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], folder: Path, sink: Sink, name: str) -> None:
    deadline = time.monotonic() + sink.limits.seconds
    allowed = min(
        sink.limits.total_bytes, max(sink.limits.ratio_from_bytes, int(sink.limits.ratio * sink.packed_bytes))
    )
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while process.poll() is None:
                time.sleep(_POLL_S)
                if time.monotonic() > deadline or _size(folder) > allowed:
                    raise ArchiveLimit("the archive takes too long or grows beyond reason", where=name)
        finally:
            process.kill()
    if process.returncode != 0:
        raise DamagedArchive(
            "the tool could not unpack it: damaged or encrypted", where=name, got=f"exit code {process.returncode}"
        )


def _size(folder: Path) -> int:
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir())


def copy_folder(folder: Path, sink: Sink, *, skip: Collection[str] = ()) -> None:
    """Copy what lies below a folder to the sink, names judged as if an archive had named them.

    Args:
        skip: relative paths that are left out.

    Raises:
        UnsafeArchive: a link or a device, or by the name rule.
    """
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files) + folders:
            place = Path(root, name)
            relative = place.relative_to(folder).as_posix()
            kind = place.lstat().st_mode
            if relative in skip:
                continue
            if stat.S_ISDIR(kind):
                sink.add_packed(DISK_BLOCK_BYTES)
                sink.folder(relative)
            elif stat.S_ISREG(kind):
                sink.copy(relative, place)
            else:
                raise UnsafeArchive("a link or a device in the folder", where=shown(relative))
