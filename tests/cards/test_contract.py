"""Every card keeps the contract: it loads strictly, and its rules make of its own example paths what it says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from openus_data.card import Card, Example, find_cards_dirs, load_card, load_cards
from openus_data.items import Listing, classify, image_key
from openus_data.patterns import key_of
from openus_data.records import Item, Reject
from openus_data.vocabulary import load_vocabulary

PATHS = sorted(find_cards_dirs()[0].glob("*.toml"))
CARDS = {path.stem: load_card(path) for path in PATHS}
EXAMPLES = [(card, example) for card in CARDS.values() for example in card.examples]


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_states_what_a_builder_needs(card: Card) -> None:
    vocabulary = load_vocabulary()
    assert card.license.class_ and (card.license.spdx or card.license.terms)
    assert vocabulary.is_organ(card.organ) and all(map(vocabulary.is_anatomy, card.anatomy))
    assert card.citation.text and card.homepage.startswith("http")
    assert card.obtain or not card.needs_person
    assert card.subject.path or card.subject.table or card.subject.note, (
        "how subjects are told apart, or that they are not"
    )


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_shows_an_example_of_an_image_and_of_each_sort_of_mask(card: Card) -> None:
    roles = Counter(e.role for e in card.examples)
    assert roles["image"]
    assert bool(roles["mask"]) == bool(card.masks)


@pytest.mark.parametrize(("card", "example"), EXAMPLES, ids=[f"{c.id}-{e.path}" for c, e in EXAMPLES])
def test_the_rules_make_of_an_example_what_the_card_says(card: Card, example: Example) -> None:
    role, index = classify(card, example.path)
    assert role == example.role
    if example.key and role == "image":
        assert image_key(card, example.path) == example.key.casefold()
    if example.key and role == "mask":
        rule = card.masks[index].key
        assert (key_of(rule, example.path) if rule else Path(example.path).name.split(".")[0]) == example.key


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_folder_of_the_examples_lists_as_told_and_the_same_twice(card: Card, tmp_path: Path) -> None:
    for example in card.examples:
        file = tmp_path / example.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    first, second = list(Listing(card, tmp_path)), list(Listing(card, tmp_path))
    assert first == second
    rejects = [
        r for r in first if isinstance(r, Reject) and r.reason not in ("mask_without_image", "table_missing", "repeat")
    ]
    assert not [r for r in rejects if r.reason != "table_unreadable"]
    items = {i.relative: i for i in first if isinstance(i, Item)}
    for example in (e for e in card.examples if e.role == "image" and e.path in items):
        item = items[example.path]
        if not card.subject.table:
            fallen_back = item.subject is None or card.subject.fallback != "image"
            assert item.subject == example.subject or (example.subject is None and fallen_back)
        assert item.study == example.study or example.study is None
        assert item.split == example.split
        assert item.labels.items() >= example.labels.items()


MASKED = {name: card for name, card in CARDS.items() if card.masks}


@pytest.mark.parametrize("card", MASKED.values(), ids=MASKED)
def test_an_example_mask_finds_its_image_wherever_the_archive_is_unpacked(card: Card, tmp_path: Path) -> None:
    masks = {e.key for e in card.examples if e.role == "mask"}
    both = [e for e in card.examples if e.key in masks and e.role in ("image", "mask") and e.key]
    for example in both:
        file = tmp_path / "outer folder" / example.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    wanted = {e.key for e in both if e.role == "image"}
    found = [i for i in Listing(card, tmp_path) if isinstance(i, Item) and i.masks]
    assert len(found) == len(wanted)


def test_the_42_datasets_of_openus_sum_to_the_published_figure() -> None:
    counts = [c.expected.openus_images for c in CARDS.values() if c.expected.openus_images is not None]
    assert (len(counts), sum(counts)) == (42, 309_364)


def test_labels_of_path_rules_are_mapped_or_open() -> None:
    for card, example in EXAMPLES:
        for label in card.labels:
            raw = example.labels.get(label.name)
            if raw is not None and label.path:
                assert label.open or raw in label.values, (card.id, label.name, raw)


def test_benchmarks_have_labels_or_masks_and_a_published_split_where_one_exists() -> None:
    assert {i for i, c in CARDS.items() if c.role == "both"} >= {"busi", "bus_bra", "tn3k", "fetal_planes_db"}
    for name in ("bus_bra", "tn3k", "fetal_planes_db", "mmotu_2d"):
        assert CARDS[name].split
    for name in ("busi", "bus_bra", "tn3k"):
        assert CARDS[name].masks


def test_an_archive_of_several_datasets_is_the_same_file_in_each_card() -> None:
    by_checksum: dict[str, set[tuple[str | None, str]]] = {}
    for card in CARDS.values():
        for download in card.downloads:
            if download.checksum:
                by_checksum.setdefault(download.checksum, set()).add((download.filename, download.locator))
    assert all(len(names) == 1 for names in by_checksum.values())


def test_the_loader_finds_every_file_of_the_folder() -> None:
    assert list(load_cards()) == sorted(CARDS)
