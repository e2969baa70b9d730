"""Unpacking archives that a stranger made: `unpack`, and the parts from which `fetch` builds a dataset's tree."""

from openus_data.archive.sink import Limits, Sink
from openus_data.archive.unpack import (
    UnpackReport,
    is_archive,
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
    "is_archive",
    "publish_folder",
    "staging",
    "unpack",
    "unpack_inner",
    "unpack_into",
]
