"""`list`, `show` and `check-card` as library calls."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from openus_data.card import find_cards_dirs, load_cards
from openus_data.catalogue import ShowReport, bibtex, check_card, datasets_markdown, list_datasets, show_dataset
from openus_data.errors import CardError, UsageError

MANIFESTS = find_cards_dirs()[0]
CARDS = load_cards()
KEYS = {
    "id",
    "title",
    "organ",
    "anatomy",
    "images",
    "openus_images",
    "access",
    "license",
    "redistributable",
    "host",
    "role",
}


def test_the_42_of_openus_sum_to_the_published_figure() -> None:
    report = list_datasets(openus=True)
    rows = json.loads(json.dumps(report.to_json()))["datasets"]
    assert len(rows) == 42 and sum(r["openus_images"] for r in rows) == 309_364
    assert all(r.keys() >= KEYS for r in rows)
    assert "309,364" in report.to_text() and report.exit_code == 0


def test_filters_are_all_in_force_and_a_slip_is_refused() -> None:
    rows = list_datasets(organ="breast", access="open", license_class="attribution").to_json()["datasets"]
    assert isinstance(rows, list) and {r["id"] for r in rows} == {"bus_bra", "bus_uc", "bus_uclm", "breast_lesions_usg"}
    assert {c.id for c in list_datasets(organ="liver").cards} >= {"105us", "aul"}
    assert all(c.license.spdx == "CC-BY-4.0" for c in list_datasets(license_class="CC-BY-4.0").cards)
    with pytest.raises(UsageError, match="one of"):
        list_datasets(access="free")


@pytest.mark.parametrize("name", CARDS)
def test_show_tells_every_warning_doubt_overlap_and_step(name: str) -> None:
    card, report = CARDS[name], ShowReport(card=CARDS[name])
    text = report.to_text()
    said = [*card.warnings, *card.obtain, *(d.doubt for d in card.uncertain), *(o.what for o in card.overlaps)]
    assert all(line in text for line in said)
    assert card.citation.text in text and (card.license.spdx or card.license.terms or "") in text
    whole = json.loads(json.dumps(report.to_json()))
    assert whole["card"]["license"]["class"] == card.license.class_
    assert whole["card"]["images"] and whole["id"] == name


def test_show_names_the_nearest_id_and_the_members_of_a_bundle() -> None:
    with pytest.raises(UsageError, match="did you mean 'busi'"):
        show_dataset("bussi")
    with pytest.raises(UsageError, match="tn3k"):
        show_dataset("trfe_thyroid_bundle")
    assert show_dataset("mup").card.id == "microseg"


def test_check_card_without_a_folder_only_loads(tmp_path: Path) -> None:
    report = check_card(MANIFESTS / "busi.toml")
    assert report.exit_code == 0 and report.to_json() == {"id": "busi", "valid": True, "faults": []}
    bad = tmp_path / "busi.toml"
    bad.write_text((MANIFESTS / "busi.toml").read_text() + '\n[licence]\nx = "y"\n')
    with pytest.raises(CardError, match=r"busi\.toml.*licence.*license"):
        check_card(bad)
    with pytest.raises(UsageError, match="no such folder"):
        check_card(MANIFESTS / "busi.toml", tmp_path / "none")


def test_check_card_holds_a_card_to_its_examples(tmp_path: Path) -> None:
    wrong = tmp_path / "bus_bra.toml"
    text = (MANIFESTS / "bus_bra.toml").read_text()
    wrong.write_text(
        text.replace('subject = "0001"', 'subject = "0002"').replace('role = "left-out"', 'role = "table"')
    )
    report = check_card(wrong)
    assert report.exit_code == 1 and len(report.faults) == 2
    assert "its rules say '0001'" in report.to_text() and "examples.4.role" in report.to_text()
    assert all(check_card(path).exit_code == 0 for path in (MANIFESTS / "busi.toml", MANIFESTS / "aul.toml"))


def test_check_card_counts_what_each_rule_picks_and_how_many_subjects(tmp_path: Path) -> None:
    for name in (
        "Images/bus_0001-l",
        "Images/bus_0001-r",
        "Images/bus_0002-l",
        "Masks/mask_0001-l",
        "Masks/mask_0001-r",
    ):
        file = tmp_path / "BUSBRA" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "BUSBRA" / "bus_data.csv").write_text("ID,Pathology\nbus_0001-l,benign\nbus_0002-l,borderline\n")
    (tmp_path / "BUSBRA" / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,1\nbus_0001-r,1\nbus_0002-l,2\n")
    (tmp_path / "BUSBRA" / "stray.bin").touch()
    report = check_card(MANIFESTS / "bus_bra.toml", tmp_path)
    answer = report.to_json()
    assert answer["images"] == 3 and answer["subjects"] == 2
    assert answer["rules"] == {"images.0": 3, "masks.0": 2, "tables.0": 1, "tables.1": 1}
    assert answer["splits"] == {"test": 2, "train": 1} and answer["rejects"] == {"unlisted": 1}
    assert answer["unmapped"] == {"pathology": {"borderline": 1}}
    assert report.exit_code == 0 and "borderline" in report.to_text()
    assert "bus_0001" not in report.to_text() and "stray" not in json.dumps(answer)


def test_check_card_finds_rules_that_do_not_fit_the_folder(tmp_path: Path) -> None:
    empty = check_card(MANIFESTS / "busi.toml", tmp_path)
    assert empty.exit_code == 1 and "no file is an image" in empty.to_text()
    (tmp_path / "benign").mkdir()
    (tmp_path / "benign" / "benign (1).png").touch()
    assert any("masks.0" in f for f in check_card(MANIFESTS / "busi.toml", tmp_path).faults)


def test_the_readme_table_has_a_row_per_card_and_no_more() -> None:
    lines = datasets_markdown(CARDS.values()).splitlines()
    assert len(lines) == len(CARDS) + 2
    assert {re.findall(r"`([^`]+)`", line)[0] for line in lines[2:]} == set(CARDS)
    assert all(line.count(" | ") == 6 for line in lines[2:])


def test_every_citation_is_a_bibtex_entry() -> None:
    for card in CARDS.values():
        entry = bibtex(card)
        assert entry.startswith(f"@misc{{{card.id},") and entry.count("{") == entry.count("}")


def test_the_card_of_the_how_to_page_works_as_the_page_says(tmp_path: Path) -> None:
    page = (MANIFESTS.parent / "docs" / "how-to" / "add-a-dataset.md").read_text()
    card = tmp_path / "liver_lab.toml"
    card.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    files = tmp_path / "files" / "outer"
    for name in ("scans/017_1.png", "scans/017_2.png", "scans/020_1.png", "masks/017_2_lesion.png"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).touch()
    (files / "reads.csv").write_text(
        "image,diagnosis,set\n017_1.png,HCC,train\n017_2.png,HCC,train\n020_1.png,cyst,test\n"
    )
    report = check_card(card, tmp_path / "files")
    answer = report.to_json()
    assert report.exit_code == 0 and (answer["images"], answer["subjects"]) == (3, 2)
    assert answer["splits"] == {"test": 1, "train": 2} and answer["unmapped"] == {}
