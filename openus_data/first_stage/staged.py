"""The first stage as a worker does it: one file to a record that only has to be added to the journal.

Whatever costs time in proportion to the pictures (JSON, packing, check sums) is done here, in any number of processes,
so that the main process does little more than copy bytes.

    staged = work(SourceTask(item=item), stage)
    journal.append(staged.parts)
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final

from openus_data.first_stage.candidate import process
from openus_data.first_stage.folder import json_bytes
from openus_data.first_stage.journal import Header, record_parts
from openus_data.first_stage.records import EncodedSample, SourceResult, SourceTask, StagedResult, StageOne, item_id
from openus_data.shards import tar_bytes

_DECIDED_LATER_BYTES: Final = 128
"""What split and duplicate group may add to a sample's JSON."""


def work(task: SourceTask, stage: StageOne) -> StagedResult:
    """Work on one file and pack what comes of it."""
    result = process(task, stage)
    dataset = task.item.dataset
    item = item_id(task.item, stage.datasets[dataset])
    return StagedResult(
        item=item,
        fingerprint=result.fingerprint,
        is_unchanged=result.is_unchanged,
        rejects=result.rejects,
        ballot=result.ballot,
        seen=result.seen,
        parts=() if result.is_unchanged else _parts(dataset, item, result, task.ballot or result.ballot),
    )


def _parts(dataset: str, item: str, result: SourceResult, ballot: dict[str, Any] | None) -> tuple[bytes, ...]:
    blobs = [b for s in result.samples for b in (s.image, s.mask) if b is not None]
    header: Header = {
        "dataset": dataset,
        "item": item,
        "fingerprint": result.fingerprint,
        "frames": result.frames,
        "skipped": result.skipped,
        "ballot": ballot,
        "prior": result.prior,
        "rejects": [[r.stage, r.reason, r.detail] for r in result.rejects],
        "samples": [_sample_header(sample) for sample in result.samples],
        "blobs": [[len(b), zlib.crc32(b)] for b in blobs],
    }
    return record_parts(header, blobs)


def _sample_header(sample: EncodedSample) -> dict[str, Any]:
    row = dict(sample.candidate.row)
    sizes = [len(sample.image), len(json_bytes(row)) + _DECIDED_LATER_BYTES]
    return {
        "row": row,
        "thumbnail": base64.b64encode(sample.candidate.thumbnail).decode(),
        "published": sample.candidate.published_split,
        "chance": sample.chance,
        "suffix": sample.suffix,
        "has_mask": sample.mask is not None,
        "size": sum(map(tar_bytes, [*sizes, *([len(sample.mask)] if sample.mask is not None else [])])),
    }
