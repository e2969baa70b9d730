"""A second file that a header names: only a plain name in the header's own folder is followed."""

from __future__ import annotations

import re

from openus_data.decode.source import Source, open_source
from openus_data.errors import DecodeError

_PLAIN_NAME = re.compile(r"[^/\\\0:%]{1,255}")


def open_beside(source: Source, name: str) -> Source:
    """Open the data file that a header names.

    Args:
        source: the header.
        name: as the header has it.

    Raises:
        DecodeError: the name leads out of the folder, is a link, or is a pattern or list.
    """
    if not _PLAIN_NAME.fullmatch(name) or name in (".", "..") or name.split()[0] == "LIST":
        raise DecodeError(
            "header points to data outside its folder",
            expected="a file name beside it",
            next_step="the file is left out",
        )
    path = source.place.path.parent / name
    if path.is_symlink():
        raise DecodeError("header points to a link", expected="a file beside it", next_step="the file is left out")
    return open_source(path)
