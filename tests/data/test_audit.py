"""The audit: each planted fault is found, a clean corpus has none, and the numbers add up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from corpus_maker import make_corpus, picture
from hostile import dataset, dicom, speckle
from pydicom.dataset import Dataset

from openus_data.audit import AuditRequest, audit
from openus_data.audit.pixels import scan_area, scan_metadata
from openus_data.audit.sources import source_words
from openus_data.cone.outline import fill
from openus_data.errors import RecipeError, UsageError
from openus_data.records import Reject

Samples = Sequence[Mapping[str, Any]]


def _clean(tmp_path: Path) -> Path:
    makers = ("ge", "philips", None)
    samples = [
        {
            "organ": "breast" if k % 3 else "thyroid",
            "device_manufacturer": makers[k % 3],
            "split": ("train", "test")[k % 2],
        }
        for k in range(12)
    ]
    rejects = [
        Reject(dataset="toy", item=f"{k:08x}", stage="decode", reason="truncated", detail="cut") for k in range(3)
    ]
    return make_corpus(tmp_path / "clean", samples, rejects=rejects)


def _ids(tmp_path: Path, samples: Samples, **options: Any) -> dict[str, int]:
    out = make_corpus(tmp_path / "out", samples, **options)
    report = audit(AuditRequest(outs=(out,), quiet=True))
    return {f.id: f.count for f in report.findings}


def test_a_clean_corpus_passes_a_strict_audit_and_its_counts_add_up(tmp_path: Path) -> None:
    report = audit(AuditRequest(outs=(_clean(tmp_path),), strict=True, quiet=True))
    assert report.exit_code == 0 and not report.failing, report.to_text()
    assert report.totals["images"] == 12 and sum(r["images"] for r in report.by["organ"]) == 12
    assert {r["value"]: r["images"] for r in report.by["device_manufacturer"]} == {"ge": 4, "philips": 4, "unknown": 4}
    assert report.concentration["device_manufacturer"]["effective_number"] == pytest.approx(2.0)
    crossed = report.cross["organ x device_manufacturer"]
    assert sum(c["images"] for c in crossed) == 12
    assert report.flow[0]["turned_away"] == 3 and report.flow[0]["kept"] == 12
    assert len(report.to_text().splitlines()) <= 24
    json.dumps(report.to_json())


@pytest.mark.parametrize(
    ("finding", "samples"),
    [
        ("subject_crosses_splits", [{"subject_id": "s-1", "split": "train"}, {"subject_id": "s-1", "split": "test"}]),
        ("group_crosses_splits", [{"duplicate_group": "0a" * 8, "split": s} for s in ("train", "test")]),
        ("contamination", [{"duplicate_group": "0a" * 8, "split": s} for s in ("pretrain", "test")]),
        ("near_duplicates", [{"duplicate_group": "0a" * 8, "dataset": d} for d in ("a", "b")]),
        ("label_conflicts", [{"duplicate_group": "0a" * 8, "labels": json.dumps({"class": c})} for c in "xy"]),
        ("doubtful_cones", [{"cone_confidence": 0.2}]),
        ("poor_pictures", [{"quality": ["dark"]}]),
        ("unknown_licences", [{"license": None}]),
        ("header_like_text", [{"device_model": "SMITH^JANE"}]),
        ("header_like_text", [{"labels": json.dumps({"note": "seen 2019-03-07"})}]),
        ("header_like_text", [{"subject_id": "Jane Smith"}]),
        ("no_subject_key", [{"dataset": "busi"}]),
    ],
)
def test_each_planted_fault_is_found(tmp_path: Path, finding: str, samples: Samples) -> None:
    assert _ids(tmp_path, samples).get(finding, 0) >= 1


def test_equal_pictures_are_found(tmp_path: Path) -> None:
    assert _ids(tmp_path, [{}, {}], pixels={0: picture(5), 1: picture(5)})["exact_duplicates"] == 1


def test_text_that_is_left_in_a_picture_is_found(tmp_path: Path) -> None:
    image = picture(3, 300, 400)
    for y in (60, 120, 180):
        cv2.putText(image, "SMITH JANE 07.03.1961", (40, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    assert _ids(tmp_path, [{}], pixels={0: image}).get("residual_text") == 1


def test_a_flipped_byte_in_a_picture_is_found(tmp_path: Path) -> None:
    out = make_corpus(tmp_path / "out", [{"pixel_sha256": "0" * 64}])
    report = audit(AuditRequest(outs=(out,), quiet=True))
    assert report.exit_code == 1 and [f.id for f in report.failing] == ["damaged_pictures"]


def test_what_leaks_is_never_repeated_in_the_report(tmp_path: Path) -> None:
    out = make_corpus(tmp_path / "out", [{"transducer": "SMITH^JANE"}])
    page = tmp_path / "audit.html"
    report = audit(AuditRequest(outs=(out,), html=page, quiet=True))
    said = report.to_text() + json.dumps([f.to_json() for f in report.findings])
    assert "SMITH" not in said and report.exit_code == 1


def test_words_of_the_sources_own_headers_are_found_and_never_repeated(tmp_path: Path) -> None:
    """No pattern knows that Meier is a patient and Nordhaus a clinic; the folder that was built from does."""
    source = tmp_path / "scans" / "deep"
    source.mkdir(parents=True)
    reader, item = Dataset(), Dataset()
    reader.PersonName, item.ContentSequence = "Okonkwo^Ada", [Dataset()]
    item.ContentSequence[0].PersonName = "Okonkwo^Ada"
    made = dataset(speckle(), PatientName="Meier^Jo", PatientID="A-77312", InstitutionName="Nordhaus Breast Clinic")
    made.RequestAttributesSequence = [item]
    (source / "a.dcm").write_bytes(dicom(made))
    (source / "notes.txt").write_text("no DICOM")
    samples = [{"device_model": "SONOX Meier"}, {"transducer": "C5 Okonkwo"}, {"labels": '{"site": "nordhaus"}'}, {}]
    out = make_corpus(tmp_path / "out", samples)
    assert audit(AuditRequest(outs=(out,), quiet=True, images="none")).exit_code == 0
    report = audit(AuditRequest(outs=(out,), quiet=True, sources=tmp_path / "scans"))
    found = {finding.id: finding for finding in report.findings}
    assert report.exit_code == 1 and found["header_like_text"].count == 3
    said = (report.to_text() + json.dumps(report.to_json())).lower()
    assert not [word for word in ("meier", "okonkwo", "nordhaus", "77312") if word in said]
    clean = make_corpus(tmp_path / "clean", [{"organ": "breast", "device_model": "LOGIQ E9"}])
    assert audit(AuditRequest(outs=(clean,), quiet=True, sources=tmp_path / "scans")).exit_code == 0


def test_a_name_in_a_samples_own_json_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(dataset(speckle(), PatientName="Meier^Jo")))
    words = source_words(tmp_path / "a.dcm")
    assert "meier" in words
    assert list(scan_metadata(b'{"view": "the Meier view"}', words)) == ["view: known-word"]
    with pytest.raises(UsageError, match="nothing there"):
        source_words(tmp_path / "nowhere")


def test_text_beside_a_doubtful_outline_is_looked_for_too() -> None:
    """Where the build did not blacken what lies outside, the whole picture is searched."""
    triangle = [[50.0, 0.0], [100.0, 100.0], [0.0, 100.0]]
    inside = np.zeros((100, 100), np.uint8)
    fill(inside, np.asarray(triangle))
    lit = np.full((100, 100), 90, np.uint8)
    assert scan_area(lit, triangle).all() and scan_area(lit, []).all()
    assert np.array_equal(scan_area(lit * inside, triangle), inside.astype(bool))


def test_thresholds_allow_what_they_say_and_are_read_strictly(tmp_path: Path) -> None:
    out = make_corpus(tmp_path / "out", [{}, {}], pixels={0: picture(5), 1: picture(5)})
    recipe = tmp_path / "strict.yaml"
    recipe.write_text("exact_duplicates: 1\n")
    request = AuditRequest(outs=(out,), strict=True, quiet=True)
    assert audit(request).exit_code == 1
    assert audit(AuditRequest(outs=(out,), strict=True, recipe=recipe, quiet=True)).exit_code == 0
    recipe.write_text("exact_duplicate: 1\n")
    with pytest.raises(RecipeError, match="no such finding"):
        audit(AuditRequest(outs=(out,), recipe=recipe, quiet=True))


def test_a_condition_keeps_its_rows_and_a_bad_column_is_named(tmp_path: Path) -> None:
    out = _clean(tmp_path)
    assert audit(AuditRequest(outs=(out,), where="organ = 'thyroid'", quiet=True)).totals["images"] == 4
    with pytest.raises(UsageError, match="condition"):
        audit(AuditRequest(outs=(out,), where="organ = ", quiet=True))
    with pytest.raises(UsageError, match="no such column"):
        audit(AuditRequest(outs=(out,), by=("shoe_size",), quiet=True))


def test_two_builds_are_compared_by_what_came_went_and_changed(tmp_path: Path) -> None:
    before = make_corpus(tmp_path / "a", [{"split": "train"}, {"split": "train"}, {}])
    after = make_corpus(tmp_path / "b", [{"split": "train"}, {"split": "val"}, {}, {}], pixels={0: picture(77)})
    found = audit(AuditRequest(outs=(after,), compare=before, quiet=True)).compare
    assert found is not None
    assert {k: v["count"] for k, v in found["kinds"].items()} == {
        "came": 1, "went": 0, "changed": 1, "moved": 1, "relabelled": 0,
    }  # fmt: skip


def test_citations_of_every_dataset_are_written(tmp_path: Path) -> None:
    out = make_corpus(tmp_path / "out", [{"dataset": "busi"}, {"dataset": "tn3k"}, {"dataset": "mine"}])
    audit(AuditRequest(outs=(out,), bibtex=tmp_path / "c.bib", quiet=True))
    text = (tmp_path / "c.bib").read_text()
    assert "@misc{busi," in text and "@misc{tn3k," in text and "mine" not in text
