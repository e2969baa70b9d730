"""Cards load strictly: what is wrong is refused with file and key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from openus_data.card import Card, card_reference, find_cards_dirs, load_card, load_cards, named_cards, resolve_cards
from openus_data.errors import CardError, UsageError
from openus_data.patterns import compile_rule, key_of, matches

GOOD = """
id = "mine"
title = "Mine"
homepage = "https://example.org"
role = "pretrain"
access = "open"
host = "zenodo"
organ = "abdomen"
anatomy = ["liver"]

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

[[images]]
match = ["images/*.png"]

[[masks]]
match = ["masks/*.png"]
class = "lesion"
"""


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_good_card_loads_with_its_digest_and_its_fixed_facts(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, GOOD + '[[devices]]\nmanufacturer = "ge"\nfrequency_mhz = [5.0]\n'))
    assert card.facts() == {"organ": "abdomen", "anatomy": "liver", "device_manufacturer": "ge", "frequency_mhz": 5.0}
    assert len(card.sha256) == 64 and not card.is_openus and card.license.name == "CC-BY-4.0"


def test_a_fact_of_several_values_is_set_on_no_image(tmp_path: Path) -> None:
    text = GOOD.replace('anatomy = ["liver"]', 'anatomy = ["liver", "spleen"]\ncountries = ["DE", "FR"]')
    assert load_card(write(tmp_path, text)).facts() == {"organ": "abdomen"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("title =", "titel =", ("titel", "did you mean 'title'")),
        ("[license]", "[licence]", ("licence", "did you mean 'license'")),
        ('spdx = "CC-BY-4.0"\n', "", ("license", "without SPDX")),
        ('title = "Mine"\n', "", ("title", "required key is missing")),
        ('role = "pretrain"', 'role = "pretrian"', ("role", "did you mean 'pretrain'")),
        ('class = "attribution"', 'class = "unknown"', ("license.redistributable", "does not allow")),
        ('match = ["images/*.png"]', 'match = ["images/{a,b.png"]', ("images.0.match.0", "braces close")),
        ('match = ["images/*.png"]', 'match = ["images/*.png"]\nkey = "(x"', ("images.0.key", "regular expression")),
        ('match = ["images/*.png"]', 'match = ["images/*.png"]\nkey = "x"', ("images.0.key", "with a group")),
        ('match = ["images/*.png"]', 'match = ["images/*.png"]\nframes = "some"', ("images.0.frames", "every N")),
        ('match = ["images/*.png"]', 'match = "images/*.png"', ("images.0.match", "expected a list")),
        (
            'match = ["images/*.png"]',
            'match = ["images/*.png"]\nlisted_in = "t"',
            ("images.0.listed_in", "no such table"),
        ),
        ('match = ["images/*.png"]', 'match = ["a"]\nfacts = { view = "x" }', ("images.0.facts.view", "no such view")),
        ('match = ["images/*.png"]', 'match = ["a"]\nfacts = { labels = "x" }', ("facts.labels", "may set")),
        ('organ = "abdomen"', 'organ = "belly"', ("organ", "no such organ")),
        ('anatomy = ["liver"]', 'anatomy = ["livre"]', ("anatomy.0", "did you mean 'liver'")),
        ('class = "lesion"', 'class = "tumour"', ("masks.0", "mask_classes")),
        ('class = "lesion"', 'encoding = "index"', ("masks.0", "fit the encoding")),
        ("lesion = 1", "lesion = 2", ("mask_classes", "count from 1")),
        ('locator = "1"', 'locator = "1"\nchecksum = "md5:12"', ("downloads.0.checksum", "hex")),
        ('locator = "1"', 'locator = "1"\nbytes = "12"', ("downloads.0.bytes", "whole number")),
        ('locator = "1"', 'locator = "1"\nbytes = true', ("downloads.0.bytes", "whole number")),
        ('source = "zenodo"', 'source = "manual"', ("obtain", "how to obtain")),
        ('text = "A. Author, 2020"', 'text = "A"\ndoi = "https://doi.org/10.1/x"', ("citation.doi", "DOI")),
        ('text = "A. Author, 2020"', 'text = " "', ("citation.text", "empty")),
        ('id = "mine"', 'id = "yours"', ("id", "not the file's name")),
        ('id = "mine"', 'id = "mine"\nsha256 = "00"', ("sha256", "unknown key")),
        ('id = "mine"', 'id = "mine"\nid = "mine"', ("mine.toml", "not a TOML file")),
    ],
)
def test_a_wrong_card_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    with pytest.raises(CardError) as caught:
        load_card(write(tmp_path, GOOD.replace(old, new, 1)))
    message = str(caught.value)
    assert message.startswith("mine.toml") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[[labels]]\nname = "c"\ntable = "t"\ncolumn = "x"\n', "no such table"),
        ('[[labels]]\nname = "c"\npath = "(a)"\n[labels.values]\na = { pathology = "bad" }\n', "no such pathology"),
        ('[subject]\nfallback = "family"\n', "leak family"),
        ('[subject]\ncolumn = "x"\n', "without a table"),
        ('[[split]]\npath = "(a)"\nvalues = { a = "dev" }\n', "train, val, test"),
    ],
)
def test_rules_that_refer_to_nothing_are_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(CardError, match=words):
        load_card(write(tmp_path, GOOD + more))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardError, match=r"mine\.toml"):
        load_card(path)
    with pytest.raises(CardError, match="cannot be read"):
        load_card(tmp_path / "none.toml")


def test_a_folder_of_ones_own_cards_is_added_and_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace('id = "mine"', 'id = "busi"'), "busi")
    assert {"mine", "tn3k"} <= set(load_cards([tmp_path]))
    monkeypatch.setenv("OPENUS_CARDS", os.pathsep.join([str(tmp_path)]))
    assert load_cards()["busi"].title == "Mine"
    assert list(load_cards()) == sorted(load_cards())
    with pytest.raises(UsageError, match="no such folder"):
        find_cards_dirs([tmp_path / "none"])


def test_ids_and_aliases_resolve_once_each_and_a_slip_names_the_nearest() -> None:
    cards = load_cards()
    assert [c.id for c in resolve_cards(["mup", "microseg"], cards)] == ["microseg"]
    assert {c.id for c in resolve_cards(["trfe_thyroid_bundle"], cards)} == {"tn3k", "tg3k", "ddti"}
    for slip in ("bussi", "BUSI"):
        with pytest.raises(UsageError, match="did you mean 'busi'"):
            resolve_cards([slip], cards)


@pytest.mark.parametrize("ids", [["busi"], ["microseg", "busi", "microseg"], ["mup", "busi"], ["trfe_thyroid_bundle"]])
def test_named_cards_are_those_of_all_cards(ids: list[str]) -> None:
    assert named_cards(ids) == resolve_cards(ids, load_cards())


def test_named_cards_need_no_other_card_and_the_last_folder_wins(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("not TOML")
    mine = load_cards()["busi"]
    source = next(folder for folder in find_cards_dirs() if (folder / "busi.toml").is_file()) / "busi.toml"
    (tmp_path / "busi.toml").write_text(source.read_text().replace(mine.title, "Mine"))
    assert [card.title for card in named_cards(["busi"], [tmp_path])] == ["Mine"]
    with pytest.raises(CardError, match="broken"):
        named_cards(["broken"], [tmp_path])
    with pytest.raises(UsageError, match="did you mean 'busi'"):
        named_cards(["bussi"])


def test_no_alias_of_a_card_is_the_id_of_another() -> None:
    cards = load_cards()
    assert not {alias for card in cards.values() for alias in card.aliases} & cards.keys()


def test_every_key_of_a_card_is_documented_once() -> None:
    docs = card_reference()
    keys = [d.name for d in docs]
    assert len(set(keys)) == len(keys)
    assert all(d.meaning and d.type for d in docs)
    assert {"license.class", "downloads[].checksum", "images[].match", "masks[].class", "subject.path"} <= set(keys)
    assert "sha256" not in keys and "license.class_" not in keys
    assert next(d for d in docs if d.name == "id").required


def test_a_card_crosses_to_another_process_unchanged() -> None:
    import pickle

    card = load_cards()["fetal_planes_db"]
    copy = pickle.loads(pickle.dumps(card))
    assert isinstance(copy, Card) and copy == card


@pytest.mark.parametrize(
    ("glob", "path", "picked"),
    [
        ("*.png", "a/b/c.PNG", True),
        ("/*.png", "a/c.png", False),
        ("/a/*.png", "a/c.png", True),
        ("b/*.png", "a/b/c.png", True),
        ("b/*.png", "ab/c.png", False),
        ("b/*.png", "b/x/c.png", False),
        ("b/**/*.png", "b/c.png", True),
        ("b/**/*.png", "b/x/y/c.png", True),
        ("b/**", "a/b/x/y", True),
        ("{a,b*}/c?.png", "bee/c1.png", True),
        ("{a,b}/c.png", "c/c.png", False),
        ("a (1)+[x].png", "a (1)+[x].png", True),
    ],
)
def test_globs_pick_what_they_say(glob: str, path: str, picked: bool) -> None:
    assert matches(glob, path) is picked


def test_path_rules_join_the_groups_that_took_part() -> None:
    assert key_of(r"(a)?(b)(c)?", "xb") == "b"
    assert key_of(r"(train|test)/(\d+)", "x/TRAIN/12.png") == "TRAIN_12"
    assert key_of(r"(\d+)", "none") is None
    with pytest.raises(ValueError, match="group"):
        compile_rule("abc")


def test_the_reference_is_plain_text() -> None:
    json.dumps([(d.name, d.type, d.default, d.meaning) for d in card_reference()])
