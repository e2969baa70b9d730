"""The seam between the two packages: the manifest's columns, the shards' layout, and the versions of both.

`openus_model` knows `openus_data` through this module alone. Needs numpy and pyarrow, nothing else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1
PIPELINE_VERSION: Final = "5"
"""Raised whenever the same input would give other bytes."""

SPLITS: Final = ("pretrain", "train", "val", "test")
GEOMETRIES: Final = ("sector", "curvilinear", "linear", "trapezoid", "full", "multi", "none")
IMAGE_SUFFIXES: Final = ("png", "jpg", "webp")
METADATA_SUFFIX: Final = "json"
MASK_SUFFIX: Final = "mask.png"
SAMPLE_ID_PATTERN: Final = re.compile(r"[a-z0-9_-]+")

MANIFEST_NAME: Final = "manifest.parquet"
REJECTS_NAME: Final = "rejects.parquet"
BUILD_NAME: Final = "build.json"
SHARDS_DIR: Final = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the manifest.

    Args:
        name: as in the file.
        type: Arrow type.
        unit: unit or range, empty where there is none.
        meaning: one sentence for the reference page.
        nullable: whether "unknown" (null) is a legal value.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = True


def _required(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type=kind, meaning=meaning, unit=unit, nullable=False)


def _optional(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type=kind, meaning=meaning, unit=unit)


_TEXT, _INT, _REAL = pa.string(), pa.int32(), pa.float64()
_BOX = pa.list_(pa.float32())

MANIFEST_COLUMNS: Final = (
    _required(
        "sample_id", _TEXT, "The dataset's id and a keyed hash; the key of the sample in its shard.", "[a-z0-9_-]"
    ),
    _required("dataset", _TEXT, "Id of the dataset's card, or the name given with --name."),
    _required(
        "subject_id", _TEXT, "Keyed pseudonym of the subject; where the source has no subject, of what stands in."
    ),
    _optional("study_id", _TEXT, "Keyed pseudonym of the study, clip or volume the image came from."),
    _required(
        "frame_index", _INT, "Index of the frame in its clip or of the slice in its volume; 0 for stills.", "0-based"
    ),
    _required("split", _TEXT, "Where the sample may be used.", " | ".join(SPLITS)),
    _required("role", _TEXT, "What the dataset is for, from its card.", "pretrain | evaluate | both"),
    _required("shard", _TEXT, "Path of the tar below OUT, with forward slashes."),
    _required("offset", pa.int64(), "Where the image's bytes start in the tar.", "bytes"),
    _required("size_bytes", pa.int64(), "Length of the image member.", "bytes"),
    _required("width_px", _INT, "Width of the stored image.", "px"),
    _required("height_px", _INT, "Height of the stored image.", "px"),
    _required("channels", pa.int8(), "1 for grey images, 3 for colour.", "1 | 3"),
    _optional("spacing_row_mm", _REAL, "Distance between rows, where the source calibrates it.", "mm/px"),
    _optional("spacing_col_mm", _REAL, "Distance between columns, where the source calibrates it.", "mm/px"),
    _optional("organ", _TEXT, "Coarse organ of the project's vocabulary."),
    _optional("anatomy", _TEXT, "Fine anatomy of the project's vocabulary."),
    _optional("view", _TEXT, "Standard view or plane of the vocabulary."),
    _optional("pathology", _TEXT, "Pathology of the vocabulary, where the source labels it."),
    _required("labels", _TEXT, "The dataset's own labels, as a JSON object of name to value with sorted keys.", "JSON"),
    _optional("device_manufacturer", _TEXT, "Maker of the scanner, normalised by the vocabulary."),
    _optional("device_model", _TEXT, "Model of the scanner."),
    _optional("transducer", _TEXT, "Model or type of the transducer."),
    _optional("frequency_mhz", _REAL, "Transmit frequency.", "MHz"),
    _optional("institution", _TEXT, "Institution as the dataset's card publishes it, never from a header."),
    _optional("country", _TEXT, "Country as the card publishes it.", "ISO 3166-1 alpha-2"),
    _required("cone_geometry", _TEXT, "Shape of the scan area.", " | ".join(GEOMETRIES)),
    _required("cone_polygon", pa.list_(_BOX), "Outline of the scan area as [x, y] vertices.", "px of the stored crop"),
    _required("cone_box", _BOX, "Half-open box [x0, y0, x1, y1] that was cropped.", "px of the source frame"),
    _required("cone_confidence", pa.float32(), "Calibrated probability that the outline is right.", "[0, 1]"),
    _required("cone_method", _TEXT, "Evidence the outline rests on."),
    _required(
        "text_boxes_removed", pa.list_(_BOX), "Boxes [x0, y0, x1, y1] filled inside the crop.", "px of the stored crop"
    ),
    _required(
        "deid_actions", pa.list_(_TEXT), "Names of the de-identification rules that changed this sample, sorted."
    ),
    _required("pixel_sha256", _TEXT, "SHA-256 of the stored pixels: height, width, channels, then the rows.", "hex"),
    _required("source_sha256", _TEXT, "HMAC-SHA256 of the source file's bytes.", "hex"),
    _required("phash", _TEXT, "256-bit DCT hash of the picture inside the scan area.", "64 hex digits"),
    _optional("duplicate_group", _TEXT, "Id shared by near-duplicates; null where the sample has none."),
    _required("quality", pa.list_(_TEXT), "Names of quality flags raised, sorted."),
    _optional("license", _TEXT, "SPDX id or the card's name of the terms; null where unknown."),
    _required("redistributable", pa.bool_(), "Whether the licence allows handing the image on."),
    _required("card_sha256", _TEXT, "SHA-256 of the dataset's card; of the options for a private folder.", "hex"),
    _required("pipeline_version", _TEXT, "Version of the pixel pipeline."),
)

REJECT_COLUMNS: Final = (
    _required("dataset", _TEXT, "Id of the dataset."),
    _required("item", _TEXT, "Keyed pseudonym of the item, as the log names it."),
    _required(
        "stage",
        _TEXT,
        "Stage that turned the item away.",
        "list | decode | deid | cone | text | quality | duplicate | split | license",
    ),
    _required("reason", _TEXT, "Name of the reason, from a closed list."),
    _required("detail", _TEXT, "One line for a person; free of identity."),
)


def manifest_schema() -> pa.Schema:
    """The Arrow schema of manifest.parquet, in column order."""
    return _schema(MANIFEST_COLUMNS)


def reject_schema() -> pa.Schema:
    """The Arrow schema of rejects.parquet."""
    return _schema(REJECT_COLUMNS)


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema(
        [pa.field(c.name, c.type, nullable=c.nullable) for c in columns],
        metadata={"openus.schema_version": str(SCHEMA_VERSION)},
    )


def shard_name(split: str, index: int) -> str:
    """Path of a shard below OUT, for example `shards/train/openus-train-000000.tar`."""
    return f"{SHARDS_DIR}/{split}/openus-{split}-{index:06d}.tar"


def pixel_sha256(pixels: NDArray[np.uint8]) -> str:
    """The manifest's `pixel_sha256` of decoded pixels, uint8 (H, W) or (H, W, 3) RGB: 64 hex digits.

    Hashes height, width and channels as little-endian uint32, then the rows.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    digest = hashlib.sha256(np.asarray([*pixels.shape[:2], channels], dtype="<u4").tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
