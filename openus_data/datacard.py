"""The two descriptions of a corpus that others read: datacard.md (Hugging Face style) and croissant.json (MLCommons).

Both are made from the manifest, the sidecars and the cards alone, so that equal corpora have equal descriptions.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml

from openus_data.card import Card
from openus_data.manifest import read_manifest
from openus_data.schema import (
    MANIFEST_COLUMNS,
    MANIFEST_NAME,
    PIPELINE_VERSION,
)
from openus_data.shards import read_sidecar
from openus_data.store import write_bytes_aside

DATACARD_NAME: Final = "datacard.md"
CROISSANT_NAME: Final = "croissant.json"
_COUNTED: Final = ("organ", "device_manufacturer", "split", "license")
_NEEDED: Final = (*_COUNTED, "dataset", "redistributable", "shard", "subject_id")
"""Columns that the descriptions are made from; most of a manifest's bytes are in the others."""
_CROISSANT_TYPES: Final = {
    "string": "sc:Text",
    "int": "sc:Integer",
    "float": "sc:Float",
    "double": "sc:Float",
    "bool": "sc:Boolean",
}


def write_cards(out: Path, cards: Mapping[str, Card]) -> None:
    """Write OUT/datacard.md and OUT/croissant.json for a finished corpus.

    Args:
        out: the corpus; its manifest and sidecars are there.
        cards: the cards of the datasets in it, by id; private folders have none.
    """
    table = read_manifest(out, _NEEDED)
    present = sorted(set(table.column("dataset").to_pylist()))
    known = {name: cards[name] for name in present if name in cards}
    write_bytes_aside(out / DATACARD_NAME, datacard(table, known).encode())
    text = json.dumps(croissant(out, table, known), indent=2, sort_keys=False, ensure_ascii=False)
    write_bytes_aside(out / CROISSANT_NAME, f"{text}\n".encode())


def datacard(table: pa.Table, cards: Mapping[str, Card]) -> str:
    """The dataset card: YAML front matter as the Hugging Face hub reads it, then prose and tables."""
    licences = sorted({v for v in table.column("license").to_pylist() if v})
    shareable = sum(chunk.true_count for chunk in table.column("redistributable").chunks)
    head = {
        "pretty_name": "Curated ultrasound corpus",
        "license": licences[0].lower() if len(licences) == 1 and " " not in licences[0] else "other",
        "task_categories": ["image-feature-extraction", "image-classification", "image-segmentation"],
        "tags": ["ultrasound", "medical", "webdataset", "croissant"],
        "size_categories": [_size_category(table.num_rows)],
    }
    parts = ["---\n", yaml.safe_dump(head, sort_keys=True), "---\n\n# Curated ultrasound corpus\n\n"]
    subjects = len(set(table.column("subject_id").to_pylist()))
    parts.append(
        f"{table.num_rows:,} images of {subjects:,} subjects or their stand-ins, from "
        f"{len(set(table.column('dataset').to_pylist()))} datasets; pipeline version {PIPELINE_VERSION}. "
        f"{shareable:,} of them may be handed on under their licence.\n\n"
        "Pixels outside the scan area are black, burned-in text is filled, and no header value but the manifest's "
        "columns was taken over. A research tool: not for diagnosis.\n"
    )
    parts.append(
        "\n## Datasets\n\n" + _markdown(("dataset", "title", "images", "licence", "cite"), _dataset_rows(table, cards))
    )
    for column in _COUNTED:
        parts.append(f"\n## By {column.replace('_', ' ')}\n\n" + _markdown((column, "images"), _counts(table, column)))
    parts.append("\n## How to read it\n\nShards are plain WebDataset; `manifest.parquet` has a row per image.\n")
    return "".join(parts)


def _dataset_rows(table: pa.Table, cards: Mapping[str, Card]) -> Iterable[tuple[str, ...]]:
    for name, count in _counts(table, "dataset"):
        card = cards.get(name)
        licence = (card.license.name or "unknown") if card else "private"
        cite = f"doi:{card.citation.doi}" if card and card.citation.doi else (card.citation.text if card else "")
        yield name, card.title if card else "private folder", count, licence, cite


def _counts(table: pa.Table, column: str) -> list[tuple[str, str]]:
    """How often each value stands in a column. In Python: Arrow's own way loads a module that takes longer to start."""
    counted: Counter[str] = Counter()
    for value, number in Counter(table.column(column).to_pylist()).items():
        counted["unknown" if value is None else str(value)] += number
    return [(v, f"{n:,}") for v, n in sorted(counted.items(), key=lambda p: (-p[1], p[0]))]


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _size_category(count: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if count < limit:
            return name
    return "1M<n<10M"


def croissant(out: Path, table: pa.Table, cards: Mapping[str, Card]) -> dict[str, Any]:
    """Croissant 1.0 metadata: the manifest as records, and the images inside the shards."""
    shards = sorted(set(table.column("shard").to_pylist()))
    licences = sorted({v for v in table.column("license").to_pylist() if v})
    cite = sorted({card.citation.text for card in cards.values()})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": "curated-ultrasound-corpus",
        "description": f"{table.num_rows} de-identified ultrasound images in WebDataset shards.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": licences or ["unknown"],
        "citeAs": " ; ".join(cite) or "private data",
        "url": "https://arxiv.org/abs/2511.11510",
        "version": f"{PIPELINE_VERSION}.0.0",
        "datePublished": "1970-01-01",  # no clock in outputs: equal corpora have equal bytes
        "distribution": _distribution(out, shards),
        "recordSet": [_manifest_records(), _image_records()],
    }


def _distribution(out: Path, shards: list[str]) -> list[dict[str, Any]]:
    manifest_sha256 = hashlib.sha256((out / MANIFEST_NAME).read_bytes()).hexdigest()
    files = [_file("manifest", MANIFEST_NAME, "application/x-parquet", manifest_sha256)]
    files += [_file(name, name, "application/x-tar", read_sidecar(out / name).sha256) for name in shards]
    images = {
        "@type": "cr:FileSet",
        "@id": "images",
        "name": "images",
        "containedIn": [{"@id": name} for name in shards],
        "encodingFormat": "image/png",
        "includes": "*.png",
        "excludes": "*.mask.png",
    }
    return [*files, images]


def _file(identity: str, path: str, kind: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": identity,
        "name": identity,
        "contentUrl": path,
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _manifest_records() -> dict[str, Any]:
    fields = []
    for column in MANIFEST_COLUMNS:
        listed = pa.types.is_list(column.type)
        kind = next((v for k, v in _CROISSANT_TYPES.items() if str(column.type).startswith(k)), "sc:Text")
        field: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"manifest/{column.name}",
            "name": column.name,
            "description": column.meaning,
            "dataType": "sc:Text" if listed else kind,
            "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": column.name}},
        }
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "manifest-rows",
        "name": "manifest-rows",
        "key": {"@id": "manifest/sample_id"},
        "field": fields,
    }


def _image_records() -> dict[str, Any]:
    def field(name: str, kind: str, prop: str, meaning: str) -> dict[str, Any]:
        return {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": meaning,
            "dataType": kind,
            "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": prop}},
        }

    return {
        "@type": "cr:RecordSet",
        "@id": "image-records",
        "name": "image-records",
        "field": [
            field("filename", "sc:Text", "filename", "<sample_id>.png; joins with the manifest's sample_id."),
            field("image", "sc:ImageObject", "content", "The pixels."),
        ],
    }


_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "excludes": "cr:excludes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that the Croissant 1.0 specification prints (appendix 1)."""
