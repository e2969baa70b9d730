"""The first stage as a worker does it: one file to a record that only has to be added to the journal.

Whatever costs time in proportion to the pictures (JSON, packing, check sums) is done here, in any number of processes,
so that the main process does little more than copy bytes.

    staged = work(SourceTask(item=item), stage)
    journal.append(staged.parts)
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from openus_data.first_stage.candidate import process
from openus_data.first_stage.folder import undecided_row
from openus_data.first_stage.journal import Header, record_parts
from openus_data.first_stage.records import EncodedSample, SourceResult, SourceTask, StagedResult, StageOne, item_id
from openus_data.first_stage.summary import EXACT_LETTERS, KEY_LETTERS, SampleSummary, pack_summary
from openus_data.schema import SPLITS
from openus_data.shards import tar_bytes
from openus_data.split import ROLES, UNPUBLISHED

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
    rows = [undecided_row(sample.candidate.row) for sample in result.samples]
    header: Header = {
        "dataset": dataset,
        "item": item,
        "fingerprint": result.fingerprint,
        "ballot": ballot,
        "prior": result.prior,
        "rejects": [[r.stage, r.reason, r.detail] for r in result.rejects],
        "samples": [
            {
                "id": s.candidate.row["sample_id"],
                "frame": s.candidate.row["frame_index"],
                "row": row,
                "suffix": s.suffix,
                "has_mask": s.mask is not None,
            }
            for s, row in zip(result.samples, rows, strict=True)
        ],
        "blobs": [[len(b), zlib.crc32(b)] for b in blobs],
    }
    summary = pack_summary(
        dataset,
        frames=result.frames,
        skipped=result.skipped,
        rejects=len(result.rejects),
        samples=[_summary(sample, row) for sample, row in zip(result.samples, rows, strict=True)],
        thumbnails=[sample.candidate.thumbnail for sample in result.samples],
    )
    return record_parts(header, blobs, summary)


def _summary(sample: EncodedSample, row: str) -> SampleSummary:
    told, published = sample.candidate.row, sample.candidate.published_split
    sizes = [len(sample.image), len(row.encode()) + _DECIDED_LATER_BYTES, *([len(sample.mask)] if sample.mask else [])]
    return SampleSummary(
        key=str(told["sample_id"])[-KEY_LETTERS:].encode(),
        exact=str(told["pixel_sha256"])[:EXACT_LETTERS].encode(),
        subject=int(str(told["subject_id"])[:16], 16),
        chance=sample.chance,
        size=sum(map(tar_bytes, sizes)),
        role=ROLES.index(str(told["role"])),
        published=SPLITS.index(published) if published else UNPUBLISHED,
    )
