"""What the barrier reads of a record is what the worker wrote, and a row is decided without being read."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openus_data.first_stage.folder import decided_row, undecided_row
from openus_data.first_stage.summary import SAMPLE, SampleSummary, pack_summary, read_summary

SAMPLES = [
    SampleSummary(
        key=b"0" * 19 + b"a", exact=b"f" * 32, subject=2**64 - 1, chance=0.25, size=2**40, role=2, published=-1
    ),
    SampleSummary(key=b"1" * 20, exact=b"e" * 32, subject=0, chance=0.0, size=0, role=0, published=3),
]


def test_a_summary_comes_back() -> None:
    packed = pack_summary(
        "busi", frames=7, skipped=4, rejects=1, samples=SAMPLES, thumbnails=[b"x" * 1024, b"y" * 1024]
    )
    summary = read_summary(packed)
    assert (summary.dataset, summary.frames, summary.skipped, summary.rejects, summary.number) == ("busi", 7, 4, 1, 2)
    assert [SampleSummary(*row) for row in np.frombuffer(summary.samples, SAMPLE).tolist()] == SAMPLES
    assert summary.thumbnails == b"x" * 1024 + b"y" * 1024


def test_a_record_without_samples_has_a_summary() -> None:
    summary = read_summary(pack_summary("busi", frames=1, skipped=0, rejects=1, samples=[], thumbnails=[]))
    assert (summary.number, summary.samples, summary.thumbnails) == (0, b"", b"")


TEXTS = st.text() | st.sampled_from(['"split": null', '{"split": null, "duplicate_group": null}', '\\", "split": null'])


@given(labels=TEXTS, view=TEXTS, group=st.none() | st.from_regex(r"dup-[0-9a-f]{20}", fullmatch=True))
def test_a_decided_row_differs_in_split_and_group_alone(labels: str, view: str, group: str | None) -> None:
    row = {"labels": labels, "view": view, "a": view, "z": labels, "spacing_mm": 0.1, "organ": None}
    decided = decided_row(undecided_row(row), split="train", duplicate_group=group)
    wanted = row | {"split": "train", "duplicate_group": group}
    assert json.loads(decided) == wanted
    assert decided == json.dumps(wanted, sort_keys=True, ensure_ascii=False)
