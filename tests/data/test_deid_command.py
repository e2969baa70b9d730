"""`deid SRC DST` as a library call: what is written, what is refused, and what is never touched."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from canary_search import Searcher
from planted import Canaries, planted_dataset, planted_dicom, speckle
from pydicom.dataset import Dataset

from openus_data import deidentify as command
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deidentify import DeidReport, default_key_file, deidentify
from openus_data.errors import UsageError

SIZE = (256, 320)


def file_bytes(dataset: Dataset) -> bytes:
    """A file as a scanner might write it."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write(path: Path, canary: Canaries, seed: int = 0, **attributes: object) -> None:
    """A planted DICOM file with other attributes."""
    dataset = planted_dataset(canary, pixels=speckle(*SIZE, seed=seed))
    with quiet_pydicom():
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_bytes(dataset))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Canaries]:
    """Two studies of a patient and one of another, a volume, a report, a broken file, and files of other kinds."""
    folder, canary = tmp_path_factory.mktemp("archive"), Canaries()
    jane = canary("folder name, patient")
    for number, day in enumerate(("20190412", "20190423")):
        study = {
            "PatientID": "JANE1",
            "IssuerOfPatientID": "A",
            "StudyDate": day,
            "StudyInstanceUID": f"1.2.9.{number}",
        }
        write(folder / jane / f"{number}.dcm", canary, number, SOPInstanceUID=f"1.2.9.{number}.1", **study)
    write(folder / "other.dcm", canary, 7, PatientID="JANE1", IssuerOfPatientID="B", SOPInstanceUID="1.2.9.7")
    write(folder / "same.dcm", canary, 8, SOPInstanceUID="1.2.9.7")
    face = {"ImageType": ["ORIGINAL", "PRIMARY", "OBSTETRICAL", "0040"], "BodyPartExamined": "FETUS"}
    write(folder / "face.dcm", canary, 9, SOPInstanceUID="1.2.9.9", AnatomicRegionSequence=[], **face)
    write(folder / "report.dcm", canary, 10, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SOPInstanceUID="1.2.9.10")
    (folder / f"{canary('broken file')}.dcm").write_bytes(planted_dicom(canary)[:3000])
    (folder / "notes.txt").write_text(canary("text file"))
    (folder / "empty.dcm").write_bytes(b"")
    return folder, canary


@pytest.fixture(scope="module")
def run(archive: tuple[Path, Canaries], tmp_path_factory: pytest.TempPathFactory) -> tuple[DeidReport, Path, Path]:
    work = tmp_path_factory.mktemp("run")
    report = deidentify(archive[0], work / "out", key_file=work / "key", dates="shift", workers=2, quiet=True)
    return report, work / "out", work / "key"


def test_every_file_has_one_verdict_and_what_is_refused_has_a_reason(run: tuple[DeidReport, Path, Path]) -> None:
    report, out, _ = run
    assert report.counts == {"written": 3, "quarantined": 2, "failed": 2, "skipped": 2}
    assert sorted(o.reason for o in report.outcomes if o.verdict != "written") == [
        "may-show-a-face", "not-decoded", "not-decoded", "not-dicom", "not-ultrasound", "same-instance-uid",
    ]  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == sorted(o.output for o in report.outcomes if o.output)
    assert report.exit_code == 1


def test_no_planted_string_is_in_output_or_report(
    archive: tuple[Path, Canaries], run: tuple[DeidReport, Path, Path]
) -> None:
    report, out, _ = run
    extra = {
        "19610307": "birth date",
        "1961030712345678": "UID",
        "JANE1": "PatientID",
        "20190412": "date",
        "1.2.9.": "UID",
    }
    searcher = Searcher(archive[1], extra)
    assert searcher.in_folders([out]) == []
    assert searcher.in_bytes(repr((report, report.to_json(), report.to_text())).encode(), "report") == []


def test_outputs_read_back_as_valid_ultrasound(run: tuple[DeidReport, Path, Path]) -> None:
    _, out, _ = run
    for path in out.iterdir():
        dataset = pydicom.dcmread(path)
        assert dataset.pixel_array.shape == SIZE and dataset.pixel_array.std() > 5
        assert path.stem == dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.PatientIdentityRemoved == "YES" and dataset.BurnedInAnnotation == "NO"
        assert "113101" in [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


def test_patients_and_intervals_are_kept(run: tuple[DeidReport, Path, Path]) -> None:
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in run[1].iterdir()]
    by_patient: dict[str, list[str]] = {}
    for dataset in datasets:
        by_patient.setdefault(dataset.PatientID, []).append(dataset.StudyDate)
    assert sorted(map(len, by_patient.values())) == [1, 2]
    days = sorted(np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in max(by_patient.values(), key=len))
    assert days[1] - days[0] == np.timedelta64(11, "D")


def test_one_key_gives_the_same_bytes_with_any_number_of_workers(
    archive: tuple[Path, Canaries], run: tuple[DeidReport, Path, Path], tmp_path: Path
) -> None:
    report, out, key = run
    again = deidentify(archive[0], tmp_path / "out", key_file=key, dates="shift", workers=1, quiet=True)
    assert again.to_json() == report.to_json()
    for path in out.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_the_key_is_made_once_and_owner_only(run: tuple[DeidReport, Path, Path]) -> None:
    key = run[2]
    assert key.stat().st_mode & 0o777 == 0o600


def test_text_beside_and_inside_the_cone_goes_even_if_the_header_denies_it(tmp_path: Path) -> None:
    pixels = speckle(480, 640)
    truth = pixels.copy()
    cv2.putText(pixels, "SMITH JANE", (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    beside = pixels != truth
    cv2.putText(pixels, "LT BREAST 3", (250, 260), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    inside = (pixels != truth) & ~beside
    dataset = planted_dataset(Canaries(), pixels=pixels)
    dataset.BurnedInAnnotation = "NO"
    (tmp_path / "src").mkdir()
    with quiet_pydicom():
        (tmp_path / "src" / "a.dcm").write_bytes(file_bytes(dataset))
    report = deidentify(tmp_path / "src", tmp_path / "out", key_file=tmp_path / "key", quiet=True)
    assert report.exit_code == 0 and report.outcomes[0].text_boxes >= 1
    cleaned = pydicom.dcmread(next((tmp_path / "out").iterdir())).pixel_array
    assert not cleaned[beside].any()
    assert (cleaned[inside] < 250).mean() > 0.9
    assert np.corrcoef(cleaned.ravel(), truth.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("dst", ["src/out", "src", "."])
def test_source_and_target_may_not_hold_each_other(tmp_path: Path, dst: str) -> None:
    write(tmp_path / "src" / "a.dcm", Canaries())
    with pytest.raises(UsageError, match="holds the other"):
        deidentify(tmp_path / "src", tmp_path / dst, key_file=tmp_path.parent / "k")


def test_a_key_inside_the_output_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "src" / "a.dcm", Canaries())
    with pytest.raises(UsageError, match="inside the output"):
        deidentify(tmp_path / "src", tmp_path / "out", key_file=tmp_path / "out" / "key")
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_a_folder_or_a_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for key in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match="not a key file"):
            deidentify(tmp_path / "source", tmp_path / "target", key_file=key)


def test_a_target_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "src" / "a.dcm", Canaries())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "raw.dcm").write_bytes(b"x")
    with pytest.raises(UsageError, match="something else"):
        deidentify(tmp_path / "src", tmp_path / "out", key_file=tmp_path / "key")


@pytest.mark.parametrize("dates", ["keep", ""])
def test_an_unknown_way_with_dates_is_refused(tmp_path: Path, dates: str) -> None:
    write(tmp_path / "src" / "a.dcm", Canaries())
    with pytest.raises(UsageError, match="dates"):
        deidentify(tmp_path / "src", tmp_path / "out", key_file=tmp_path / "key", dates=dates)


def test_the_default_key_lies_in_the_config_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_file() == tmp_path / "openus" / "deid.key"


def test_an_empty_source_gives_an_empty_report(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    report = deidentify(tmp_path / "src", tmp_path / "out", key_file=tmp_path / "key")
    assert report.outcomes == () and report.exit_code == 0


def test_nothing_is_passed_over_in_silence(tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "loop").symlink_to(source, target_is_directory=True)
    os.mkfifo(source / "pipe")
    (source / "gone").symlink_to(tmp_path / "nowhere")
    report = deidentify(source, tmp_path / "out", key_file=tmp_path / "key", quiet=True)
    assert [(o.verdict, o.reason) for o in report.outcomes] == [
        ("skipped", "linked-folder"),
        ("failed", "not-decoded"),
        ("failed", "not-decoded"),
    ]


def test_a_name_that_is_no_text_does_not_end_the_run(tmp_path: Path) -> None:
    source = tmp_path / "src"
    write(source / "a.dcm", Canaries(), SOPInstanceUID="1.2.9.1")
    for name in (b"caf\xe9.dcm", b"new\nline.dcm", b"\x1b[31m.dcm"):
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(b"no DICOM")
    report = deidentify(source, tmp_path / "out", key_file=tmp_path / "key", quiet=True)
    assert report.counts == {"written": 1, "quarantined": 0, "failed": 0, "skipped": 3}
    assert "\x1b" not in repr(report) and len({o.digest for o in report.outcomes}) == 4


def test_a_report_shown_by_a_debugger_names_no_path() -> None:
    task = command._Task(
        number=1, path=Path("/x/SMITH"), relative="SMITH", target=Path("out"),
        pseudonyms=command.Pseudonymizer(key=b"k" * 32), dates="remove",
    )  # fmt: skip
    assert "SMITH" not in repr(task) and "kkkk" not in repr(task)


def test_real_ultrasound_passes(realdata: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for name in ("examples_rgb_color.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"):
        (source / name).write_bytes((realdata / "dev" / "03_pydicom" / name).read_bytes())
    report = deidentify(source, tmp_path / "out", key_file=tmp_path / "key", quiet=True)
    assert report.counts["failed"] == report.counts["skipped"] == 0
    for path in (tmp_path / "out").iterdir():
        back = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        assert back.PhotometricInterpretation in ("RGB", "MONOCHROME2") and back.pixel_array.any()
