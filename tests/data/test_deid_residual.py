"""Header-like text is noticed where it should not be, and the manifest's own values are not."""

from __future__ import annotations

import json

import pytest

from openus_data.deid.residual import scan_json, scan_row, scan_text

ROW: dict[str, object] = {
    "sample_id": "busi-0123456789abcdef0123", "dataset": "busi", "subject_id": "12345678901234567890",
    "study_id": None, "frame_index": 20190412, "split": "train", "shard": "shards/train/openus-train-000000.tar",
    "spacing_row_mm": 0.123456789, "organ": "breast", "labels": json.dumps({"area": "0.1234567", "birads": "4a"}),
    "device_model": "LOGIQ E9", "transducer": "C5-1", "institution": "University Hospital, Cairo", "country": "EG",
    "cone_polygon": [[1.5, 123456.0]], "deid_actions": ["black-outside-cone"], "pixel_sha256": "1" * 64,
    "source_sha256": "a" * 64, "phash": "0" * 64, "license": "CC-BY-4.0", "card_sha256": "f" * 64,
    "redistributable": True, "pipeline_version": "1",
}  # fmt: skip


def test_a_clean_row_has_no_finding() -> None:
    assert list(scan_row(ROW)) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.2.840.113619.2.1.3", "uid"),
        ("study of 20190412", "date"),
        ("2019-04-12T10:15", "date"),
        ("12.04.2019", "date"),
        ("Smith^Jane", "person-name"),
        ("read by Dr. Smith", "person-name"),
        ("jane.smith@example.org", "e-mail"),
        ("/home/jane/scans/a.png", "path"),
        (r"C:\scans\a.png", "path"),
        ("call 555-123-4567", "phone"),
        ("MRN 00123456", "number"),
    ],
)
def test_header_like_text_is_found_wherever_it_stands(text: str, kind: str) -> None:
    assert [f.kind for f in scan_text(text, place="x")] == [kind]
    assert [f.kind for f in scan_row({**ROW, "device_model": text})] == [kind]
    assert [f.kind for f in scan_row({**ROW, "labels": json.dumps({"note": text})})] == [kind]
    assert [f.kind for f in scan_row({**ROW, "labels": json.dumps({text: "1"})})] == [kind]
    assert [f.kind for f in scan_json({"a": [{"b": text}]})] == [kind]


@pytest.mark.parametrize("column", ["sample_id", "subject_id", "phash", "shard", "pixel_sha256"])
def test_an_id_of_another_shape_is_found(column: str) -> None:
    assert [(f.place, f.kind) for f in scan_row({**ROW, column: "smith_jane"})] == [(column, "shape")]


def test_a_word_of_the_source_header_is_found() -> None:
    assert [f.kind for f in scan_text("the Jane view", place="x", words=frozenset({"jane"}))] == ["known-word"]


def test_a_reject_may_name_a_transfer_syntax_but_no_instance() -> None:
    detail = "DICOM transfer syntax that is not read; got {}; convert the file, for example with dcmdjpeg"
    for syntax in ("1.2.840.10008.1.2.4.94", "1.2.840.113619.5.2", "1.2.3.4.5"):
        assert list(scan_row({"detail": detail.format(syntax)})) == []
    for uid in ("1.2.3.19610307.4711", "1.2.840.113619.2.55.3.604688119.971.1268.1"):
        assert [f.kind for f in scan_row({"detail": detail.format(uid)})] == ["uid"]
    assert [f.kind for f in scan_row({"detail": "study 1.2.840.113619.5.2"})] == ["uid"]


def test_a_finding_does_not_repeat_the_text() -> None:
    finding = next(scan_text("Smith^Jane", place="x"))
    assert finding.shape == "aaaaa^aaaa"
