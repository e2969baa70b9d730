"""Masks of every format become one label map of the image's size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.card import Card, load_card
from openus_data.errors import DecodeError
from openus_data.items import list_items
from openus_data.masks import LabelMap, load_mask, oriented
from openus_data.records import Item

HEAD = """
id = "mine"
title = "Mine"
homepage = "https://example.org"
role = "pretrain"
access = "open"
host = "zenodo"
organ = "abdomen"
anatomy = []
[citation]
text = "A. Author, 2020"
[license]
spdx = "CC-BY-4.0"
class = "attribution"
redistributable = true
[mask_classes]
low = 1
high = 2
[[downloads]]
source = "zenodo"
locator = "1"
[[images]]
match = ["images/*"]
"""
H, W = 12, 20
BOX = np.zeros((H, W), bool)
BOX[3:9, 4:15] = True
Load = Callable[..., LabelMap | None]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write mask files below masks/, and read them for the image `a.png` under a rule."""

    def read(
        rule: str, write: Callable[[Path], object], *, size: tuple[int, int] = (H, W), frame: int = 0
    ) -> LabelMap | None:
        files = tmp_path / "files"
        (files / "images").mkdir(parents=True, exist_ok=True)
        (files / "masks").mkdir(exist_ok=True)
        (files / "images" / "a.png").touch()
        write(files / "masks")
        card = card_of(tmp_path, rule)
        item = next(i for i in list_items(card, files) if isinstance(i, Item))
        return load_mask(card, item, height_px=size[0], width_px=size[1], frame_index=frame)

    return read


def card_of(folder: Path, rule: str) -> Card:
    path = folder / "mine.toml"
    path.write_text(HEAD + "[[masks]]\n" + rule)
    return load_card(path)


def picture(array: NDArray[np.generic], name: str = "a.png") -> Callable[[Path], object]:
    return lambda folder: cv2.imwrite(str(folder / name), np.asarray(array))


def text(content: object, name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


BINARY = 'match = ["masks/*"]\nclass = "low"\n'
CORNERS = [(4, 3), (14, 3), (14, 8), (4, 8)]


def test_an_image_without_masks_has_no_label_map(load: Load) -> None:
    assert load(BINARY, lambda folder: None) is None


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_a_binary_mask_is_cut_at_half(load: Load, suffix: str, colour: bool) -> None:
    grey = np.where(BOX, 200, 60).astype(np.uint8)
    label = load(BINARY, picture(np.dstack([grey] * 3) if colour else grey, f"a.{suffix}"))
    assert np.array_equal(label, BOX.astype(np.uint8))


def test_a_jpeg_mask_loses_no_edge_to_its_compression(load: Load) -> None:
    big = np.kron(BOX, np.ones((8, 8))).astype(np.uint8) * 255
    label = load(BINARY, picture(big, "a.jpg"), size=big.shape)
    assert label is not None and np.mean((label > 0) != (big > 0)) < 0.002


def test_a_mask_of_zeros_and_ones_needs_threshold_zero(load: Load) -> None:
    assert np.array_equal(load(BINARY + "threshold = 0\n", picture(BOX.astype(np.uint8))), BOX)


def test_several_masks_of_an_image_are_joined_and_the_higher_class_is_on_top(load: Load) -> None:
    def write(folder: Path) -> None:
        cv2.imwrite(str(folder / "a_1.png"), BOX.astype(np.uint8) * 255)
        cv2.imwrite(str(folder / "a_2.png"), np.roll(BOX, 3, 1).astype(np.uint8) * 255)

    key = "key = 'masks/(\\w)_'\n"
    rules = (
        f'match = ["masks/*_2.png"]\nclass = "high"\n{key}[[masks]]\nmatch = ["masks/*_1.png"]\nclass = "low"\n{key}'
    )
    label = load(rules, write)
    expected = np.where(np.roll(BOX, 3, 1), 2, BOX.astype(int))
    assert np.array_equal(label, expected)


def test_listed_grey_values_are_classes_and_others_are_background(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    grey = np.zeros((H, W), np.uint8)
    grey[:2], grey[2:4], grey[4:6] = 7, 8, 99
    label = load('match = ["masks/*"]\nencoding = "index"\nvalues = { 7 = "high", 8 = "low" }\n', picture(grey))
    assert label is not None and [label[r, 0] for r in (0, 2, 4, 8)] == [2, 1, 0, 0]
    assert "99" in caplog.text


def test_a_coloured_mask_is_not_read_as_values(load: Load) -> None:
    rgb = np.zeros((H, W, 3), np.uint8)
    rgb[:3] = (0, 200, 0)
    with pytest.raises(DecodeError, match="coloured"):
        load('match = ["masks/*"]\nencoding = "index"\nvalues = { 7 = "high" }\n', picture(rgb))
    rgb[:3] = 7
    label = load('match = ["masks/*"]\nencoding = "index"\nvalues = { 7 = "high" }\n', picture(rgb))
    assert label is not None and label[0, 0] == 2


def test_colours_count_by_the_nearest(load: Load) -> None:
    rgb = np.zeros((H, W, 3), np.uint8)
    rgb[:3], rgb[3:6] = (0, 250, 4), (255, 3, 0)
    values = 'encoding = "colour"\nvalues = { "#00ff00" = "low", "#ff0000" = "high" }\n'
    label = load('match = ["masks/*"]\n' + values, picture(rgb[..., ::-1]))
    assert label is not None and [label[r, 0] for r in (0, 4, 9)] == [1, 2, 0]


def test_an_outline_is_filled(load: Load) -> None:
    line = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 30), (25, 15), 20, 0, 360, 255, 1)
    solid = cv2.ellipse(np.zeros((60, 80), np.uint8), (40, 30), (25, 15), 20, 0, 360, 1, -1)
    label = load('match = ["masks/*"]\nencoding = "outline"\nclass = "low"\n', picture(line), size=(60, 80))
    assert label is not None and np.mean(label != solid) < 0.01


def test_a_mask_of_another_size_is_resized_and_of_another_shape_refused(load: Load) -> None:
    write = picture(np.kron(BOX, np.ones((4, 4))).astype(np.uint8) * 255)
    assert np.array_equal(load(BINARY, write), BOX)
    with pytest.raises(DecodeError, match="another shape"):
        load(BINARY, write, size=(H, 2 * W))


@pytest.mark.parametrize("orient", ["transpose", "flip-rows", "flip-columns", "rotate-90", "rotate-180", "rotate-270"])
def test_a_turned_mask_is_turned_back(load: Load, orient: str) -> None:
    back = {"rotate-90": "rotate-270", "rotate-270": "rotate-90"}.get(orient, orient)
    stored = oriented(BOX, back)  # type: ignore[arg-type]
    label = load(BINARY + f'orient = "{orient}"\n', picture(stored.astype(np.uint8) * 255))
    assert np.array_equal(label, BOX)


@pytest.mark.parametrize(
    ("encoding", "name", "content"),
    [
        ("points", "a.json", CORNERS),
        ("labelme", "a.json", {"shapes": [{"label": "x", "points": CORNERS, "shape_type": "polygon"}]}),
        (
            "labelme",
            "a.json",
            {"shapes": [{"label": "x", "points": [CORNERS[0], CORNERS[2]], "shape_type": "rectangle"}]},
        ),
        (
            "polygons-xml",
            "a.xml",
            "<case><mark><svg>"
            + json.dumps([{"points": [{"x": x, "y": y} for x, y in CORNERS], "regionType": "x"}])
            + "</svg></mark><mark><svg/></mark></case>",
        ),
    ],
)
def test_polygons_of_any_file_fill_the_same_area(load: Load, encoding: str, name: str, content: object) -> None:
    meant = 'class = "low"\n' if encoding == "points" else 'values = { x = "low" }\n'
    label = load(f'match = ["masks/*"]\nencoding = "{encoding}"\n{meant}', text(content, name))
    assert np.array_equal(label, BOX)


def runs_of(mask: NDArray[np.bool_]) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def compressed(runs: list[int]) -> str:
    """COCO's text, written from its description: five bits a letter, low bits first, differences from run 4."""
    letters = ""
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            letters += chr((bits | 32 if more else bits) + 48)
    return letters


def coco(segmentation: object) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "x/a.png", "height": H, "width": W}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 5, "name": "tumour"}, {"id": 6, "name": "unlisted"}],
        "annotations": [
            {"image_id": 1, "category_id": 5, "segmentation": segmentation},
            {"image_id": 1, "category_id": 6, "segmentation": [[0, 0, 3, 0, 3, 3]]},
            {"image_id": 2, "category_id": 5, "segmentation": [[0, 0, 9, 0, 9, 9]]},
        ],
    }


COCO = 'match = ["masks/*.json"]\nencoding = "coco"\nshared = true\nvalues = { tumour = "high" }\n'


@pytest.mark.parametrize("kind", ["polygon", "runs", "text"])
def test_coco_annotations_of_every_kind_fill_the_same_area(load: Load, kind: str) -> None:
    runs = runs_of(BOX)
    segmentation = {
        "polygon": [[float(v) for corner in CORNERS for v in corner]],
        "runs": {"size": [H, W], "counts": runs},
        "text": {"size": [H, W], "counts": compressed(runs)},
    }[kind]
    assert np.array_equal(load(COCO, text(coco(segmentation), "all.json")), BOX * 2)


def test_an_image_that_a_shared_file_does_not_list_has_no_annotation_and_one_listed_bare_an_empty_one(
    load: Load,
) -> None:
    named = coco([[0, 0, 9, 0, 9, 9]])
    bare = {**named, "annotations": []}
    other = {**named, "images": [{"id": 1, "file_name": "x/z.png", "height": H, "width": W}]}
    assert load(COCO, text(other, "all.json")) is None
    empty = load(COCO, text(bare, "all.json"))
    assert empty is not None and not empty.any()
    table = 'match = ["masks/*.csv"]\nencoding = "rle-table"\nclass = "low"\nshared = true\n'
    assert (
        load(table, lambda folder: [(folder / "all.json").unlink(), text("img,pixels\nb,1 5\n", "m.csv")(folder)])
        is None
    )
    empty = load(table, text("img,pixels\na,\n", "m.csv"))
    assert empty is not None and not empty.any()


@pytest.mark.parametrize("counts", [[5, 5], [-1, 241], "zzz", [10**12]])
def test_runs_that_do_not_fill_the_picture_are_refused(load: Load, counts: object) -> None:
    with pytest.raises(DecodeError, match="cannot be read"):
        load(COCO, text(coco({"size": [H, W], "counts": counts}), "all.json"))


def test_runs_in_a_table_count_from_one_down_the_columns(load: Load) -> None:
    flat = np.flatnonzero(BOX.T.ravel()) + 1
    rows = "img,pixels\nA," + " ".join(f"{n} 1" for n in flat) + "\nb,1 5\n"
    rule = 'match = ["masks/*.csv"]\nencoding = "rle-table"\nclass = "low"\nshared = true\n'
    assert np.array_equal(load(rule, text(rows, "masks.csv")), BOX)


@pytest.mark.parametrize("runs", ["0 5", "-5 3", "238 9", "9999 1", "a b", "1", f"1 {'9' * 30}", "1.5 2"])
def test_runs_in_a_table_that_leave_the_picture_are_refused(load: Load, runs: str) -> None:
    rule = 'match = ["masks/*.csv"]\nencoding = "rle-table"\nclass = "low"\nshared = true\n'
    with pytest.raises(DecodeError, match="run length"):
        load(rule, text(f"img,pixels\nA,{runs}\n", "masks.csv"))


def test_a_very_long_row_of_runs_breaks_no_other_row(load: Load) -> None:
    rule = 'match = ["masks/*.csv"]\nencoding = "rle-table"\nclass = "low"\nshared = true\n'
    found = load(rule, text("img,pixels\nb," + "7 1 " * 50_000 + "\nA,1 3\n", "masks.csv"))
    assert found is not None and found.sum() == 3


def test_an_image_takes_the_coco_entry_of_its_own_folder(load: Load) -> None:
    listed: dict[str, Any] = coco([])
    listed["images"] = [{"id": n, "file_name": f"{name}/a.png"} for n, name in ((1, "images"), (2, "others"))]
    own = [float(v) for corner in CORNERS for v in corner]
    listed["annotations"] = [{"image_id": n, "category_id": 5, "segmentation": [own]} for n in (1, 2)]
    listed["annotations"][1]["segmentation"] = [[0, 0, 2, 0, 2, 2]]
    assert np.array_equal(load(COCO, text(listed, "all.json")), BOX * 2)
    for image in listed["images"]:
        image["file_name"] = f"elsewhere/{image['file_name']}"
    with pytest.raises(DecodeError, match="cannot be read"):
        load(COCO, text(listed, "all.json"))


def test_a_circle_of_labelme_is_filled(load: Load) -> None:
    drawn = {"shapes": [{"label": "tumour", "shape_type": "circle", "points": [[10, 6], [14, 6]]}]}
    rule = 'match = ["masks/*.json"]\nencoding = "labelme"\nvalues = { tumour = "low" }\n'
    found = load(rule, text(drawn, "a.json"))
    assert found is not None and 40 <= found.sum() <= 70 and found[6, 13] and not found[2, 6]


def test_a_slice_of_a_label_volume_keeps_its_values(load: Load) -> None:
    stack = np.zeros((W, H, 3), np.int16)  # NIfTI: the first axis is the column
    stack[:, :, 1] = np.where(BOX, 2, 0).T
    volume = nibabel.Nifti1Image(stack, np.eye(4))  # type: ignore[no-untyped-call]
    write = lambda folder: nibabel.save(volume, folder / "a.nii.gz")  # type: ignore[attr-defined]  # noqa: E731
    rule = 'match = ["masks/*"]\nencoding = "index"\nvalues = { 2 = "high" }\n'
    assert np.array_equal(load(rule, write, frame=1), BOX * 2)
    assert not np.any(load(rule, write, frame=0))
    with pytest.raises(DecodeError, match="fewer slices"):
        load(rule, write, frame=3)
    moving = nibabel.Nifti1Image(np.stack([stack * 0, stack], -1), np.eye(4))  # type: ignore[no-untyped-call]
    write = lambda folder: nibabel.save(moving, folder / "a.nii.gz")  # type: ignore[attr-defined]  # noqa: E731
    assert np.array_equal(load(rule, write, frame=4), BOX * 2) and not np.any(load(rule, write, frame=1))


@pytest.mark.parametrize("at", [40, 70, 0.5])
def test_a_damaged_label_volume_is_a_decode_error(load: Load, at: float) -> None:
    volume = nibabel.Nifti1Image(np.ones((W, H, 3), np.int16), np.eye(4))  # type: ignore[no-untyped-call]
    plain = bytearray(volume.to_bytes())
    if at > 1:
        plain[int(at) : int(at) + 2] = b"\xff\x7f"  # the header: number of axes, type of the samples
    packed = bytearray(gzip.compress(bytes(plain)))
    if at < 1:
        packed[int(at * len(packed))] ^= 0xFF
    with pytest.raises(DecodeError):
        load(BINARY, lambda folder: (folder / "a.nii.gz").write_bytes(packed))


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz"])
def test_a_broken_mask_is_a_decode_error(load: Load, name: str) -> None:
    with pytest.raises(DecodeError):
        load(BINARY, lambda folder: (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n broken"))


@pytest.mark.parametrize("content", ["", "[[1]]", "{}", "[[1, 2], [null, 3], [4, 5]]", "[" * 100_000])
def test_a_broken_point_list_is_a_decode_error(load: Load, content: str) -> None:
    with pytest.raises(DecodeError):
        load('match = ["masks/*"]\nencoding = "points"\nclass = "low"\n', text(content, "a.json"))


def test_the_real_coco_file_of_mmotu_marks_tumours(realdata: Path, tmp_path: Path) -> None:
    sample = realdata / "dev" / "05_ultrasam_mmotu_coco" / "sample_dataset"
    files = tmp_path / "files"
    (files / "images").mkdir(parents=True)
    (files / "masks").mkdir()
    annotations = json.loads((sample / "sample_coco_MMOTU2D.json").read_text())
    (files / "masks" / "all.json").write_text(json.dumps(annotations))
    for image in annotations["images"]:
        (files / "images" / image["file_name"]).touch()
    card = card_of(tmp_path, COCO.replace('tumour = "high"', '"*" = "low"'))
    shares = []
    for item, image in zip(list_items(card, files), annotations["images"], strict=True):
        assert isinstance(item, Item)
        label = load_mask(card, item, height_px=image["height"], width_px=image["width"])
        assert label is not None
        areas = [a["area"] for a in annotations["annotations"] if a["image_id"] == image["id"] and a.get("area")]
        shares.append((label > 0).mean())
        if len(areas) == 1:
            assert np.count_nonzero(label) == pytest.approx(areas[0], rel=0.15)
    assert min(shares) > 0.005 and max(shares) < 0.9


def test_the_real_kidney_labels_hold_capsule_and_regions(realdata: Path, tmp_path: Path) -> None:
    from openus_data.card import load_cards

    card = load_cards()["kidneyus"]
    labels = realdata / "dev" / "12_kidneyus_labels_only" / "labels"
    files = tmp_path / "files"
    (files / "kidneyUS_images_14_june_2022").mkdir(parents=True)
    for mask in sorted(labels.glob("reviewed_masks_1/*/*.png")):
        copy = files / "labels" / mask.relative_to(labels)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(mask.read_bytes())
        (files / "kidneyUS_images_14_june_2022" / mask.name).touch()
    items = [i for i in list_items(card, files) if isinstance(i, Item)]
    assert len(items) == 3 and all(len(i.masks) == 2 for i in items)
    height, width = cv2.imread(str(items[1].masks[0]), cv2.IMREAD_UNCHANGED).shape[:2]
    label = load_mask(card, items[1], height_px=height, width_px=width)
    assert label is not None and set(np.unique(label)) == {0, 1, 2, 3, 4}
