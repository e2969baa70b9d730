"""The traps that are known of single datasets are rules of their cards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from openus_data.card import load_cards
from openus_data.items import Listing
from openus_data.records import Item, Reject

Lay = Callable[..., list[Item]]
CARDS = load_cards()


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Make files (path, or path and text) in a folder and list them under a card."""

    def make(card: str, paths: Iterable[str], **texts: str) -> list[Item]:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        for path, text in texts.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return [i for i in Listing(CARDS[card], tmp_path) if isinstance(i, Item)]

    return make


def test_busi_joins_several_masks_and_never_takes_a_mask_for_an_image(lay: Lay) -> None:
    names = ["benign (100)", "benign (100)_mask", "benign (100)_mask_1", "benign (1)", "benign (1)_mask"]
    items = lay("busi", [f"Dataset_BUSI_with_GT/benign/{n}.png" for n in names])
    assert [len(i.masks) for i in items] == [1, 2]
    assert {i.facts["pathology"] for i in items} == {"benign"}


def test_bus_bra_takes_its_folds_and_keeps_a_patient_in_one(lay: Lay) -> None:
    items = lay(
        "bus_bra",
        [
            f"BUSBRA/{d}/{p}_000{n}-{s}.png"
            for n in (1, 2)
            for s in "lr"
            for d, p in (("Images", "bus"), ("Masks", "mask"))
        ],
        **{
            "BUSBRA/bus_data.csv": "ID,Case,Pathology,BIRADS,Device\nbus_0001-l,1,benign,2,GE Logiq 7\n"
            "bus_0001-r,1,benign,2,GE Logiq 7\nbus_0002-l,2,malignant,5,U-Systems\nbus_0002-r,2,malignant,5,X\n",
            "BUSBRA/5-fold-cv.csv": "ID,kFold\nbus_0001-l,1\nbus_0001-r,1\nbus_0002-l,3\nbus_0002-r,3\n",
        },
    )
    assert [i.split for i in items] == ["test", "test", "train", "train"]
    assert [i.subject for i in items] == ["0001", "0001", "0002", "0002"]
    assert [i.facts["pathology"] for i in items] == ["benign", "benign", "malignant", "malignant"]
    assert items[0].facts["device_manufacturer"] == "ge" and items[0].labels["fold"] == "1"
    assert all(len(i.masks) == 1 for i in items)


def test_tn3k_keeps_equal_file_numbers_of_its_two_folders_apart(lay: Lay) -> None:
    items = lay(
        "tn3k",
        [f"Thyroid Dataset/tn3k/{f}-{k}/0000.jpg" for f in ("trainval", "test") for k in ("image", "mask")]
        + ["Thyroid Dataset/tg3k/thyroid-image/0000.jpg"],
        **{
            "Thyroid Dataset/tn3k/label4trainval.csv": "0000.jpg,0\n",
            "Thyroid Dataset/tn3k/label4test.csv": "0000.jpg,1\n",
        },
    )
    assert {(i.split, i.facts["pathology"]) for i in items} == {("train", "benign"), ("test", "malignant")}
    assert all(i.masks[0].parent.name == i.path.parent.name.replace("image", "mask") for i in items)


def test_fetal_planes_reads_its_table_with_blanks_in_the_header(lay: Lay) -> None:
    head = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
    rows = [
        "Patient00001_Plane1_1_of_2;1;Other;Not A Brain;Op. 1;Aloka;1",
        "Patient00168_Plane3_1_of_3;168;Fetal brain;Trans-thalamic;Other;Voluson E6;0",
        "Patient00170_Plane5_1_of_1;170;Maternal cervix;Not A Brain;Op. 2;Voluson S10;1",
    ]
    items = lay(
        "fetal_planes_db",
        [f"FETAL_PLANES_ZENODO/Images/{r.split(';')[0]}.png" for r in rows],
        **{"FETAL_PLANES_ZENODO/FETAL_PLANES_DB_data.csv": "\n".join([head, *rows])},
    )
    assert [i.split for i in items] == ["train", "test", "train"]
    assert [i.subject for i in items] == ["Patient00001", "Patient00168", "Patient00170"]
    assert items[1].facts["view"] == "fetal_transthalamic" and items[1].facts["device_model"] == "Voluson E6"
    assert items[2].facts["anatomy"] == "cervix" and items[0].labels["machine"] == "Aloka"


def test_mmotu_reads_both_layouts_and_keeps_an_image_once(lay: Lay) -> None:
    paths = [
        "OTU_2d/images/1.JPG",
        "OTU_2d/images/2.JPG",
        "OTU_2d/annotations/1_binary.PNG",
        "OTU_2d/annotations/1.PNG",
    ]
    paths += ["dataset/OTU_2D/train/train_image/1.JPG", "dataset/OTU_2D/test/image/3.JPG", "OTU_3d/images/1.JPG"]
    items = lay(
        "mmotu_2d", paths, **{"OTU_2d/val.txt": "1\n", "OTU_2d/train.txt": "2\n", "OTU_2d/val_cls.txt": "1.JPG  7\n"}
    )
    assert {i.relative: i.split for i in items} == {
        "OTU_2d/images/1.JPG": "test",
        "OTU_2d/images/2.JPG": "train",
        "dataset/OTU_2D/test/image/3.JPG": "test",
    }
    assert items[0].facts["pathology"] == "high_grade_serous_carcinoma" and len(items[0].masks) == 1


def test_kidneyus_keeps_one_file_of_a_repeated_picture(lay: Lay, tmp_path: Path) -> None:
    names = ["100_IM-0246-0030_anon", "400_IM-0246-0030_anon", "610_IM-0246-0030_anon", "101_IM-0027-0028_anon"]
    items = lay("kidneyus", [f"kidneyUS_images_14_june_2022/{n}.png" for n in names])
    assert [i.subject for i in items] == ["100", "101"]
    rejects = [r for r in Listing(CARDS["kidneyus"], tmp_path) if isinstance(r, Reject)]
    assert [r.reason for r in rejects] == ["repeat", "repeat"]


def test_kidneyus_labels_without_images_are_masks_without_an_image(realdata: Path) -> None:
    listing = Listing(CARDS["kidneyus"], realdata / "dev" / "12_kidneyus_labels_only")
    reasons = {r.reason for r in listing if isinstance(r, Reject)}
    assert reasons == {"mask_without_image"}
    assert listing.counts["orphan"] == 6 and listing.counts["left-out"] >= 6


def test_covid_blues_lists_the_real_layout(realdata: Path) -> None:
    items = [i for i in Listing(CARDS["covid_blues"], realdata / "dev" / "07_covid-blues") if isinstance(i, Item)]
    assert {i.subject for i in items} == {"patient_10", "patient_12", "patient_28", "patient_29", "patient_39"}
    assert all(i.frames == "max 8" and i.facts["organ"] == "lung" for i in items)
    assert {i.labels["blue_point"] for i in items} == {"L1", "L3", "R1", "R2"}
    assert any("severity" in i.labels for i in items)


def test_pocus_gives_no_label_where_the_diagnosis_is_uncertain_and_keeps_a_set_together(lay: Lay) -> None:
    base = "covid19_ultrasound-master/data/pocus"
    paths = [f"{base}_videos/linear/{n}.mpeg" for n in ("Cov_bolzano_linee B", "label_uncertain/Cov_bolzano_linee B 3")]
    paths += [f"{base}_videos/convex/Pneu_northumbria_0409_set6_vid1.avi", f"{base}_videos/convex/Reg-Atlas.gif"]
    paths += [
        f"{base}_images/convex/Pneu_northumbria_0409_set6_img6.jpg",
        f"{base}_images/Convex/Reg-Atlas.gif_frame15.jpg",
    ]
    items = {i.path.name: i for i in lay("pocus_covid19", paths)}
    assert items["Cov_bolzano_linee B.mpeg"].facts["pathology"] == "covid_19"
    assert "pathology" not in items["Cov_bolzano_linee B 3.mpeg"].facts
    assert len({i.subject for name, i in items.items() if "set6" in name}) == 1
    assert len({i.subject for name, i in items.items() if "Atlas" in name}) == 1
    assert len({i.subject for i in items.values()}) == 4


def test_usanotai_leaves_out_its_byte_identical_twins(lay: Lay) -> None:
    items = lay(
        "usanotai", ["test/spleen-0051.png", "test/spleen--0056.png", "test/spleen--0060.png", "train/kidney-0001.png"]
    )
    assert [i.relative for i in items] == ["test/spleen-0051.png", "train/kidney-0001.png"]
    assert [i.facts["organ"] for i in items] == ["abdomen", "kidney"]


def test_aul_swaps_back_the_two_outlines_that_are_livers(lay: Lay) -> None:
    base = "Malignant/Malignant/segmentation"
    paths = [f"Malignant/Malignant/image/{n}.jpg" for n in (1, 229)]
    paths += [f"{base}/{k}/{n}.json" for k in ("liver", "outline", "mass") for n in (1, 229)]
    items = lay("aul", paths)
    names = [sorted(m.parent.name for m in i.masks) for i in items]
    assert names == [["liver", "mass"], ["mass", "outline"]]


def test_ccaui_pairs_image_and_mask_of_one_name(lay: Lay) -> None:
    items = lay("ccaui", [f"{d}/2022VAS_slice_{n}.png" for d in ("US images", "Expert mask images") for n in (1, 2)])
    assert [i.subject for i in items] == ["2022VAS"] * 2 and all(len(i.masks) == 1 for i in items)


def test_hc18_ties_a_second_image_of_a_head_to_its_subject_but_not_across_folders(lay: Lay) -> None:
    paths = [
        "training_set/010_HC.png",
        "training_set/010_2HC.png",
        "test_set/010_HC.png",
        "training_set/010_HC_Annotation.png",
    ]
    items = lay("hc18", paths)
    assert [i.subject for i in items] == ["test_set_010", "training_set_010", "training_set_010"]


def test_intrapartum_sets_without_keys_stay_in_one_family(lay: Lay) -> None:
    items = lay("psfhs", ["PSFHS/image_mha/03744.mha", "PSFHS/label_mha/03744.mha"])
    assert items[0].subject == "family intrapartum" and len(items[0].masks) == 1


def test_pydicom_us_ties_two_encodings_of_one_picture(lay: Lay) -> None:
    items = lay("pydicom-us", ["examples_jpeg2k.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm"])
    assert items[0].subject == items[1].subject != items[2].subject
    assert items[2].facts["organ"] == "cardiac"


def test_gist514_takes_only_images_that_its_annotations_list(lay: Lay) -> None:
    listed = {"images": [{"id": 1, "file_name": "0001.jpg"}], "categories": [], "annotations": []}
    paths = [f"usd514_jpeg_roi/images/{n}.jpg" for n in ("0001", "0001_flip")]
    items = lay("gist514_db", paths, **{"usd514_jpeg_roi/annotations/all_anno_crop.json": json.dumps(listed)})
    assert [i.relative for i in items] == paths[:1] and len(items[0].masks) == 1
