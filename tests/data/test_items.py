"""Listing: every file has a role or a reject, nothing dangerous is opened, and the order is that of the paths."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from openus_data.card import Card, load_card
from openus_data.deid.pseudonym import Pseudonymizer, public_pseudonymizer
from openus_data.errors import DecodeError, UsageError
from openus_data.items import Listing, folder_items, list_items, walk
from openus_data.records import Item, Reject
from openus_data.tables import read_rows, read_table

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
lesion = 1
[[downloads]]
source = "zenodo"
locator = "1"
"""
PLAIN = HEAD + '[[images]]\nmatch = ["images/*.png"]\n[[masks]]\nmatch = ["masks/*.png"]\nclass = "lesion"\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def card_of(folder: Path, text: str) -> Card:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_card(path)


def put(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def split_up(entries: object) -> tuple[list[Item], list[Reject]]:
    found = list(entries)  # type: ignore[call-overload]
    return [e for e in found if isinstance(e, Item)], [e for e in found if isinstance(e, Reject)]


def test_images_come_in_the_order_of_their_paths_with_their_masks(tmp_path: Path, files: Path) -> None:
    put(files, "x/images/b.PNG", "x/images/a.png", "x/masks/a.png", "x/images/c.png")
    items, rejects = split_up(list_items(card_of(tmp_path, PLAIN), files))
    assert [i.relative for i in items] == ["x/images/a.png", "x/images/b.PNG", "x/images/c.png"]
    assert [len(i.masks) for i in items] == [1, 0, 0] and not rejects
    assert all(i.path.is_file() and i.facts["organ"] == "abdomen" for i in items)


def test_what_no_rule_knows_is_a_reject_under_a_keyed_name(tmp_path: Path, files: Path) -> None:
    put(files, "Jane_Doe_1970/scan.png", "images/a.png", "masks/z.png")
    _, rejects = split_up(list_items(card_of(tmp_path, PLAIN), files))
    assert sorted(r.reason for r in rejects) == ["mask_without_image", "unlisted"]
    assert "Doe" not in repr(rejects) and all(len(r.item) == 20 and r.stage == "list" for r in rejects)


def test_a_file_that_is_image_and_mask_at_once_is_turned_away(tmp_path: Path, files: Path) -> None:
    put(files, "a.png")
    text = HEAD + '[[images]]\nmatch = ["*.png"]\n[[masks]]\nmatch = ["*.png"]\nclass = "lesion"\n'
    items, rejects = split_up(list_items(card_of(tmp_path, text), files))
    assert not items and [r.reason for r in rejects] == ["ambiguous"]


def test_litter_is_passed_over_and_links_and_pipes_are_never_opened(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png", "images/._a.png", "images/Thumbs.db", ".DS_Store", "__MACOSX/images/a.png")
    (tmp_path / "secret.png").write_text("secret")
    (files / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    (files / "images" / "folder").symlink_to(tmp_path)
    os.mkfifo(files / "images" / "pipe.png")
    listing = Listing(card_of(tmp_path, PLAIN), files)
    items, rejects = split_up(listing)
    assert [i.relative for i in items] == ["images/a.png"]
    assert sorted(r.reason for r in rejects) == ["link", "link", "special"]
    assert listing.counts["junk"] == 4


def test_a_name_that_is_not_text_is_turned_away_and_does_not_stop_the_rest(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png")
    os.close(os.open(os.fsencode(files) + b"/images/\xff\xfe.png", os.O_CREAT))
    items, rejects = split_up(list_items(card_of(tmp_path, PLAIN), files))
    assert len(items) == 1 and [r.reason for r in rejects] == ["name"]


def test_odd_but_legal_names_are_kept(tmp_path: Path, files: Path) -> None:
    names = ["images/ä ö.png", "images/a b(1) [x].png", "images/日本.png", "images/new\nline.png"]
    put(files, *names)
    items, _ = split_up(list_items(card_of(tmp_path, PLAIN), files))
    assert sorted(i.relative for i in items) == sorted(names)


def test_the_listing_does_not_hang_on_the_order_of_the_file_system(tmp_path: Path) -> None:
    card, names = card_of(tmp_path, PLAIN), [f"d{n % 3}/images/{n}.png" for n in range(12)]
    listed = []
    for order in (names, names[::-1]):
        folder = tmp_path / str(len(listed))
        put(folder, *order)
        listed.append([i.relative for i in list_items(card, folder) if isinstance(i, Item)])
    assert listed[0] == listed[1] == sorted(names)


@pytest.mark.parametrize(
    ("rule", "subjects"),
    [
        ("path = 'p(\\d+)_'", ["1", "1", None]),
        ("path = 'p(\\d+)_'\nfallback = 'dataset'", ["1", "1", "whole dataset"]),
        ("path = 'p(\\d+)_'\nfallback = 'folder'", ["1", "1", "images"]),
        ("path = 'p(\\d+)_'\nvalues = { 1 = 'one' }", ["one", "one", None]),
        ("fallback = 'image'", [None, None, None]),
    ],
)
def test_subjects_come_from_the_path_or_from_what_stands_in(
    tmp_path: Path, files: Path, rule: str, subjects: list[str]
) -> None:
    put(files, "images/p1_a.png", "images/p1_b.png", "images/x.png")
    items, _ = split_up(list_items(card_of(tmp_path, PLAIN + f"[subject]\n{rule}\n"), files))
    assert [i.subject for i in items] == subjects


TABLE = """
[[tables]]
name = "t"
match = ["table.*"]
key = "file"
[[labels]]
name = "class"
table = "t"
column = "class"
[labels.values]
b = { pathology = "benign" }
[[split]]
table = "t"
column = "part"
values = { 1 = "train", 0 = "test" }
[subject]
table = "t"
column = "patient"
"""
ROWS = [
    {"file": "a.png", "class": "b", "part": 1, "patient": "p1"},
    {"file": "B", "class": "?", "part": 0, "patient": "p2"},
]


def as_csv(path: Path) -> None:
    lines = [" file ,class,part, patient", *(",".join(str(v) for v in r.values()) for r in ROWS)]
    path.with_suffix(".csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")


def as_json_list(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(ROWS))


def as_json_object(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({str(n): r for n, r in enumerate(ROWS)}))


def as_xlsx(path: Path) -> None:
    shared = ["file", "class", "part", "patient", "a.png", "b", "p1", "B", "?", "p2"]
    grid = [["file", "class", "part", "patient"], ["a.png", "b", 1, "p1"], ["B", "?", 0, "p2"]]
    name = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rows = ""
    for number, row in enumerate(grid, start=1):
        rows += f'<row r="{number}">'
        for column, cell in zip("ABCD", row, strict=True):
            kind, value = ("s", shared.index(cell)) if isinstance(cell, str) else ("n", float(cell))
            rows += f'<c r="{column}{number}" t="{kind}"><v>{value}</v></c>'
        rows += "</row>"
    with zipfile.ZipFile(path.with_suffix(".xlsx"), "w") as book:
        texts = "".join(f"<si><t>{s}</t></si>" for s in shared)
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{name}">{texts}</sst>')
        book.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{name}"><sheetData>{rows}</sheetData></worksheet>'
        )


@pytest.mark.parametrize("write", [as_csv, as_json_list, as_json_object, as_xlsx])
def test_a_table_of_any_kind_gives_labels_split_and_subject(tmp_path: Path, files: Path, write: object) -> None:
    put(files, "images/a.png", "images/b.png", "images/c.png")
    write(files / "table")  # type: ignore[operator]
    listing = Listing(card_of(tmp_path, PLAIN + TABLE), files)
    items, rejects = split_up(listing)
    assert [(i.split, i.subject, i.facts.get("pathology")) for i in items] == [
        ("train", "p1", "benign"),
        ("test", "p2", None),
        (None, None, None),
    ]
    assert items[1].labels == {"class": "?"} and not rejects
    assert listing.unmapped == {"class": {"?": 1}}


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"other,columns\n1,2\n", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", ["csv", "json", "xlsx"])
def test_a_broken_table_is_a_reject_and_the_images_still_come(
    tmp_path: Path, files: Path, content: bytes, suffix: str
) -> None:
    put(files, "images/a.png")
    (files / f"table.{suffix}").write_bytes(content)
    items, rejects = split_up(list_items(card_of(tmp_path, PLAIN + TABLE), files))
    assert len(items) == 1
    assert [r.reason for r in rejects] == ["table_unreadable"]


def test_a_missing_table_is_reported_unless_it_is_optional(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png")
    _, rejects = split_up(list_items(card_of(tmp_path, PLAIN + TABLE), files))
    assert [r.reason for r in rejects] == ["table_missing"]
    text = PLAIN + TABLE.replace('key = "file"', 'key = "file"\noptional = true')
    assert not split_up(list_items(card_of(tmp_path, text), files))[1]


def test_a_list_without_a_header_names_a_split(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png", "images/b.png")
    put(files, "val.txt", text="a.png   3\n\n")
    rule = '[[tables]]\nname = "v"\nmatch = ["val.txt"]\nkey = "i"\ncolumns = ["i", "c"]\ndelimiter = "whitespace"\n'
    text = PLAIN + rule + '[[split]]\ntable = "v"\nvalues = { "*" = "val" }\n'
    items, _ = split_up(list_items(card_of(tmp_path, text), files))
    assert [i.split for i in items] == ["val", None]


def test_an_image_that_its_list_does_not_name_is_left_out(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png", "images/b.png")
    put(files, "all.csv", text="i\na\n")
    text = PLAIN.replace('match = ["images/*.png"]', 'match = ["images/*.png"]\nlisted_in = "v"')
    text += '[[tables]]\nname = "v"\nmatch = ["all.csv"]\nkey = "i"\n'
    items, rejects = split_up(list_items(card_of(tmp_path, text), files))
    assert [i.relative for i in items] == ["images/a.png"] and not rejects


def test_a_label_inside_a_json_cell_is_read(tmp_path: Path, files: Path) -> None:
    put(files, "images/a.png")
    put(files, "t.csv", text='file,attributes\na.png,"{""View"": ""Long"", ""n"": 2}"\n')
    text = PLAIN + '[[tables]]\nname = "t"\nmatch = ["t.csv"]\nkey = "file"\n'
    text += '[[labels]]\nname = "v"\ntable = "t"\ncolumn = "attributes"\nmember = "View"\n'
    text += '[labels.values]\nLong = { view = "longitudinal" }\n'
    items, _ = split_up(list_items(card_of(tmp_path, text), files))
    assert items[0].facts["view"] == "longitudinal" and items[0].labels == {"v": "Long"}


def test_a_private_card_needs_the_secret_key(tmp_path: Path, files: Path) -> None:
    put(files, "other.png")
    card = card_of(tmp_path, PLAIN.replace('organ = "abdomen"', 'organ = "abdomen"\nprivate = true'))
    with pytest.raises(UsageError, match="secret key"):
        list_items(card, files)
    secret = split_up(list_items(card, files, Pseudonymizer(key=b"k" * 32)))[1]
    public = split_up(list_items(card, files, public_pseudonymizer()))[1]
    assert secret[0].item != public[0].item


def test_a_private_folder_needs_no_card_and_takes_its_top_folders_for_subjects(files: Path) -> None:
    put(files, "p1/s1/a.dcm", "p1/s2/b", "p2/c.png", "d.avi", ".DS_Store")
    (files / "p2" / "l").symlink_to(files)
    items, rejects = split_up(folder_items(files, "ours", Pseudonymizer(key=b"k" * 32)))
    assert [(i.dataset, i.subject) for i in items] == [("ours", None), ("ours", "p1"), ("ours", "p1"), ("ours", "p2")]
    assert [r.reason for r in rejects] == ["link"]
    assert "p1" not in repr(items) and "a.dcm" not in repr(items)


def test_an_empty_folder_lists_nothing(tmp_path: Path, files: Path) -> None:
    assert list(list_items(card_of(tmp_path, PLAIN), files)) == []
    assert walk(files) == ((), 0)


def test_a_column_that_is_missing_is_named(tmp_path: Path, files: Path) -> None:
    put(files, "table.csv", text="other\n1\n")
    table = card_of(tmp_path, PLAIN + TABLE).tables[0]
    assert list(read_rows(table, files / "table.csv")) == [{"other": "1"}]
    with pytest.raises(DecodeError, match="'file'"):
        read_table(table, [files / "table.csv"])
