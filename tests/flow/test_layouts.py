"""Five public layouts, drawn again with real pictures, go from `fetch --from` to an audited corpus."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import disc, openus_data, small_pictures, write_picture

from openus_data.first_stage.encode import decode_stored
from openus_data.manifest import read_manifest, read_rejects
from openus_data.records import Pixels

EACH = 4
IDS = ("busi", "bus_bra", "tn3k", "fetal_planes_db", "mmotu_2d")
Row = dict[str, Any]


def draw_busi(folder: Path, pictures: tuple[Pixels, ...]) -> None:
    """A folder a class; the second benign picture has two masks."""
    for number, (name, pixels) in enumerate(zip(("benign", "benign", "malignant", "normal"), pictures, strict=True)):
        stem = folder / "Dataset_BUSI_with_GT" / name / f"{name} ({number + 1})"
        write_picture(stem.with_name(stem.name + ".png"), pixels)
        write_picture(stem.with_name(stem.name + "_mask.png"), disc(pixels) * (name != "normal"))
        if number == 1:
            write_picture(stem.with_name(stem.name + "_mask_1.png"), np.roll(disc(pixels), 9, axis=1))


def draw_bus_bra(folder: Path, pictures: tuple[Pixels, ...]) -> None:
    """Two women with two views each; fold 1 is the test fold."""
    top = folder / "BUSBRA"
    names = ("0001-l", "0001-r", "0002-l", "0002-r")
    for name, pixels in zip(names, pictures, strict=True):
        write_picture(top / "Images" / f"bus_{name}.png", pixels)
        write_picture(top / "Masks" / f"mask_{name}.png", disc(pixels))
    words = {"0001": ("benign", 2, "GE Logiq 5", 1), "0002": ("malignant", 5, "Toshiba Aplio 300", 3)}
    rows = [(f"bus_{n}", *words[n[:4]]) for n in names]
    (top / "bus_data.csv").write_text(
        "ID,Pathology,BIRADS,Device\n" + "".join(f"{i},{p},{b},{d}\n" for i, p, b, d, _ in rows)
    )
    (top / "5-fold-cv.csv").write_text("ID,kFold\n" + "".join(f"{i},{f}\n" for i, *_, f in rows))


def draw_tn3k(folder: Path, pictures: tuple[Pixels, ...]) -> None:
    """Numbers restart in each folder; masks are JPEG; the class lists have no head."""
    top = folder / "Thyroid Dataset" / "tn3k"
    for number, pixels in enumerate(pictures):
        part, name = ("trainval", "test")[number // 2], f"{number % 2:04d}.jpg"
        write_picture(top / f"{part}-image" / name, pixels)
        write_picture(top / f"{part}-mask" / name, disc(pixels))
    (top / "label4trainval.csv").write_text("0000.jpg,0\n0001.jpg,0\n")
    (top / "label4test.csv").write_text("0000.jpg,1\n0001.jpg,1\n")


def draw_fetal_planes(folder: Path, pictures: tuple[Pixels, ...]) -> None:
    """One table, semicolons, blanks at the end of a head; the cervix is the test set."""
    top = folder / "FETAL_PLANES_ZENODO"
    lines = ["Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "]
    for number, pixels in enumerate(pictures):
        patient = number // 2 + 1
        name = f"Patient{patient:05d}_Plane{number % 2 + 1}_1_of_1"
        write_picture(top / "Images" / f"{name}.png", pixels)
        plane, train = (("Fetal brain;Trans-thalamic", 1), ("Maternal cervix;Not A Brain", 0))[number // 2]
        lines.append(f"{name};{patient};{plane};Op. 1;Voluson E6;{train}")
    (top / "FETAL_PLANES_DB_data.csv").write_text("\n".join(lines) + "\n")


def draw_mmotu(folder: Path, pictures: tuple[Pixels, ...]) -> None:
    """Capital suffixes, binary masks beside coloured ones, lists of names and classes."""
    top = folder / "OTU_2d"
    for number, pixels in enumerate(pictures, start=1):
        write_picture(top / "images" / f"{number}.JPG", pixels)
        write_picture(top / "annotations" / f"{number}.PNG", disc(pixels))
        write_picture(top / "annotations" / f"{number}_binary.PNG", disc(pixels))
    (top / "train.txt").write_text("1\n2\n")
    (top / "val.txt").write_text("3\n4\n")
    (top / "train_cls.txt").write_text("1.JPG  0\n2.JPG  0\n")
    (top / "val_cls.txt").write_text("3.JPG  7\n4.JPG  7\n")


DRAWN = dict(zip(IDS, (draw_busi, draw_bus_bra, draw_tn3k, draw_fetal_planes, draw_mmotu), strict=True))


@pytest.fixture(scope="module")
def place(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layouts in `have/<id>`, fetched into `root` and built into `out`."""
    folder = tmp_path_factory.mktemp("layouts")
    pictures = small_pictures(realdata, 400)
    assert len(pictures) >= EACH * len(IDS), len(pictures)
    for number, (identifier, draw) in enumerate(DRAWN.items()):
        draw(folder / "have" / identifier, pictures[EACH * number : EACH * (number + 1)])
    answer = openus_data("fetch", *IDS, "--from", "have", "--root", "root", "--json", cwd=folder)
    assert answer.returncode == 0, answer
    built = openus_data(
        "build", *IDS, "--root", "root", "--out", "out", "--policy", "keep", "--workers", 2, "--json", cwd=folder
    )
    rejects = read_rejects(folder / "out").to_pylist()
    assert built.returncode == 0 and not rejects, rejects
    return folder


@pytest.fixture(scope="module")
def rows(place: Path) -> list[Row]:
    """The manifest."""
    return read_manifest(place / "out").to_pylist()


def of(rows: list[Row], dataset: str) -> list[Row]:
    """The rows of one dataset."""
    return [r for r in rows if r["dataset"] == dataset]


@pytest.mark.parametrize("dataset", IDS)
def test_an_archive_gives_the_tree_that_its_folder_gives(place: Path, dataset: str, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", place / "have" / dataset)
    answer = openus_data("fetch", dataset, "--from", archive, "--root", tmp_path / "root")
    assert answer.returncode == 0, answer
    trees = [
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "root" / dataset / "files", place / "root" / dataset / "files")
    ]
    assert trees[0] == trees[1]


def test_every_picture_arrives_with_the_classes_of_its_source(rows: list[Row]) -> None:
    by_picture = {i: {r["source_sha256"]: r["pathology"] or r["view"] for r in of(rows, i)} for i in IDS}
    found = {i: Counter(classes.values()) for i, classes in by_picture.items()}  # two panels of a picture are two rows
    assert found == {
        "busi": Counter(benign=2, malignant=1, normal=1),
        "bus_bra": Counter(benign=2, malignant=2),
        "tn3k": Counter(benign=2, malignant=2),
        "fetal_planes_db": Counter(fetal_transthalamic=2, maternal_cervix=2),
        "mmotu_2d": Counter(chocolate_cyst=2, high_grade_serous_carcinoma=2),
    }
    assert {r["device_model"] for r in of(rows, "bus_bra")} == {"Logiq 5", "Aplio 300"}
    assert {json.loads(r["labels"])["birads"] for r in of(rows, "bus_bra")} == {"2", "5"}
    assert {json.loads(r["labels"])["class"] for r in of(rows, "busi")} == {"benign", "malignant", "normal"}


def test_published_tests_are_test_and_nothing_else_is(rows: list[Row]) -> None:
    tests = {"tn3k": "malignant", "mmotu_2d": "high_grade_serous_carcinoma", "bus_bra": "benign"}
    for dataset, pathology in tests.items():
        assert all((r["split"] == "test") == (r["pathology"] == pathology) for r in of(rows, dataset)), dataset
    assert all((r["split"] == "test") == (r["view"] == "maternal_cervix") for r in of(rows, "fetal_planes_db"))


def test_no_subject_crosses_a_split(rows: list[Row]) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["subject_id"], set()).add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert {i: len({r["subject_id"] for r in of(rows, i)}) for i in IDS} == {
        "busi": 4, "bus_bra": 2, "tn3k": 4, "fetal_planes_db": 2, "mmotu_2d": 4
    }  # fmt: skip


def test_masks_have_the_crop_of_their_picture(place: Path, rows: list[Row]) -> None:
    for row in rows:
        with tarfile.open(place / "out" / row["shard"]) as tar:
            names = set(tar.getnames())
            name = f"{row['sample_id']}.mask.png"
            assert (name in names) == (row["dataset"] != "fetal_planes_db"), row["dataset"]
            if name in names:
                member = tar.extractfile(name)
                assert member is not None
                mask = decode_stored(member.read())
                assert mask.shape == (row["height_px"], row["width_px"])
                assert set(np.unique(mask)) == ({0} if row["pathology"] == "normal" else {0, 1})


def test_the_corpus_verifies_and_audits(place: Path) -> None:
    assert openus_data("verify", "out", cwd=place).returncode == 0
    answer = openus_data("audit", "out", "--json", cwd=place)
    assert answer.returncode == 0 and json.loads(answer.stdout), answer


def test_licence_class_and_limit_leave_out_what_they_say(place: Path) -> None:
    arguments = ("busi", "bus_bra", "--root", "root", "--out", "few", "--policy", "keep", "--workers", 1)
    answer = openus_data("build", *arguments, "--license-class", "attribution", "--limit", 2, "--json", cwd=place)
    assert answer.returncode == 0 and json.loads(answer.stdout)["datasets"]["bus_bra"]["images"] == 2, answer
    assert {r["dataset"] for r in read_manifest(place / "few").to_pylist()} == {"bus_bra"}
