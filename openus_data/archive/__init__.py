"""Unpacking archives that a stranger made: `unpack`, and the parts from which `fetch` builds a dataset's tree."""

from openus_data.archive.sink import Limits, Sink
from openus_data.archive.tool_kind import copy_folder
from openus_data.archive.unpack import (
    UnpackReport,
    is_about,
    is_archive,
    is_part,
    publish_folder,
    staging,
    unpack,
    unpack_inner,
    unpack_into,
)

__all__ = [
    "Limits",
    "Sink",
    "UnpackReport",
    "copy_folder",
    "is_about",
    "is_archive",
    "is_part",
    "publish_folder",
    "staging",
    "unpack",
    "unpack_file",
    "unpack_inner",
    "unpack_into",
]

unpack_file = unpack
"""The library call of `openus-data unpack`."""
